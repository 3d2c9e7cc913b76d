"""The published XOR runs, by the real command, to the digit."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
from support.commands import only_run, train

GOLDEN = Path(__file__).parent / "golden" / "xor_losses.csv"
PUBLISHED_HYPOTHESES = [0.00106364, 0.99889404, 0.99889404, 0.00165861]
TOLERANCE = 1e-6


def published(model: str) -> dict[int, float]:
    with GOLDEN.open(newline="") as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["model"] == model}


@pytest.fixture(scope="module", params=["mlp", "wide_deep"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """The command of each published run, with no flag but the names: (model, its folder, what it printed)."""
    folder = tmp_path_factory.mktemp(request.param)
    done = train(f"model={request.param}", "data=xor", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return request.param, folder, done.stdout


@pytest.mark.slow
def test_printed_losses_are_the_published_ones(run: tuple[str, Path, str]) -> None:
    model, _, printed = run
    losses = {int(step): float(loss) for step, loss in re.findall(r"^step +(\d+)  loss (\S+)", printed, re.MULTILINE)}
    assert sorted(losses) == list(range(0, 10001, 100))
    expected = published(model)
    assert len(expected) == 15
    for step, loss in expected.items():
        assert losses[step] == pytest.approx(loss, abs=TOLERANCE), f"step {step}"


@pytest.mark.slow
def test_logged_losses_are_the_published_ones(run: tuple[str, Path, str]) -> None:
    model, folder, _ = run
    with (only_run(folder, "xor") / "metrics.csv").open(newline="") as file:
        losses = {int(row["step"]): float(row["loss/train"]) for row in csv.DictReader(file)}
    for step, loss in published(model).items():
        assert losses[step] == pytest.approx(loss, abs=TOLERANCE), f"step {step}"


@pytest.mark.slow
def test_hypotheses_are_printed_as_the_source_prints_them(run: tuple[str, Path, str]) -> None:
    model, _, printed = run
    text = re.search(r"Hypothesis:  (\[\[.*?\]\])\nPrediction:  (\[\[.*?\]\])\nAccuracy:  (\S+)", printed, re.DOTALL)
    assert text is not None
    hypotheses = [float(number) for number in re.findall(r"[\d.e-]+", text[1])]
    classes = [float(number) for number in re.findall(r"[\d.]+", text[2])]
    assert classes == [0, 1, 1, 0]
    assert float(text[3]) == 1.0
    assert len(hypotheses) == 4
    if model == "mlp":
        assert hypotheses == pytest.approx(PUBLISHED_HYPOTHESES, abs=TOLERANCE)


@pytest.mark.slow
def test_same_command_twice_gives_the_same_bytes(run: tuple[str, Path, str], tmp_path: Path) -> None:
    model, folder, _ = run
    done = train(f"model={model}", "data=xor", "logger=none", "verbosity=0", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    weights = [
        torch.load(only_run(one, "xor") / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for one in (folder, tmp_path)
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, first in weights[0].items():
        assert first.numpy().tobytes() == weights[1][name].numpy().tobytes(), name


@pytest.mark.slow
def test_golden_figures_are_those_of_a_plain_loop() -> None:
    """The exporter beside the checker: the file can be made again with torch alone, to 2e-7."""
    torch.manual_seed(777)
    layers = [torch.nn.Linear(2, 2), torch.nn.Sigmoid(), torch.nn.Linear(2, 1), torch.nn.Sigmoid()]
    model, loss_of = torch.nn.Sequential(*layers), torch.nn.BCELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    features = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    targets = torch.tensor([[0.0], [1], [1], [0]])
    expected = published("mlp")
    for step in range(1001):
        optimizer.zero_grad()
        loss = loss_of(model(features), targets)
        if step in expected:
            assert loss.item() == pytest.approx(expected[step], abs=2e-7)
        loss.backward()
        optimizer.step()
