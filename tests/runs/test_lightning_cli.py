"""LightningCLI, which builds module, rows and Trainer from the arguments of their classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlp_lightning import IrisDataModule, MLPModule, XORDataModule
from mlp_lightning.errors import ConfigError

pytest.importorskip("jsonargparse")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning uses names that jsonargparse gives up
]


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests are not for LightningCLI, which warns of them."""
    monkeypatch.setattr(sys, "argv", ["cli.py"])


def cli(folder: Path, *arguments: str, data: type = IrisDataModule) -> Any:
    from lightning.pytorch.cli import LightningCLI

    settings = {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(folder), "name": "cli", "version": ""},
        },
    }
    return LightningCLI(MLPModule, data, args=list(arguments), trainer_defaults=settings, seed_everything_default=0)


MODEL = ["--model.in_features=4", "--model.out_features=3", "--model.task=multiclass"]


def test_iris_is_trained_tested_and_loaded_again(tmp_path: Path) -> None:
    of_trainer = ["--trainer.max_epochs=30", "--trainer.precision=32-true"]
    of_model = ["--model.optimizer.name=Adam", "--model.optimizer.lr=0.01", "--model.model.hidden_units=[16]"]
    of_rows = ["--data.batch_size=16", "--data.val_fraction=0.2", "--data.test_fraction=0.2", "--data.scaling=standard"]
    trained = cli(tmp_path, "fit", *MODEL, *of_model, *of_rows, *of_trainer)
    assert trained.trainer.global_step == 30 * 6
    assert trained.model.config.optimizer.name == "Adam"
    assert trained.model.config.model.layer_widths == [16]
    assert float(trained.trainer.callback_metrics["accuracy/val"]) >= 0.9
    kept = yaml.safe_load((tmp_path / "cli" / "config.yaml").read_text(encoding="utf-8"))
    assert kept["data"]["batch_size"] == 16
    assert "accuracy/train" in (tmp_path / "cli" / "metrics.csv").read_text(encoding="utf-8")
    (path,) = (tmp_path / "cli" / "checkpoints").glob("*.ckpt")
    again = MLPModule.load_from_checkpoint(path, weights_only=True)
    assert again.config == trained.model.config
    tested = cli(tmp_path / "test", "test", *MODEL, *of_model, *of_rows, f"--ckpt_path={path}", "--weights_only=true")
    assert float(tested.trainer.callback_metrics["accuracy/test"]) >= 0.9


def test_xor_of_the_command_line(tmp_path: Path) -> None:
    sizes = ["--model.in_features=2", "--model.out_features=1", "--model.task=binary"]
    trained = cli(tmp_path, "fit", *sizes, "--trainer.max_steps=3", "--trainer.limit_val_batches=0", data=XORDataModule)
    assert trained.trainer.global_step == 3


def test_what_the_trainer_cannot_have_is_refused_there_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MLPModule\(…, gradient_clip_val=1\.0\)"):
        cli(tmp_path, "fit", *MODEL, "--trainer.gradient_clip_val=1.0", "--trainer.max_steps=1")


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")
def test_a_schedule_that_is_never_stepped_is_refused(tmp_path: Path) -> None:
    of_lightning = ["--optimizer=SGD", "--optimizer.lr=0.1", "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.9"]
    with pytest.raises(ConfigError, match=r"lr_scheduler = 'ExponentialLR' is never stepped; give the module its own"):
        cli(tmp_path, "fit", *MODEL, *of_lightning, "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
