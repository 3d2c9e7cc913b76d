"""Weights that are kept while a run trains are those of the runs that end there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlp_lightning import train
from mlp_lightning.config import parse_config
from mlp_lightning.errors import CheckpointError, ConfigError
from mlp_lightning.runs import snapshots, train_stack
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.milestones import Milestones


def config_of(steps: int, count: int | None = 9, **sections: Any) -> dict[str, Any]:
    trainer = {"max_steps": steps, "accelerator": "cpu", **sections.pop("trainer", {})}
    return {
        "data": "iris",
        "model": {"hidden_units": 5},
        "trainer": trainer,
        "callbacks": {"snapshots": count},
        "logger": {"tensorboard": False, "csv": False, "graph": False},
        "verbosity": 0,
        **sections,
    }


def last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def network(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: one for name, one in checkpoint["state_dict"].items() if name.startswith("mlp.")}


@pytest.mark.parametrize("engine", ["autograd", "explicit", "stacked", "compiled"])
def test_kept_weights_are_those_of_shorter_runs(engine: str, tmp_path: Path) -> None:
    train(config_of(40, trainer={"engine": engine}), tmp_path / "run")
    kept = last(tmp_path / "run")["snapshots"]
    steps = kept["steps"]
    assert steps == [0, 1, 2, 3, 5, 8, 14, 24, 40][: len(steps)] or (steps[0], steps[-1]) == (0, 40)
    assert steps == sorted(set(steps))
    for step in (steps[2], steps[-2], 40):
        train(config_of(step, None, trainer={"engine": engine}), tmp_path / str(step))
        for name, one in network(last(tmp_path / str(step))).items():
            assert torch.equal(kept["weights"][name][steps.index(step)], one), (step, name)
    assert "snapshots" not in last(tmp_path / "40")
    assert "snapshots" not in read_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")


def test_they_change_nothing(tmp_path: Path) -> None:
    for name, count in (("with", 12), ("without", None)):
        train(config_of(60, count, model={"hidden_units": 5, "norm": "batch"}), tmp_path / name)
    one, other = (network(last(tmp_path / name)) for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("engine", ["autograd", "compiled"])
def test_a_run_that_continues_has_them_all(engine: str, tmp_path: Path) -> None:
    whole = config_of(50, trainer={"engine": engine})
    train(whole, tmp_path / "whole")
    train(config_of(20, trainer={"engine": engine}), tmp_path / "first")
    checkpoint = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    train({**whole, "ckpt_path": checkpoint}, tmp_path / "second")
    found, first, expected = (last(tmp_path / name)["snapshots"] for name in ("second", "first", "whole"))
    assert found["steps"] == sorted({*first["steps"], *(one for one in expected["steps"] if one > 20)})
    for step in expected["steps"]:
        if step in found["steps"]:
            for name, of_steps in expected["weights"].items():
                place = found["steps"].index(step)
                assert torch.equal(found["weights"][name][place], of_steps[expected["steps"].index(step)])


def test_members_of_a_stack_have_their_own(tmp_path: Path) -> None:
    plains = [config_of(30, 6, model={"hidden_units": units, "norm": "batch"}, seed=units) for units in (3, 5, 4)]
    configs = [parse_config(one) for one in plains]
    train_stack(configs, [tmp_path / str(number) for number in range(3)])
    for number, one in enumerate(plains):
        kept = last(tmp_path / str(number))["snapshots"]
        step = kept["steps"][3]
        assert kept["steps"][-1] == 30
        alone = {**one, "callbacks": {}, "trainer": {**one["trainer"], "max_steps": step}}
        train(alone, tmp_path / f"alone-{number}")
        for name, weights in network(last(tmp_path / f"alone-{number}")).items():
            close = torch.allclose(kept["weights"][name][3].float(), weights.float(), atol=1e-5)
            assert kept["weights"][name].shape[1:] == weights.shape
            assert close, name


def test_steps() -> None:
    milestones = Milestones(100, 1000, None, None, snapshots=(0, 7, 100))
    assert [milestones.next_after(step) for step in (0, 6, 7, 99)] == [7, 7, 100, 100]
    assert [step for step in range(101) if milestones.is_snapshot(step)] == [0, 7, 100]


def test_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"up to 100,000 parameters, and this one has 1,\d+,\d+"):
        train(config_of(5, model={"hidden_units": [1000, 1000]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_many_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_BYTES", 10_000)
    configs = [parse_config(config_of(5, 20, seed=seed)) for seed in range(2)]
    with pytest.raises(ConfigError, match="for 2 networks together, and the limit is"):
        train_stack(configs, [tmp_path / str(number) for number in range(2)])
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    train(config_of(5), tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "snapshots": {"steps": "all", "weights": {}}}, path)
    with pytest.raises(CheckpointError, match="snapshots"):
        read_checkpoint(path)
