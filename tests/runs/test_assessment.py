"""A model beside its baseline: what is recorded, and which warnings a person reads."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_lightning import train
from mlp_lightning.config import parse_config
from mlp_lightning.runs.fit import train_stack

pandas = pytest.importorskip("pandas")
QUIET: dict[str, Any] = {"logger": {"tensorboard": False, "csv": False, "graph": False}, "verbosity": 1}
DEEP: dict[str, Any] = {
    "data": {"name": "xor"},
    "model": {"hidden_units": 4, "depth": 8, "activation": "sigmoid", "init": "xavier_uniform"},
    "optimizer": {"name": "SGD", "lr": 1.0},
    "trainer": {"max_steps": 150, "accelerator": "cpu"},
    **QUIET,
}


def rows(positive: float, count: int = 400, features_tell: float = 0.0) -> Any:
    draw = np.random.default_rng(7)
    X = draw.normal(size=(count, 6))
    score = features_tell * X[:, 0] + draw.normal(size=count)
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    return frame.assign(bought=np.where(score > np.quantile(score, 1 - positive), "yes", "no"), price=score * 30 + 500)


def options(target: str, **further: Any) -> dict[str, Any]:
    other = "price" if target == "bought" else "bought"
    data: dict[str, Any] = {"name": "table", "target": target, "val_fraction": 0.25, "test_fraction": 0.0}
    data["columns"] = {other: {"kind": "ignored"}}
    return {
        "data": {**data, **further},
        "model": {"hidden_units": [64, 64], "dropout": 0.0},
        "scheduler": "none",
        "optimizer": {"name": "Adam", "lr": 0.01},
        "trainer": {"max_epochs": 40, "accelerator": "cpu"},
        **QUIET,
    }


def log_of(result: Any) -> str:
    return (result.run_dir / "train.log").read_text(encoding="utf-8")


# ---- what is recorded ------------------------------------------------------------------------------------


def test_a_baseline_stands_beside_every_metric(tmp_path, capsys) -> None:
    frame = rows(0.3, features_tell=2.0)
    result = train(options("bought"), tmp_path / "run", frame=frame)
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())
    share = 0.3
    for split in ("train", "val"):
        found = recorded["baseline"]["metrics"][split]
        assert found["accuracy"] == pytest.approx(1 - share)
        assert found["loss"] == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))
    assert recorded["baseline"]["predicts"].startswith("always 'no' (70 % of the training rows)")
    assert recorded["warnings"] == result.warnings == []
    shown = capsys.readouterr().out
    assert re.search(r"^ +loss +baseline +accuracy +baseline$", shown, re.MULTILINE)
    assert re.search(r"^  validation +0\.\d+ +0\.610864 +0\.\d+ +0\.7$", shown, re.MULTILINE)
    assert "Warning" not in shown


def test_the_median_is_the_baseline_of_an_absolute_error(tmp_path) -> None:
    frame = rows(0.3)
    frame["price"] = np.exp(frame["price"] / 20)  # far from symmetric
    result = train(options("price", val_fraction=0.0), tmp_path / "run", frame=frame)
    price = frame["price"].to_numpy()
    assert result.baseline is not None
    assert result.baseline["metrics"]["train"]["mae"] == pytest.approx(np.abs(price - np.median(price)).mean())
    assert result.baseline["metrics"]["train"]["loss"] == pytest.approx(1.0)


def test_an_interrupted_or_failed_run_has_none(tmp_path) -> None:
    config = {**options("price"), "optimizer": {"name": "SGD", "lr": 1e30}}
    with pytest.raises(RuntimeError, match="loss"):
        train(config, tmp_path / "run", frame=rows(0.3))
    recorded = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (recorded["baseline"], recorded["warnings"]) == (None, [])


# ---- what is said ----------------------------------------------------------------------------------------


def test_labels_that_do_not_depend_on_the_features(tmp_path, capsys) -> None:
    result = train({**options("bought"), "report_weights": "last"}, tmp_path / "run", frame=rows(0.45))
    (warning,) = result.warnings
    assert re.match(r"The validation loss \(\d\.\d+\) is above that of the baseline \(0\.68", warning)
    assert "report_weights=best" in warning
    assert "model.dropout=0.3" in warning
    assert f"Warning: {warning}" in capsys.readouterr().out
    assert f"[WARNING] Warning: {warning}" in log_of(result)
    # What it advises helps; it is the default where there are validation rows.
    best = train(options("bought"), tmp_path / "best", frame=rows(0.45))
    assert best.warnings
    assert "report_weights" not in best.warnings[0]
    assert best.metrics["val"]["loss"] < 0.75
    assert best.metrics["val"]["loss"] < result.metrics["val"]["loss"]


@pytest.mark.parametrize("what", ["numbers", "classes"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_targets_that_move_with_time(what: str, split: str, tmp_path: Path) -> None:
    """Beside a baseline that is far off, a model may look good, and no closer or looser fit helps."""
    draw = np.random.default_rng(11)
    day, shift = np.arange(400), np.linspace(-3, 3, 400)
    frame = pandas.DataFrame({"day": day, "a": draw.normal(size=400), "b": draw.normal(size=400)})
    frame["y"] = shift + draw.normal(size=400) * 0.3
    if what == "classes":
        frame["y"] = np.where(draw.uniform(size=400) < 1 / (1 + np.exp(-2 * shift)), "up", "down")
    fractions = {"val_fraction": 0.0, "test_fraction": 0.0, f"{split}_fraction": 0.3}
    data = {"name": "table", "target": "y", "time_column": "day", **fractions}
    config: dict[str, Any] = {**options("y"), "data": data}

    def moved(frame: Any, name: str, config: dict[str, Any] = config) -> list[str]:
        warnings = train(config, tmp_path / name, frame=frame).warnings
        return [one for one in warnings if "later than the training rows" in one]

    (warning,) = moved(frame, "run")
    named = {"val": "validation", "test": "test"}[split]
    assert warning.startswith(
        f"The {named} rows are later than the training rows (data.time_column=day), and their targets"
    )
    assert "predict the change since an earlier moment" in warning
    if what == "numbers":  # what it advises helps
        assert not moved(frame.assign(y=frame["y"].diff().fillna(0.0)), "changes")
    # Rows in another order have no such targets.
    assert not moved(frame.assign(day=draw.permutation(400)), "shuffled")
    without = {**data, "columns": {"day": {"kind": "ignored"}}}
    without.pop("time_column")
    assert not moved(frame, "no-time", {**config, "data": without})


def test_a_rare_class_that_is_never_found(tmp_path) -> None:
    frame = rows(0.04, 600, features_tell=0.1)
    result = train({**options("bought"), "report_weights": "best"}, tmp_path / "run", frame=frame)
    assert result.metrics["val"]["accuracy"] <= result.baseline["metrics"]["val"]["accuracy"]  # type: ignore[index]
    warning = result.warnings[0]
    assert warning.startswith("96 % of the training rows are 'no', and the validation accuracy (0.96) is not above")
    assert "data.class_weight=balanced" in warning
    # What it advises costs accuracy, which is then no measure.
    balanced = train(options("bought", class_weight="balanced"), tmp_path / "balanced", frame=frame)
    assert balanced.warnings == []


def test_what_was_learned_is_judged_by_the_last_weights(tmp_path) -> None:
    """The best may be those of the first steps: the training rows were fitted all the same, too closely."""
    frame = rows(0.5, 60, features_tell=0)
    config = {**options("bought"), "report_weights": "best", "trainer": {"max_epochs": 150}}
    config["optimizer"] = {"name": "Adam", "lr": 0.001}
    result = train(config, tmp_path / "run", frame=frame)
    assert result.best is not None
    assert result.best["step"] < result.steps / 4
    assert result.baseline is not None
    reported, base = result.metrics["train"]["loss"], result.baseline["metrics"]["train"]["loss"]
    assert reported > 0.99 * base, "the best weights have learned nothing"
    assert not any("nothing was learned" in one for one in result.warnings), result.warnings


def test_a_plateau_names_the_layers_whose_gradients_vanish(tmp_path) -> None:
    config = {**DEEP, "model": {**DEEP["model"], "hidden_units": 10, "depth": 6}, "seed": 1}
    result = train(config, tmp_path / "run")
    (warning,) = result.warnings
    assert warning.startswith("After 150 steps the training loss (0.693147) is that of the baseline (0.693147)")
    norms = {name: float(norm) for name, norm in re.findall(r"(linear_\d|output) (\d+e-\d+)", warning)}
    assert list(norms) == [*(f"linear_{number}" for number in range(1, 7)), "output"]
    assert norms["linear_1"] < norms["linear_3"] < norms["linear_6"] < norms["output"]
    assert "They vanish towards the input (linear_1, linear_2" in warning
    assert "model.activation=tanh" in warning
    remedy = {**config, "model": {**config["model"], "activation": "tanh"}, "trainer": {"max_steps": 600}}
    assert train(remedy, tmp_path / "remedy").metrics["train"]["loss"] < 0.6


def test_norms_of_the_gradient_are_those_of_torch(tmp_path) -> None:
    """Against gradients of a perturbation that is added to the output of a layer."""
    import torch

    result = train(DEEP, tmp_path / "run")
    assert result.module is not None
    mlp, X = result.module.mlp, torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = torch.tensor([[0.0], [1], [1], [0]])
    shift = torch.zeros(4, 4, requires_grad=True)
    x = mlp.layers[0](X) + shift  # type: ignore[index, operator, union-attr]
    for layer in list(mlp.layers)[1:]:  # type: ignore[arg-type]
        x = layer(x)
    torch.nn.functional.binary_cross_entropy_with_logits(x, y).backward()
    assert shift.grad is not None
    assert f"linear_1 {shift.grad.norm():.0e}" in result.warnings[0]


def test_a_short_run_that_has_not_learned_yet_is_told_to_train_longer(tmp_path) -> None:
    config = {**DEEP, "model": {"hidden_units": 4}, "trainer": {"max_steps": 3}}
    (warning,) = train(config, tmp_path / "run").warnings
    assert "trainer.max_steps=30" in warning
    assert "vanish" not in warning


def test_members_of_a_stack_are_assessed_as_alone(tmp_path) -> None:
    configs = [
        {**DEEP, "seed": seed, "model": {**DEEP["model"], "hidden_units": width}, "verbosity": 0}
        for seed, width in ((0, 4), (1, 4), (2, 3))
    ]
    easy = {**configs[0], "optimizer": {"name": "SGD", "lr": 0.5}, "seed": 3}
    folders = [tmp_path / "stack" / str(number) for number in range(4)]
    stack = train_stack([parse_config(one) for one in [*configs, easy]], [Path(one) for one in folders])
    for number, (config, member) in enumerate(zip([*configs, easy], stack, strict=True)):
        alone = train(config, tmp_path / "alone" / str(number))
        assert member.baseline == alone.baseline
        assert [one.partition(" Norms")[0] for one in member.warnings] == [
            one.partition(" Norms")[0] for one in alone.warnings
        ]
        found = [re.findall(r"(\w+) (\d+e-\d+)", one.warnings[0]) for one in (member, alone)]
        for (name, norm), (other_name, other) in zip(*found, strict=True):
            assert name == other_name
            assert float(norm) == pytest.approx(float(other), rel=0.6)
        assert f"[WARNING] Warning: {member.warnings[0]}" in log_of(member)


def test_weighted_rows_are_not_judged_by_unweighted_metrics(tmp_path) -> None:
    frame = rows(0.1).assign(count=1.0)
    frame.loc[0, "count"] = 2.0
    result = train(options("bought", weight_column="count"), tmp_path / "run", frame=frame)
    assert result.baseline is not None
    assert result.warnings == []
