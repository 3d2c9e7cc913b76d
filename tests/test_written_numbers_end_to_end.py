"""Numbers as people write them, from the commands' side: trained, predicted and evaluated, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
from support.commands import ROOT, run_forked


def run(script: str, *arguments: str, folder: Path):
    return run_forked(str(ROOT / "scripts" / script), *arguments, folder=folder)


def german(number: float) -> str:
    return f"{number:,.1f}".replace(",", " ").replace(".", ",").replace(" ", ".")


def test_amounts_in_german_files(tmp_path: Path) -> None:
    """The new rows are too few to say what a point is; the training rows have said it."""
    draw = np.random.default_rng(5)
    lines = ["umsatz;rabatt;gewinn"]
    for _ in range(80):
        sales, share = draw.uniform(1_000, 90_000), draw.integers(0, 30)
        lines.append(f"{german(sales)};{share} %;{german(0.1 * sales)} \u20ac")
    (tmp_path / "alt.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    short = ("data=table", "data.target=gewinn", "trainer.max_epochs=40", "verbosity=1", "logger=none")
    done = run("train.py", "data.path=alt.csv", *short, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numeric: umsatz, rabatt" in done.stdout
    assert "regression" in done.stdout
    (tmp_path / "neu.csv").write_text("umsatz;rabatt\n12.000;5 %\n80.000;5 %\n", encoding="utf-8")
    best = "ckpt_path=best"
    done = run("predict.py", best, "data.path=neu.csv", "output=p.csv", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    low, high = pyarrow.csv.read_csv(tmp_path / "p.csv").column("predicted_gewinn").to_pylist()
    assert 0 < low < 4_000 < high < 10_000
    done = run("evaluate.py", best, "data.path=alt.csv", "output=figures", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "figures" / "metrics.json").read_text())["metrics"]["r2"] > 0.8
    # A file in which nothing says what a point is, and the option that the message offers.
    (tmp_path / "offen.csv").write_text("umsatz;y\n" + "12.000;a\n45.250;b\n" * 10, encoding="utf-8")
    words = ("train.py", "data=table", "data.path=offen.csv", "data.target=y", "trainer.max_epochs=1", "logger=none")
    done = run(*words, folder=tmp_path)
    assert done.returncode != 0
    assert "'data.csv.decimal=\",\"'" in done.stderr
    for option, unit in (('data.csv.decimal=","', 12_000), ("data.csv.thousands=.", 12_000), ("data.csv.decimal=.", 0)):
        done = run(*words, option, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (f"read as {unit}" in done.stdout) == bool(unit)
