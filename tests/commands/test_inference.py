"""evaluate, predict and export as commands: all faults are reported together and before any work."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
from support.commands import ROOT, environment, run_forked, train_forked
from support.inference_tables import flowers

WRONG = {
    "evaluate.py": [
        (["ckpt_path=best"], ["ckpt_path", "no run there has one"]),
        (["ckpt_path=nothing.ckpt", "splitt=val"], ["splitt", "did you mean split?"]),
        ([], ["ckpt_path = None is missing"]),
        (
            ["ckpt_path=x.ckpt", "compare=y.ckpt", "resamples=-1", "confidence=1", "threshold.precision=0"],
            ["ckpt_path = 'x.ckpt' is not", "compare = 'y.ckpt' is not", "resamples = -1", "confidence = 1"],
        ),
        (
            ["ckpt_path=x.ckpt", "resamples=0", "seed=3", "threshold.value=0.4", "threshold.recall=0.9"],
            ["seed = 3 has no effect without resamples", "threshold.recall = 0.9 contradicts threshold.value"],
        ),
    ],
    "explain.py": [
        (["ckpt_path=best"], ["ckpt_path", "no run there has one"]),
        (["ckpt_path=x.ckpt", "repeat=3"], ["did you mean repeats?"]),
        (
            ["repeats=1", "top=0", "rows=0", "seed=-1", "split=all"],
            ["ckpt_path = None is missing", "repeats = 1", "top = 0", "rows = 0", "seed = -1", "split = 'all'"],
        ),
        (["ckpt_path=x.ckpt", "shapley_rows=0", "shapley_samples=9"], ["shapley_samples = 9 has no effect"]),
        (["ckpt_path=x.ckpt", "data.path=t.csv", "split=val"], ["split = 'val' has no effect with data.path"]),
    ],
    "predict.py": [
        (
            ["ckpt_path=x.ckpt", "data.pth=new.csv"],
            ["did you mean data.path?", "data.path = None is missing", "output = None is missing"],
        ),
        (["ckpt_path=x.ckpt", "data.path=new.csv", "output=out.csv"], ["ckpt_path", "is not a file"]),
        (["ckpt_path=x.ckpt", "data.path=new.csv", "output=out.csv", "threshold=1.2"], ["threshold = 1.2"]),
        (["-m", "ckpt_path=a,b"], ["--multirun"]),
    ],
    "export.py": [(["ckpt_path=best", "format=onx"], ["did you mean onnx?"])],
}
CASES = [(script, words, texts) for script, cases in WRONG.items() for words, texts in cases]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "words", "texts"), CASES)
def test_wrong_use(script: str, words: list[str], texts: list[str], tmp_path: Path) -> None:
    done = run_forked(str(ROOT / "scripts" / script), *words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("script", list(WRONG))
def test_help_makes_nothing_and_imports_no_torch(script: str, tmp_path: Path) -> None:
    code = f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
    code += f"try: runpy.run_path(r'{ROOT / 'scripts' / script}', run_name='__main__')\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ckpt_path" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_models_of_xor(tmp_path: Path) -> None:
    """A data set that is not a table has columns x1, x2, … ."""

    def run(script: str, *words: str) -> str:
        done = run_forked(str(ROOT / "scripts" / script), *words, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train.py", "model=wide_deep", "data=xor", "verbosity=0", "logger=none")
    (tmp_path / "new.csv").write_text("x1,x2,xor\n1,0,1\n1,1,0\n0,0,0\n")
    printed = run("predict.py", "ckpt_path=best", "data.path=new.csv", "output=out/p.csv")
    assert "3 rows predicted" in printed
    lines = (tmp_path / "out" / "p.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["predicted_xor", "1", "0", "0"]
    assert "accuracy" in run("evaluate.py", "ckpt_path=last", "data.path=new.csv")
    assert "Predicts as the checkpoint does" in run("export.py", "ckpt_path=best")


@pytest.mark.slow
def test_a_table_from_standard_input(tmp_path: Path) -> None:
    rows = "".join(f"{row % 13 / 4},{row % 2}\n" for row in range(80))
    for script, *words in (
        ("train.py", "data=table", "data.target=high", "trainer.max_epochs=2", "logger=none", "verbosity=0"),
        ("predict.py", "ckpt_path=last", "output=out.csv"),
    ):
        command = [sys.executable, str(ROOT / "scripts" / script), "data.path=-", *words]
        settings: dict[str, Any] = {"cwd": tmp_path, "env": environment(), "capture_output": True, "encoding": "utf-8"}
        done = subprocess.run(command, input=f"x,high\n{rows}", timeout=300, **settings)
        assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 81


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "names"), [("latin-1", ["Köln", "Münster"]), ("cp1252", ["Besançon", "Orléans"])])
def test_new_rows_in_another_encoding_than_the_training(encoding: str, names: list[str], tmp_path: Path) -> None:
    text = "town,x,y\n" + "".join(f"{names[row % 2]},{row % 13 / 4},{row % 2}\n" for row in range(80))
    (tmp_path / "old.csv").write_text(text, encoding=encoding)
    (tmp_path / "new.csv").write_text(text, encoding="utf-8")
    (tmp_path / "same.csv").write_text(text, encoding=encoding)
    (tmp_path / "ascii.csv").write_text(text.encode("ascii", "ignore").decode(), encoding="utf-8")
    options = ["data=table", "data.target=y", "trainer.max_epochs=2", "logger=none", "verbosity=0"]
    done = train_forked(*options, "data.path=old.csv", f"data.csv.encoding={encoding}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for script, *words in (("predict.py", "output=out.csv", "overwrite=true"), ("evaluate.py", "output=out")):

        def run(*more: str, script: str = script, words: list[str] = words) -> Any:
            return run_forked(str(ROOT / "scripts" / script), "ckpt_path=last", *words, *more, folder=tmp_path)

        refused = run("data.path=new.csv")
        assert refused.returncode == 2, refused.stderr
        for part in ("new.csv is UTF-8", f"with data.csv.encoding={encoding},", "Set data.csv.encoding=utf-8"):
            assert part in refused.stderr
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.csv").exists()
        plain = run("data.path=new.csv", "data.csv.encoding=utf-8")
        insisted = run("data.path=new.csv", f"data.csv.encoding={encoding}")
        for accepted in (plain, insisted, run("data.path=same.csv"), run("data.path=ascii.csv")):
            assert accepted.returncode == 0, accepted.stderr
        unknown = "values that no training row has"
        assert unknown in insisted.stdout
        assert unknown not in plain.stdout
        (tmp_path / "out.csv").unlink(missing_ok=True)


@pytest.mark.slow
def test_latin_rows_for_a_model_of_utf8(tmp_path: Path) -> None:
    text = "town,x,y\n" + "".join(f"{('Köln', 'Bonn')[row % 2]},{row % 13 / 4},{row % 2}\n" for row in range(80))
    (tmp_path / "old.csv").write_text(text, encoding="utf-8")
    (tmp_path / "new.csv").write_text(text, encoding="latin-1")
    options = ["data=table", "data.target=y", "trainer.max_epochs=2", "logger=none", "verbosity=0"]
    assert train_forked(*options, "data.path=old.csv", folder=tmp_path).returncode == 0
    for script, *words in (("predict.py", "output=out.csv"), ("evaluate.py",)):
        done = run_forked(
            str(ROOT / "scripts" / script), "ckpt_path=last", "data.path=new.csv", *words, folder=tmp_path
        )
        assert done.returncode == 2
        assert "new.csv, line 2: byte 10 of the file" in done.stderr
        assert "data.csv.encoding=latin-1" in done.stderr


@pytest.mark.slow
def test_a_warning_is_printed_once(tmp_path: Path) -> None:
    rows = "".join(f"{row * 7 % 11},{row * 5 % 13},{'uv'[row % 2]}\n" for row in range(60))
    (tmp_path / "t.csv").write_text(f"a,b,y\n{rows}")
    (tmp_path / "new.csv").write_text("a,b,y\n" + "".join(f"{row},{row % 5},u\n" for row in range(20)))
    options = ["data=table", "data.target=y", "data.path=t.csv", "trainer.max_epochs=3", "logger=none", "verbosity=0"]
    assert train_forked(*options, folder=tmp_path).returncode == 0
    done = run_forked(str(ROOT / "scripts" / "evaluate.py"), "ckpt_path=last", "data.path=new.csv", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("Warning: On these rows the model is worse") == 1
    assert done.stderr == ""


def test_the_best_is_that_of_a_finished_run(tmp_path: Path) -> None:
    """It is named, and why it is this one."""
    for overrides in (["trainer.max_epochs=2"], ["trainer.max_epochs=3"]):
        assert train_forked("data=iris", *overrides, folder=tmp_path).returncode == 0
    first, second = sorted((tmp_path / "lightning_logs" / "iris").iterdir())
    evaluate = str(ROOT / "scripts" / "evaluate.py")
    done = run_forked(evaluate, "ckpt_path=best", folder=tmp_path)
    assert f"{second.name}/checkpoints/best.ckpt (ckpt_path=best: of the newest finished run)" in done.stdout
    (second / "result.json").unlink()  # as if it still trained
    done = run_forked(evaluate, "ckpt_path=best", folder=tmp_path)
    assert f"{first.name}/checkpoints/best.ckpt (ckpt_path=best: of the newest finished run)" in done.stdout
    (first / "result.json").unlink()
    done = run_forked(evaluate, "ckpt_path=last", folder=tmp_path)
    assert f"{second.name}/checkpoints/last.ckpt (ckpt_path=last: of the newest run, which has not" in done.stdout


@pytest.mark.parametrize("script", [*WRONG, "train.py", "leaderboard.py"])
def test_version_is_that_of_this_package(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"mlp-lightning {importlib.metadata.version('mlp-lightning')} ")


@pytest.mark.slow
def test_a_threshold_from_validation_rows_to_predictions(tmp_path: Path) -> None:
    def run(script: str, *words: str, code: int = 0) -> str:
        done = run_forked(str(ROOT / "scripts" / script), *words, folder=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    pyarrow.csv.write_csv(flowers(240).drop_columns(["kind", "price", "age", "weight"]), tmp_path / "flowers.csv")
    quick = ["trainer.max_epochs=30", "verbosity=0", "logger=none", "scheduler=none"]
    run("train.py", "data=table", "data.path=flowers.csv", "data.target=big", *quick)
    costs = ["threshold.false_positive_cost=1", "threshold.false_negative_cost=20"]
    printed = run("evaluate.py", "ckpt_path=best", "split=val", *costs, "output=chosen", "resamples=50")
    assert "50 resamples of rows, seed 0" in printed
    value = json.loads((tmp_path / "chosen" / "metrics.json").read_text())["threshold"]["values"]["big"]
    run("evaluate.py", "ckpt_path=best", "threshold.value=chosen/metrics.json", "output=measured")
    measured = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert measured["threshold"]["values"] == {"big": value}
    assert measured["split"] == "test"
    words = "ckpt_path=best", "data.path=flowers.csv", "threshold=chosen/metrics.json", "output=p.csv"
    run("predict.py", *words)
    table = pyarrow.csv.read_csv(tmp_path / "p.csv")
    assert table["predicted_big"].to_pylist() == [one >= value for one in table["probability_True"].to_pylist()]
    assert "is the evaluated model" in run("evaluate.py", "ckpt_path=best", "compare=best", "output=no", code=2)
    assert not (tmp_path / "no").exists()
