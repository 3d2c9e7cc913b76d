"""What a checkpoint keeps of rows that a model did not train on: when, how much, and that nothing else is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from mlp_lightning import train
from mlp_lightning.errors import CheckpointError
from mlp_lightning.inference.loading import load_model
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.calibration import Calibration, calibration
from mlp_lightning.runs.checkpoints import read_checkpoint, write_checkpoint
from mlp_lightning.runs.fit import parsed_with_rows

KEPT = {"residuals": torch.ones(9, 2).double(), "folds": None, "fold_of_member": [], "used_for": []}
FOLDED = {**KEPT, "folds": torch.arange(9) % 3, "fold_of_member": [0, 1, 2, 0, 1, 2]}


@pytest.mark.parametrize("content", [KEPT, {**KEPT, "used_for": ["weights", "stopping"]}])
def test_what_is_written_is_read(content: dict[str, Any]) -> None:
    assert Calibration.of_content(content, 2, 1).content().keys() == content.keys()
    assert Calibration.of_content(FOLDED, 2, 6).fold_of_member == (0, 1, 2, 0, 1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"residuals": torch.ones(9, 3).double()},
        {"residuals": torch.ones(9, 2)},
        {"residuals": torch.ones(0, 2).double()},
        {"residuals": torch.ones(2_001, 2).double()},
        {"residuals": -torch.ones(9, 2).double()},
        {"residuals": torch.full((9, 2), torch.nan).double()},
        {"residuals": torch.full((9, 2), torch.inf).double()},
        {"used_for": ["\x1b[2J"]},
        {"fold_of_member": [0]},
        {"folds": torch.arange(8), "fold_of_member": [0, 1, 2, 0, 1, 2]},
        {"folds": torch.arange(9) % 4, "fold_of_member": [0, 1, 2, 0, 1, 2]},
        {"folds": torch.arange(9) % 3, "fold_of_member": [0, 1, 2]},
        {"folds": torch.zeros(9), "fold_of_member": [0] * 6},
    ],
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"residuals|folds"):
        Calibration.of_content({**KEPT, **changes}, 2, 6)


def test_of_many_rows_some_are_drawn_with_their_folds() -> None:
    of_rows_NT = np.arange(9_000.0)[:, None]
    kept = calibration(of_rows_NT, 5, [], np.arange(9_000) // 3_000, [0, 1, 2])
    again, other = (calibration(of_rows_NT, seed, [], np.arange(9_000) // 3_000, [0, 1, 2]) for seed in (5, 6))
    assert kept is not None
    assert again is not None
    assert other is not None
    assert kept.fold_N is not None
    assert len(np.unique(kept.residuals_NT)) == 2_000
    assert np.array_equal(kept.residuals_NT[:, 0] // 3_000, kept.fold_N)
    assert np.array_equal(kept.residuals_NT, again.residuals_NT)
    assert not np.array_equal(kept.residuals_NT, other.residuals_NT)
    assert np.bincount(kept.fold_N).min() > 550


def frame(rows: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(2)
    table = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    table["y"] = 1e9 + table["a"] + random.normal(size=rows)
    table["z"] = np.exp(table["b"])
    return table


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "data": {"name": "table", "target": ["y", "z"], "val_fraction": 0.25},
        "model": {"hidden_units": 4, "depth": 1, "dropout": 0.0},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "verbosity": 0,
        **changes,
    }


def expected_residuals(path: Path) -> np.ndarray:
    """Of the model's own predictions of its validation rows, as its table has them."""
    from mlp_lightning.data.reading import Given
    from mlp_lightning.runs.build import build_data
    from mlp_lightning.tables.encoding import encode

    model, table = load_model(path), frame()
    parsed, _, source = parsed_with_rows(asked(), table)
    rows = table.iloc[build_data(parsed, Given(source)).row_numbers["val"]]
    raw_BF = encode(pa.Table.from_pandas(rows, preserve_index=False), model.columns, str)
    return np.abs(model.predict(raw_BF) - rows[["y", "z"]].to_numpy())


