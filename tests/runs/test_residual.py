"""``model.residual=true`` from the command to the exported model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.commands import run_script
from support.tolerances import assert_same_state

from mlp_lightning import train
from mlp_lightning.config.parsing import parse_config
from mlp_lightning.engines.support import compiled_refuses
from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.export.formats import export_model, load_exported
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.runs.checkpoints import read_checkpoint

RESNET = ["model=resnet", "model.hidden_units=8", "model.depth=2", "trainer=cpu", "logger=none"]
IRIS = ["data=iris", *RESNET, "trainer.max_steps=20", "data.batch_size=30"]


def test_refused_by_the_compiled_engine(compose_config) -> None:
    plain = compose_config(*IRIS, "model.norm=none", "model.dropout=0")
    assert compiled_refuses(plain) == "model.residual = True is not in the compiled kernel"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden_units=[8,9]"], r"model.hidden_units = \[8, 9\] contradicts model.residual = True.*\[8, 8\]"),
        (["model=linear", "model.residual=true"], "model.residual = True has no effect without hidden layers"),
        (["model.residual=3"], "model.residual = 3 must be true or false"),
    ],
)
def test_faults(compose_config, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_config("data=iris", *([] if "=linear" in overrides[0] else ["model=resnet"]), *overrides)


def test_from_the_command_to_the_exports(tmp_path: Path) -> None:
    done = run_script("train.py", *IRIS, "hydra.run.dir=run", cwd=tmp_path)
    assert "residual relu" in done.stdout
    assert "Engine: explicit" in done.stdout
    run = tmp_path / "run"
    model = load_model(run / "checkpoints" / "last.ckpt")
    assert model.config.model.residual
    rows = tmp_path / "rows.csv"
    names = [column.name for column in model.columns]
    rows.write_text(",".join(names) + "\n" + "5.1,3.5,1.4,0.2\n6.2,2.9,4.3,1.3\n", encoding="utf-8")
    run_script("evaluate.py", "ckpt_path=run", "split=train", "output=metrics", cwd=tmp_path)
    assert predict(run / "checkpoints" / "last.ckpt", str(rows), str(tmp_path / "predicted.csv")).rows == 2
    for kind in ("safetensors", "torch"):
        report = export_model(run / "checkpoints" / "last.ckpt", kind, tmp_path / kind)
        assert report.largest_difference < 1e-6
    again = load_exported(tmp_path / "safetensors.safetensors")
    assert_same_state(again.module.state_dict(), model.module.state_dict())


def test_onnx(tmp_path: Path, compose_config) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    result = train(compose_config(*IRIS), tmp_path / "run")
    report = export_model(result.run_dir / "checkpoints" / "last.ckpt", "onnx", tmp_path / "model")
    assert report.largest_difference < 1e-5


def test_a_run_continues_to_the_same_bits(tmp_path: Path, compose_config) -> None:
    whole = train(compose_config(*IRIS), tmp_path / "whole")
    train(compose_config(*IRIS, "trainer.max_steps=11"), tmp_path / "part")
    path = tmp_path / "part" / "checkpoints" / "last.ckpt"
    continued = train(compose_config(*IRIS, f"ckpt_path={path}"), tmp_path / "continued")
    assert_same_state(continued.module.state_dict(), whole.module.state_dict())


def test_checkpoint_from_before_the_option(tmp_path: Path, compose_config) -> None:
    """What an option that was not there yet would have been is its default."""
    plain = ["data=iris", "trainer=cpu", "logger=none"]
    part = train(compose_config(*plain, "trainer.max_steps=3"), tmp_path / "part").run_dir
    path = part / "checkpoints" / "last.ckpt"
    content = read_checkpoint(path)
    del content["config"]["model"]["residual"], content["hyper_parameters"]["model"]["residual"]
    torch.save(content, path)
    assert train(compose_config(*plain, "trainer.max_steps=5", f"ckpt_path={path}"), tmp_path / "on").steps == 5
    assert not load_model(path).config.model.residual


def test_sweep_trains_them_together(tmp_path: Path) -> None:
    run_script("train.py", "-m", *IRIS, "seed=0,1", "sweep.name=s", cwd=tmp_path)
    for number in (0, 1):
        folder = tmp_path / "lightning_logs" / "iris" / "s" / str(number)
        assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["engine"] == "stacked"


def test_off_by_default() -> None:
    assert parse_config({"trainer": {"max_steps": 1}}).model.residual is False
