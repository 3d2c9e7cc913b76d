"""The command: what it takes, what it refuses, and the page of a sweep of real runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import ROOT, run_forked

from mlp_lightning.commands.report import with_path_named

REPORT = str(ROOT / "scripts" / "report.py")


def test_the_first_word_is_the_path(tmp_path: Path) -> None:
    assert with_path_named(["runs/a b", "lang=ko"]) == ["path='runs/a b'", "lang=ko"]
    assert with_path_named(["--cfg", "lang=ko", "it's"]) == ["--cfg", "lang=ko", "path='it\\'s'"]
    assert with_path_named(["path=x", "rows=1"]) == ["path=x", "rows=1"]
    (tmp_path / "lr=1").mkdir()
    assert with_path_named([str(tmp_path / "lr=1")]) == [f"path='{tmp_path / 'lr=1'}'"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ([], ["path = None is missing"]),
        (["nothing"], ["path = 'nothing'", "folder of a sweep"]),
        (["best"], ["path = 'best'", "no run there has one"]),
        (["."], ["has no run (a folder with config.yaml)"]),
        (["x", "lang=fr", "row=3"], ["lang = 'fr'", "did you mean rows?"]),
        (["x", "rows=-1"], ["rows = -1"]),
    ],
)
def test_wrong_use(words: list[str], texts: list[str], tmp_path: Path) -> None:
    done = run_forked(REPORT, *words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert all(one in done.stderr for one in texts), done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_and_sweeps(tmp_path: Path) -> None:
    def run(script: str, *words: str) -> str:
        done = run_forked(str(ROOT / "scripts" / script), *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def data(name: str) -> dict:
        text = (tmp_path / name).read_text(encoding="utf-8")
        return json.loads(text.partition('id="data">')[2].partition("</script>")[0])

    run("train.py", "data=moons", "trainer.max_epochs=2", "verbosity=0", "logger=csv")
    assert run("report.py", "best").startswith("Report: report.html (")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "train.py data=moons trainer.max_epochs=2 verbosity=0 logger=csv" in text
    assert set(data("report.html")["live"]["points"]) == {"train", "val"}
    run("report.py", "best", "rows=0", "output=bare.html")
    assert data("bare.html")["live"]["points"] == {}
    for store in ("folders", "packed"):
        words = ("sweep.name=" + store, f"sweep.store={store}", "optimizer.lr=0.1,1", "trainer.max_epochs=2")
        run("train.py", "-m", "data=iris", "model.hidden_units=3,5", *words, "verbosity=0")
        run("report.py", f"lightning_logs/iris/{store}", f"output={store}.html")
        (board,) = data(f"{store}.html")["sweep"]
        assert sorted(board["keys"]) == ["model.hidden_units", "optimizer.lr"]
        assert sorted(one["label"] for one in board["runs"]) == ["0", "1", "2", "3"]
        losses = [one["metrics"][board["metrics"].index(board["ranked_by"])] for one in board["runs"]]
        assert losses == sorted(losses)
        for one in board["runs"]:
            assert len(one["curve"]) == len(board["steps"][one["at"]]) > 1
    assert data("packed.html") == data("folders.html")
    assert not list((tmp_path / "lightning_logs" / "iris" / "packed").glob("[0-9]*")), "none is unpacked"
    run("report.py", "lightning_logs/iris/packed/2", "output=of_one.html")
    assert len(data("of_one.html")["live"]["columns"]) == 4
