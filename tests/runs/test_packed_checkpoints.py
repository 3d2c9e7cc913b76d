"""Checkpoints that are taken apart and put together again are the same bytes."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any

import pytest
import torch

from mlp_lightning.engines.generators import InitialGenerators, initial_generators
from mlp_lightning.runs import checkpoint_bytes as bytes_module
from mlp_lightning.runs.packed.checkpoints import put_together, stacked, take_apart


def content(seed: int, width: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.full((2,), 7.0, dtype=torch.float64)
    return {
        "epoch": seed,
        "state_dict": OrderedDict(
            common=shared,
            again=shared,
            weight=torch.randn(width, 2, generator=generator),
            count=torch.tensor(seed),
            nothing=torch.empty(0, 2),
            odd=torch.tensor([float("nan"), -0.0 if seed % 2 else 0.0]),
        ),
        "callbacks": {"RandomState": InitialGenerators(seed), "kept": {"score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"betas": (0.9, 0.99)}]}],
        "config": {"seed": seed, "name": "a" * (seed % 3)},
    }


def written(of_run: dict[str, Any]) -> bytes:
    plain = dict(initial_generators(of_run["callbacks"]["RandomState"].seed))
    file = io.BytesIO()
    torch.save({**of_run, "callbacks": {**of_run["callbacks"], "RandomState": plain}}, file)
    return file.getvalue()


def test_same_bytes() -> None:
    runs = [content(seed) for seed in range(5)]
    taken = [take_apart(one) for one in runs]
    assert len({one.shape for one in taken}) == 1
    names, kept = stacked(taken)
    of_generators = {f"callbacks.RandomState.{name}" for name in ("torch", "python.1", "numpy.0")}
    assert of_generators <= {*names}
    assert not of_generators & {*kept}
    assert {name: len(one) for name, one in kept.items() if len(one) == 1}.keys() >= {"state_dict.common"}
    assert kept["state_dict.odd"].shape == (5, 2)  # 0 and -0 are not the same
    for seed, run in enumerate(runs):
        own = {name: one[seed if len(one) > 1 else 0] for name, one in kept.items()}
        assert put_together(taken[seed].pickle, names, own, seed) == written(run)


def test_other_shapes_are_told_apart() -> None:
    assert take_apart(content(0, width=3)).shape != take_apart(content(0, width=4)).shape


def test_a_view_of_a_larger_tensor_is_kept_as_the_whole_file() -> None:
    run = content(1)
    run["state_dict"]["weight"] = torch.arange(10.0)[2:5]
    taken = take_apart(run)
    assert not taken.tensors
    assert put_together(taken.pickle, [], {}, 1) == written(run)


def test_another_version_of_torch_keeps_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_module.is_as_torch_writes.cache_clear()
    monkeypatch.setattr(bytes_module, "_MARKS", {**bytes_module._MARKS, ".format_version": b"2"})
    try:
        taken = take_apart(content(2))
        assert not taken.tensors
        assert put_together(taken.pickle, [], {}, 2) == written(content(2))
    finally:
        bytes_module.is_as_torch_writes.cache_clear()
