"""Commands that start at the same moment in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import ROOT, Forked, start_forked, train_forked

pytestmark = [pytest.mark.slow, pytest.mark.posix]


def test_starts_in_one_folder(tmp_path: Path, torture: int) -> None:
    count = min(4 * torture, 16)
    words = ["data=xor", "trainer.max_steps=20", "verbosity=0"]
    processes = [start_forked(*words, f"seed={seed}", folder=tmp_path) for seed in range(count)]
    assert [one.finished(300).returncode for one in processes] == [0] * count
    results = [json.loads(file.read_text()) for file in (tmp_path / "lightning_logs" / "xor").glob("*/result.json")]
    assert sorted(one["seed"] for one in results) == list(range(count))
    assert {one["status"] for one in results} == {"finished"}


def test_two_resumes_of_one_sweep(tmp_path: Path) -> None:
    words = ["-m", "data=xor", "seed=range(0,6)", "trainer.max_steps=2000", "sweep.name=one", "sweep.resume=true"]
    first, second = (start_forked(*words, folder=tmp_path) for _ in range(2))
    codes = sorted([first.finished(300).returncode, second.finished(300).returncode])
    assert codes in ([0, 0], [0, 1])  # the second came after the first, or during it
    results = list((tmp_path / "lightning_logs" / "xor" / "one").glob("**/result.json"))
    assert sorted(json.loads(one.read_text())["seed"] for one in results) == list(range(6))


def test_predictions_to_one_output(tmp_path: Path) -> None:
    assert train_forked("data=iris", "trainer.max_epochs=2", "verbosity=0", folder=tmp_path).returncode == 0
    run = next((tmp_path / "lightning_logs" / "iris").iterdir())
    head = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm\n"
    (tmp_path / "rows.csv").write_text(head + "5.1,3.5,1.4,0.2\n" * 500)
    words = [f"ckpt_path={run}", "data.path=rows.csv", "output=out.csv", "overwrite=true"]
    processes = [Forked([str(ROOT / "scripts" / "predict.py"), *words], tmp_path) for _ in range(4)]
    assert [one.finished(300).returncode for one in processes] == [0] * 4
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 501
    assert {one.name for one in tmp_path.iterdir()} == {"lightning_logs", "rows.csv", "out.csv"}
