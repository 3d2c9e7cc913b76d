"""What the examples of README and docs reach."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT

import mlp_lightning
from mlp_lightning.config import Config

PAGES = {
    str(one.relative_to(ROOT)): one.read_text(encoding="utf-8")
    for one in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
# Command and split, with the least accuracy or the largest error that a reader expects: for the errors, about that of
# scikit-learn's own estimators.
REACHES: list[tuple[str, str, str, float]] = [
    ("model=wide_deep data=xor", "train", "accuracy", 1.0),
    ("model=mlp data=xor", "train", "accuracy", 1.0),
    ("data=iris", "test", "accuracy", 0.93),
    (
        "data=iris optimizer=adam optimizer.lr=0.01 model.hidden_units=[32,16] model.dropout=0.1",
        "test",
        "accuracy",
        0.93,
    ),
    ("data=sklearn data.name=wine", "test", "accuracy", 0.96),
    ("data=sklearn data.name=breast_cancer", "test", "accuracy", 0.95),
    ("data=sklearn data.name=digits", "test", "accuracy", 0.97),
    ("data=sklearn data.name=iris", "test", "accuracy", 0.93),
    ("data=sklearn data.name=diabetes", "test", "mae", 45.0),
    ("data=sklearn data.name=linnerud", "test", "mae", 10.0),  # the median has 10.4
    ("data=spirals data.samples=2000", "test", "accuracy", 0.98),
    ("data=spirals", "test", "accuracy", 0.97),
    ("data=moons", "test", "accuracy", 0.99),
    ("data=circles", "test", "accuracy", 0.99),
    ("data=blobs", "test", "accuracy", 0.9),
    ("data=friedman", "test", "mae", 0.9),
    ("data=parity data.bits=8", "train", "accuracy", 1.0),
    ("data=parity", "train", "accuracy", 1.0),
]
# Printed with a comment that names others: "data.name=wine   # breast_cancer, digits, …".
_COMMANDS = [
    re.split(r"\s+#", line.strip(), maxsplit=1)[0].removeprefix("python scripts/train.py ")
    for page in PAGES.values()
    for line in page.splitlines()
    if line.startswith("    python scripts/train.py")
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "split", "metric", "limit"), REACHES, ids=[one[0] for one in REACHES])
def test_a_command_reaches_what_a_reader_expects(
    command: str, split: str, metric: str, limit: float, tmp_path: Path, compose_config: Any
) -> None:
    config: Config = compose_config(*shlex.split(command), "trainer.accelerator=cpu")
    reached = mlp_lightning.train(config, tmp_path / "run").metrics[split][metric]
    assert reached <= limit if metric == "mae" else reached >= limit


def test_the_commands_above_are_those_of_the_pages() -> None:
    trained = {command for command, *_ in REACHES}
    # Sweeps have many results; own parts, tables of the reader and continued runs have separate tests.
    elsewhere = ("-m ", "data=table", "allow_targets", "ckpt_path", "auto_resume", "own", "\\")
    assert {one for one in _COMMANDS if not any(part in one for part in elsewhere)} <= trained


def _blocks(page: str) -> list[str]:
    """The indented blocks of a page."""
    found = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", PAGES[page], re.MULTILINE)
    return [re.sub(r"^    ", "", one, flags=re.MULTILINE) for one in found]


def _ran(page: str, containing: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a block of Python of a page defines, after it ran in a folder."""
    (block,) = (one for one in _blocks(page) if containing in one and "import" in one)
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    exec(block, names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_python_of_the_pages(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = _ran(page, "result = train(config", tmp_path, monkeypatch)
    accuracies = {split: metrics["accuracy"] for split, metrics in names["result"].metrics.items()}
    assert min(accuracies.values()) >= 0.96
    assert accuracies["test"] == 1.0  # as the comment beside it says


@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_own_trainer_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _ran("docs/lightning.md", "trainer.fit(module, datamodule=data)", tmp_path, monkeypatch)["trainer"]
    assert float(trainer.callback_metrics["accuracy/val"]) >= 0.96
