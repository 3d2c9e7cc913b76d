"""The page as a file: what it holds, what it asks for, and that nothing of the data becomes a tag or a script."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn import metrics
from support.page_scripts import TEMPLATES, run_scripts

from mlp_lightning import train
from mlp_lightning.errors import CheckpointError, ConfigError, RunFolderError
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.report import curves as curves_module
from mlp_lightning.inference.report.curves import Line, RunCurves, parsed, thinned
from mlp_lightning.inference.report.page import json_markup, texts
from mlp_lightning.inference.report.report import report
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.sweeps.records import STATUSES, UNENDED


class Parsed(html.parser.HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside.setdefault(self._open[-1], []).append(data)

    @property
    def data(self) -> Any:
        return json.loads(next(one for one in self.inside["script"] if one.startswith("{")))

    @property
    def words(self) -> str:
        return " ".join(" ".join(one) for tag, one in self.inside.items() if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def xor_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "xor"
    config = {
        "data": "xor",
        "model": "wide_deep",
        "trainer": {"max_steps": 600, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "graph": False},
        "verbosity": 0,
    }
    train(config, folder)
    return folder


def written(path: Path, folder: Path, **options: Any) -> Parsed:
    return Parsed(report(path, folder / "page.html", **options).path)


# ---- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_every_status_has_a_text(lang: str) -> None:
    assert {f"status_{one}" for one in (*STATUSES, UNENDED)} == {
        one for one in texts(lang) if one.startswith("status_")
    }


def test_all_languages_say_the_same_things() -> None:
    english, korean = texts("en"), texts("ko")
    assert list(english) == list(korean)
    for key, text in english.items():
        fields = {one for _, one, _, _ in string.Formatter().parse(text) if one is not None}
        assert fields == {one for _, one, _, _ in string.Formatter().parse(korean[key]) if one is not None}, key
        assert re.search("[가-힣]", korean[key]) or key == "made_by", key


def test_no_text_is_missing_or_unused() -> None:
    sources = [*TEMPLATES.iterdir(), *TEMPLATES.parent.glob("*.py")]
    source = "\n".join(one.read_text(encoding="utf-8") for one in sources)
    named = {*re.findall(r"\bt\.(\w+)", source), *re.findall(r"\bT\.(js_\w+)", source)} - {"get"}
    assert named <= set(texts("en")), named - set(texts("en"))
    prefixes = ("status_", "split_", "kind_", "weights_", "do_", "js_")
    of_codes = {key for key in texts("en") if f'"{key}"' in source or any(key.startswith(one) for one in prefixes)}
    assert set(texts("en")) == named | of_codes


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_page_asks_nobody(xor_run: Path, tmp_path: Path) -> None:
    page = written(xor_run, tmp_path)
    assert all("src" not in attributes for _, attributes in page.tags)
    assert [one["href"] for _, one in page.tags if "href" in one] == ["#content"]
    assert not any(name.startswith("on") for _, one in page.tags for name in one)
    assert not any("style" in one for _, one in page.tags), "the policy would refuse it"
    source = page.text.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody asks
    for word in ("http:", "https:", "//cdn", "@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "import("):
        assert word not in source
    (policy,) = (one["content"] for _, one in page.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for kind, text in (("script", page.inside["script"][-1]), ("style", page.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_sizes(xor_run: Path, kind_model, tmp_path: Path) -> None:
    assert report(xor_run, tmp_path / "xor.html").bytes <= 300_000
    assert report(kind_model.result.run_dir, tmp_path / "table.html").bytes <= 1_000_000


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_what_a_run_says(xor_run: Path, tmp_path: Path, lang: str) -> None:
    page = written(xor_run, tmp_path, lang=lang)
    t, result = texts(lang), json.loads((xor_run / "result.json").read_text())
    assert ("html", {"lang": lang}) in page.tags
    for key in ("asked", "learning", "live", "table", "status_finished", "not_held_out"):
        assert t[key] in page.words
    for split in result["metrics"].values():
        for value in split.values():
            assert f"{value:.5g}" in page.words
    assert "10 → 10" in page.words
    assert t["parameters"].format(count=261) in page.words
    charts = {one["metric"]: one["series"] for one in page.data["curves"]["charts"]}
    with (xor_run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss/train"]]
    (line,) = charts["loss"]
    assert line["steps"] == [int(row["step"]) for row in rows]
    assert line["values"] == [float(f"{float(row['loss/train']):.6g}") for row in rows]
    assert set(charts) == {"loss", "accuracy", "learning_rate"}
    assert "0.693147" in page.words, "the plateau"


def test_the_same_command_writes_the_same_page(xor_run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        report(xor_run, tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


# ---- hostile and damaged --------------------------------------------------------------------------------------------

HOSTILE = ["</script><img src=x onerror=alert(1)>", "<script>alert(2)</script>", "{{ 7 * 7 }}\u2028]]>", "\"'&lt;<!--"]


def test_names_are_texts(tmp_path: Path) -> None:
    random, count = np.random.default_rng(0), 90
    table = {HOSTILE[0]: random.normal(size=count), HOSTILE[1]: random.choice(HOSTILE[:2], count)}
    table[HOSTILE[2]] = random.normal(size=count)
    table[HOSTILE[3]] = random.choice([HOSTILE[0], HOSTILE[3], "<b>"], count)
    run = tmp_path / "<i>run"
    config = {
        "data": {"name": "frame", "target": HOSTILE[3], "val_fraction": 0.2, "test_fraction": 0.2},
        "trainer": {"max_steps": 5, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "graph": False},
        "verbosity": 0,
    }
    train(config, run, frame=pa.table(table))
    page = written(run, tmp_path)
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "i", "iframe"})
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert not any(name.startswith("on") for _, one in page.tags for name in one)
    for name in HOSTILE[:2]:
        assert name in page.words
    assert "49" not in page.words.split()
    live = page.data["live"]
    assert [one["name"] for one in live["columns"]] == HOSTILE[:3]
    assert set(live["classes"]) == {HOSTILE[0], HOSTILE[3], "<b>"}
    assert "frame" in page.words, "its rows are in memory, and the page says so"


def test_json_ends_no_script() -> None:
    given = {"</script>": ["<!--", "\u2028", "&amp;", float("nan"), float("inf"), "\ud800", 0.1]}
    text = str(json_markup(given))
    assert not set("<>&\u2028") & set(text)
    text.encode()
    assert json.loads(text) == {"</script>": ["<!--", "\u2028", "&amp;", None, None, "?", 0.1]}


def copied(run: Path, folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((run / name).read_bytes())
    return folder


def test_what_is_not_there_is_said(xor_run: Path, tmp_path: Path) -> None:
    t = texts("en")
    page = written(copied(xor_run, tmp_path / "unended", "config.yaml", "metrics.csv"), tmp_path)
    for key in ("status_unended", "no_checkpoint", "no_metrics"):
        assert t[key] in page.words
    assert "live" not in page.data
    assert page.data["curves"]["charts"]
    page = written(copied(xor_run, tmp_path / "bare", "config.yaml", "result.json"), tmp_path)
    assert t["no_curves"] in page.words
    moved = copied(xor_run, tmp_path / "moved", "checkpoints/last.ckpt") / "checkpoints" / "last.ckpt"
    page = written(moved, tmp_path)
    assert t["no_metrics"] not in page.words
    assert len(page.data["live"]["points"]["train"]["raw"]) == 4
    failed = copied(xor_run, tmp_path / "failed", "config.yaml")
    content = {"status": "failed", "metrics": {}, "steps": 3, "error": "TrainingError: <loud>", "warnings": 3}
    (failed / "result.json").write_text(json.dumps({**content, "members": "no", "best": [], "baseline": {}}))
    page = written(failed, tmp_path)
    assert "<loud>" in page.words
    assert t["status_failed"] in page.words


def test_damaged_files(xor_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copied(xor_run, tmp_path / "run", "config.yaml", "result.json", "metrics.csv", "checkpoints/last.ckpt")
    for content in (
        b"step,loss/train\n0,what\n",
        b"\xff\xfe\n",
        b"",
        b"loss\n1\n",
        b"step,a,a\n1,2,3\n",
        b"step,a\n,1\n",
    ):
        (run / "metrics.csv").write_bytes(content)
        page = written(run, tmp_path)
        assert texts("en")["damaged_curves"] in page.words, content
    monkeypatch.setattr(curves_module, "MOST_BYTES", 10)
    (run / "metrics.csv").write_bytes(b"step,loss/train\n0,1\n")
    assert "20 bytes" in written(run, tmp_path).words
    (run / "checkpoints" / "last.ckpt").write_bytes(b"not a checkpoint")
    page = written(run, tmp_path)
    assert texts("en")["no_model"] in page.words
    assert "live" not in page.data
    with pytest.raises(CheckpointError):
        report(run / "checkpoints" / "last.ckpt", tmp_path / "other.html")
    (run / "result.json").write_text("[" * 100_000)
    with pytest.raises(RunFolderError, match=r"nested too deeply|not valid JSON"):
        report(run, tmp_path / "other.html")
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        report(xor_run, tmp_path / "page.txt")
    assert not (tmp_path / "other.html").exists()


def test_a_network_that_diverged(xor_run: Path, tmp_path: Path) -> None:
    run = copied(xor_run, tmp_path / "run", "config.yaml", "result.json", "metrics.csv", "checkpoints/last.ckpt")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["mlp.layers.output.bias"].fill_(float("nan"))
    torch.save(content, run / "checkpoints" / "last.ckpt")
    page = written(run, tmp_path)
    assert texts("en")["no_table"] in page.words
    assert "table" not in page.data
    assert "live" in page.data


# ---- what is measured -----------------------------------------------------------------------------------------------


def made(values: list[float], every: int = 10) -> RunCurves:
    steps = np.arange(len(values)) * float(every)
    return RunCurves("accuracy", {"loss/train": Line(steps, np.array(values))})


def test_plateaus() -> None:
    assert made([0.7, 0.695, 0.693, 0.693, 0.69, 0.5, 0.1]).plateau(0.6931) == (0, 40, 0.6931, pytest.approx(0.6942))
    assert made([0.9, *[1.001] * 6, 0.5, 1.0, 0.2]).plateau(1.0)[:2] == (10, 60)  # type: ignore[index]  # it is there
    assert made([0.69, 0.69, 0.5, 0.69, 0.69, 0.69, 0.69, 0.4]).plateau(0.69) is None, "too short"
    assert made([1.0] * 6 + [0.5] * 200).plateau(1.0) is None, "a small part of the training"
    for baseline in (None, 0.0, -1.0):
        assert made([0.0] * 10).plateau(baseline) is None
    assert RunCurves("", {}).plateau(1.0) is None
    assert made([1.0, float("nan"), 2.0]).first_not_finite() == 10
    assert made([1.0]).first_not_finite() is None


def test_thinned_curves_keep_their_extremes() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=10_000)
    values[[77, 5_003]] = 50, -50
    values[9_000] = np.nan
    found = thinned(Line(np.arange(10_000.0), values))
    assert len(found["steps"]) <= 402
    assert (found["steps"][0], found["steps"][-1], found["of"]) == (0, 9_999, 10_000)
    assert {50.0, -50.0, None} <= set(found["values"])
    kept = {step: value for step, value in zip(found["steps"], found["values"], strict=True) if value is not None}
    assert all(value == float(f"{values[step]:.6g}") for step, value in kept.items())


def test_parsed_curves() -> None:
    found = parsed(b"step,loss/train,r2/train,loss/val\n0,1.5,,\n5,,,2\n5,0.5,0.1,\n", "it")
    assert found.metric_name == "r2"
    line = found.line("loss", "train")
    assert line is not None
    assert (line.steps_S.tolist(), line.values_S.tolist()) == ([0, 5], [1.5, 0.5])
    assert found.line("loss", "test") is None
    assert found.rate is None


def test_thresholds_and_calibration() -> None:
    random = np.random.default_rng(2)
    truths = random.integers(0, 2, 300)
    scores = np.round(np.clip(truths * 0.3 + random.random(300) * 0.7, 0, 1), 2)
    weights = random.integers(1, 4, 300)
    body = "return [sweepThresholds(...data), calibrationOf(...data), sweepThresholds(data[0], data[1], null)];"
    given = [truths.tolist(), scores.tolist(), weights.tolist()]
    names = ["network.js", "table.js"]
    weighted, bins, plain = run_scripts(names, body, given)
    for found, of_rows in ((weighted, weights), (plain, None)):
        fpr, tpr, thresholds = metrics.roc_curve(truths, scores, sample_weight=of_rows, drop_intermediate=False)
        points = found["points"]
        assert [one["fp"] / found["negatives"] for one in points] == pytest.approx(fpr.tolist())
        assert [one["tp"] / found["positives"] for one in points] == pytest.approx(tpr.tolist())
        assert [one["threshold"] for one in points[1:]] == pytest.approx(thresholds[1:].tolist())
    for one in bins:
        inside = np.minimum((scores * 10).astype(int), 9) == np.minimum(int(one["predicted"] * 10), 9)
        assert one["weight"] == weights[inside].sum()
        assert one["share"] == pytest.approx(np.average(truths[inside], weights=weights[inside]))


def test_sorting_and_filtering_runs() -> None:
    runs = [
        {"label": label, "values": values}
        for label, values in (("0", [0.1, "relu"]), ("1", [10, "tanh"]), ("2", ["null", "relu"]), ("3", [None, "silu"]))
    ]
    body = """
      const labels = (found) => found.map((one) => one.label), by = (run) => run.values[0];
      const filter = (text) => labels(filteredRuns(data, ["optimizer.lr", "model.activation"], text));
      return [labels(sortedRuns(data, by, false)), labels(sortedRuns(data, by, true)), filter("relu"),
        filter("lr=10"), filter("activation=relu 2"), filter(""), filter("nothing")];
    """
    found = run_scripts(["network.js", "sweep.js"], body, runs)
    expected = [["0", "1", "2", "3"], ["1", "0", "2", "3"], ["0", "2"], ["1"], ["2"], ["0", "1", "2", "3"], []]
    assert found == expected


def test_snapshots_replay_the_learning(tmp_path: Path) -> None:
    """The page has the weights of every step, and those of the model last."""
    config = {
        "data": "moons",
        "model": {"hidden_units": 4, "norm": "batch"},
        "callbacks": {"snapshots": 7},
        "trainer": {"max_steps": 30, "accelerator": "cpu"},
        "logger": {"tensorboard": False, "graph": False},
        "verbosity": 0,
    }
    train(config, tmp_path / "run")
    live = written(tmp_path / "run", tmp_path).data["live"]
    content = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    kept, snapshots = content["snapshots"], live["snapshots"]
    assert snapshots["steps"] == [*kept["steps"], None]
    assert snapshots["weights"][-1] == live["spec"]["weights"]
    body = """
      const network = new Network(data.live.spec);
      return data.live.snapshots.weights.map((text) => {
        network.weights = decoded(text, data.live.spec.double);
        return data.rows.map((row) => network.forward(row).predictions);
      });
    """
    rows = np.random.default_rng(0).normal(size=(20, 2))
    found = run_scripts(["network.js"], body, {"live": live, "rows": rows.tolist()})
    model = load_model(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for place, of_step in enumerate(found[:-1]):
        state = {name: one[place] for name, one in kept["weights"].items()}
        model.module.load_state_dict({**model.module.state_dict(), **state})
        np.testing.assert_allclose(of_step, model.predict(rows), atol=1e-6)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    assert "snapshots" not in written(tmp_path / "run", tmp_path).data["live"]


@pytest.mark.slow
def test_the_page_of_1024_runs(xor_run: Path, tmp_path: Path) -> None:
    """Copies of one run that say that they are others."""
    names = ["config.yaml", "result.json", "metrics.csv"]
    contents = {name: (xor_run / name).read_bytes() for name in names}
    random = np.random.default_rng(0)
    for number in range(1024):
        folder = tmp_path / "sweep" / str(number)
        (folder / ".hydra").mkdir(parents=True)
        lr = float(random.random())
        (folder / ".hydra" / "overrides.yaml").write_text(f"- optimizer.lr={lr}\n- seed={number}\n- name=x\n")
        for name, content in contents.items():
            if name == "metrics.csv":
                lines = [f"{step},{random.random()!r},0.5,,,,,1.0" for step in range(0, 10_000, 50)]
                content = "\n".join([content.decode().splitlines()[0], *lines, ""]).encode()
            (folder / name).write_bytes(content)
    page = written(tmp_path / "sweep", tmp_path)
    (board,) = page.data["sweep"]
    assert len(board["runs"]) == 1024
    assert all(len(one["curve"]) >= 10 for one in board["runs"])
    assert len(page.text.encode()) <= 2_000_000