@pytest.mark.parametrize(
    ("changes", "used_for", "which"),
    [
        ({}, ("weights",), "best"),
        ({"report_weights": "last"}, (), "last"),
        ({"callbacks": {"early_stopping": {"patience": 2}}}, ("stopping", "weights"), "best"),
        ({"report_weights": "last", "scheduler": "plateau"}, ("learning_rate",), "last"),
        ({"report_weights": "last", "callbacks": {"early_stopping": {"monitor": "loss/train"}}}, (), "last"),
        ({"trainer": {"max_epochs": 3, "accelerator": "cpu", "engine": "autograd"}}, ("weights",), "best"),
    ],
)
def test_a_run_keeps_the_residuals_of_its_validation_rows(tmp_path, changes, used_for, which) -> None:
    """In units of the targets, of which one is so large that single precision would lose its residuals."""
    train(asked(**changes), tmp_path / "run", frame=frame())
    files = {one: tmp_path / "run" / "checkpoints" / f"{one}.ckpt" for one in ("best", "last")}
    kept = load_model(files[which]).calibration
    assert kept is not None
    assert kept.used_for == used_for
    np.testing.assert_allclose(kept.residuals_NT, expected_residuals(files[which]), rtol=2e-5, atol=1e-6)
    other = files["last" if which == "best" else "best"]
    assert load_model(other).calibration is None


def test_members_of_a_stack_keep_what_single_runs_keep(tmp_path) -> None:
    configs = [parsed_with_rows(asked(optimizer={"name": "SGD", "lr": lr}), frame())[0] for lr in (0.01, 0.1)]
    source = parsed_with_rows(asked(), frame())[2]
    folders = [tmp_path / "0", tmp_path / "1"]
    train_stack(configs, folders, source=source)
    for config, folder in zip(configs, folders, strict=True):
        train(config, tmp_path / f"alone-{folder.name}", frame=frame())
        alone = load_model(tmp_path / f"alone-{folder.name}" / "checkpoints" / "best.ckpt").calibration
        member = load_model(folder / "checkpoints" / "best.ckpt").calibration
        assert alone is not None
        assert member is not None
        np.testing.assert_allclose(member.residuals_NT, alone.residuals_NT, rtol=1e-4, atol=1e-5)
        assert member.used_for == alone.used_for == ("weights",)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"name": "table", "target": ["y", "z"], "val_fraction": 0.0}},
        {"data": {"name": "iris", "val_fraction": 0.2}},
    ],
)
def test_without_validation_rows_of_numbers_nothing_is_kept(tmp_path, changes) -> None:
    result = train(asked(**changes), tmp_path / "run", frame=frame() if changes["data"]["name"] == "table" else None)
    path = tmp_path / "run" / "checkpoints" / f"{result.weights}.ckpt"
    assert "calibration" not in read_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.update(residuals=kept["residuals"][:, :1]),
        lambda kept: kept.update(used_for=["anything"]),
        lambda kept: kept.update(used_for="weights"),
        lambda kept: kept.pop("folds"),
        lambda kept: kept.update(residuals=[1.0]),
    ],
)
def test_a_changed_checkpoint_is_refused(tmp_path, change: Callable[[dict[str, Any]], Any]) -> None:
    train(asked(), tmp_path / "run", frame=frame())
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = read_checkpoint(path)
    change(content["calibration"])
    write_checkpoint(path, content)
    with pytest.raises(CheckpointError, match=str(path)):
        load_model(path)


def test_a_run_that_continues_keeps_what_one_at_once_keeps(tmp_path) -> None:
    def of_steps(steps: int, **more: Any) -> dict[str, Any]:
        trainer = {"max_steps": steps, "accelerator": "cpu"}
        return asked(report_weights="last", scheduler="none", trainer=trainer, **more)

    train(of_steps(9), tmp_path / "whole", frame=frame())
    train(of_steps(4), tmp_path / "begun", frame=frame())
    begun = tmp_path / "begun" / "checkpoints" / "last.ckpt"
    assert load_model(begun).calibration is not None
    train(of_steps(9, ckpt_path=str(begun)), tmp_path / "continued", frame=frame())
    kept = [load_model(tmp_path / one / "checkpoints" / "last.ckpt").calibration for one in ("whole", "continued")]
    assert kept[0] is not None
    assert kept[1] is not None
    assert np.array_equal(kept[0].residuals_NT, kept[1].residuals_NT)
