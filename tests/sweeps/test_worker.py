"""A part of a sweep that cannot be trained at all: every run of it says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mlp_lightning.runs
from mlp_lightning.sweeps.worker import train_part


def test_stack_that_raises_fails_its_runs(compose_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_stack(*_: object) -> None:
        raise ZeroDivisionError("by our own fault")

    monkeypatch.setattr(mlp_lightning.runs, "train_stack", no_stack)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    configs = [compose_config("data=xor", f"seed={seed}") for seed in (0, 1)]
    folders = [tmp_path / "0", tmp_path / "1"]
    outcomes = train_part(configs, folders)
    assert [one.status for one in outcomes] == ["failed", "failed"]
    for folder, outcome in zip(folders, outcomes, strict=True):
        assert outcome.error.startswith("ZeroDivisionError: by our own fault")
        assert json.loads((folder / "result.json").read_text())["status"] == "failed"
        named = re.search(r"The whole story is in (.*); HYDRA_FULL_ERROR=1", outcome.error)
        assert named is not None
        assert "Traceback" in Path(named[1]).read_text(encoding="utf-8")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError):
        train_part(configs, [tmp_path / "2", tmp_path / "3"])
