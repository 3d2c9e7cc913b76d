"""The example of docs/own_parts.md, from the command line, from Python and in a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml
from my_package.parts import GatedNet, SignDescent, StopBelow
from support.own_page import command, of_page
from support.own_parts import CALLBACK, NET, OPTIMIZER, config
from support.tolerances import assert_close, assert_same_state

from mlp_lightning import IrisDataModule, MLPModule, cross_validate, train
from mlp_lightning.config import parse_config
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.errors import CheckpointError, ConfigError, ExportError
from mlp_lightning.inference.evaluation.evaluate import evaluate
from mlp_lightning.inference.export.formats import export_model, load_exported
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.checkpoints import read_checkpoint
from mlp_lightning.runs.hyperparameters import hyperparameters
from mlp_lightning.runs.resume import find_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(), tmp_path_factory.mktemp("own") / "run").run_dir


def test_commands_of_the_page(tmp_path: Path) -> None:
    done = command("train.py", *of_page("A network"), "trainer.max_steps=20", "hydra.run.dir=net", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Training {NET}" in done.stdout
    assert "Engine: autograd" in done.stdout
    done = command("train.py", *of_page("An optimizer"), "trainer.max_steps=20", "hydra.run.dir=opt", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SignDescent, learning rate 0.01" in done.stdout
    done = command("train.py", *of_page("A callback"), "hydra.run.dir=callback", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "callback" / "stopped_below.txt").is_file()
    # What the page says of using the model afterwards.
    refused = command("evaluate.py", "ckpt_path=net", "split=train", folder=tmp_path)
    assert refused.returncode == 2
    assert f"model._target_ = '{NET}' is not imported" in refused.stderr
    rows = tmp_path / "rows.csv"
    names = [one.name for one in load_model(tmp_path / "opt" / "checkpoints" / "last.ckpt").columns]
    rows.write_text(",".join(names) + "\n5.1,3.5,1.4,0.2\n", encoding="utf-8")
    for script, arguments in {
        "evaluate.py": ["split=train"],
        "predict.py": ["data.path=rows.csv", "output=predicted.csv"],
        "export.py": ["format=torch"],
    }.items():
        done = command(script, "ckpt_path=net", *arguments, "allow_targets=[my_package]", folder=tmp_path)
        assert done.returncode == 0, done.stderr


def test_sweep_of_the_page(tmp_path: Path) -> None:
    done = command("train.py", *of_page("In a sweep"), "sweep.name=s", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = sorted((tmp_path / "lightning_logs" / "iris" / "s").glob("*/result.json"))
    found = [json.loads(one.read_text(encoding="utf-8")) for one in results]
    assert [one["engine"] for one in found] == ["autograd"] * 4
    assert len({one["config_hash"] for one in found}) == 4
    again = command("train.py", *of_page("In a sweep"), "sweep.name=s", "sweep.resume=true", folder=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    after = [json.loads(one.read_text(encoding="utf-8"))["started_at"] for one in results]
    assert after == [one["started_at"] for one in found]


def test_a_command_that_allows_nothing_imports_nothing(tmp_path: Path) -> None:
    arguments = [one for one in of_page("A network") if not one.startswith("allow_targets")]
    done = command("train.py", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "if you trust its code, add allow_targets=[my_package]" in done.stderr
    assert not list(tmp_path.iterdir())
    done = command("train.py", *of_page("A network"), "hydra.run.dir=run", folder=tmp_path, finds_package=False)
    assert done.returncode != 0
    assert "put the folder that it lies in on PYTHONPATH" in done.stderr


def test_what_a_run_leaves_says_what_it_was(run: Path) -> None:
    kept = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert kept["model"]["_target_"] == NET
    assert kept["model"]["width"] == 8
    assert kept["optimizer"] == {"_target_": OPTIMIZER, "lr": 0.01, "momentum": 0.9}
    assert "allow_targets" not in kept
    shown = hyperparameters(parse_config(config()))
    assert (shown["model._target_"], shown["model.width"], shown["optimizer._target_"]) == (NET, 8, OPTIMIZER)
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint["hyper_parameters"]["model"]["_target_"] == NET


def test_the_training_is_that_of_a_loop_by_hand(tmp_path: Path) -> None:
    """The network, the optimizer and the rows are those that were asked for."""
    asked = config(data={"name": "iris", "scaling": "standard"}, trainer={"max_steps": 5, "accelerator": "cpu"})
    result = train(asked, tmp_path / "run")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = GatedNet(4, 3, width=8)
    optimizer = SignDescent(net.parameters(), lr=0.01, momentum=0.9)
    from mlp_lightning.runs.build import build_data

    rows = build_data(parse_config(asked)).splits["train"]
    features_BF = (rows.features_BF - rows.features_BF.mean(0)) / rows.features_BF.std(0, correction=0)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(features_BF), rows.targets).backward()
        optimizer.step()
    for one, other in zip(result.module.mlp.network.parameters(), net.parameters(), strict=True):
        assert_close(one.detach(), other.detach())


def test_continues_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    part = train(config(trainer={"max_steps": 13, "accelerator": "cpu"}), tmp_path / "part").run_dir
    path = part / "checkpoints" / "last.ckpt"
    found = find_checkpoint(parse_config(config(ckpt_path=str(path))), tmp_path)
    assert found is not None
    assert found.path == path
    continued = train(config(ckpt_path=str(path)), tmp_path / "continued")
    whole = load_model(run / "checkpoints" / "last.ckpt", allow_targets=["my_package"])
    assert_same_state(continued.module.state_dict(), whole.module.state_dict())
    with pytest.raises(CheckpointError, match=r"model\.width: 8 in the checkpoint, 9 now"):
        train(config(ckpt_path=str(path), model={"_target_": NET, "width": 9}), tmp_path / "other")


@pytest.mark.parametrize("allowed", [[], ["my_packag"], ["my_package.other"]])
def test_no_door_imports_what_the_caller_does_not_allow(run: Path, tmp_path: Path, allowed: list[str]) -> None:
    path, rows = run / "checkpoints" / "last.ckpt", run.parent / "rows.csv"
    rows.write_text("a,b\n1,2\n", encoding="utf-8")
    doors = [
        lambda: load_model(path, allow_targets=allowed),
        lambda: evaluate(path, tmp_path / "metrics", split="train", allow_targets=allowed),
        lambda: predict(path, str(rows), tmp_path / "out.csv", allow_targets=allowed),
        lambda: export_model(path, "safetensors", tmp_path / "model", allow_targets=allowed),
        lambda: train({**config(), "allow_targets": allowed}, tmp_path / "run"),
        lambda: train(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), tmp_path / "run"),
        lambda: MLPModule.load_from_checkpoint(path, weights_only=True),
    ]
    for door in doors:
        with pytest.raises(ConfigError, match=rf"model\._target_ = '{NET}' is not imported"):
            door()
    assert not list(tmp_path.iterdir())


def test_what_a_checkpoint_says_of_the_allowlist_does_not_count(run: Path, tmp_path: Path) -> None:
    """A file of a stranger that allows itself everything."""
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    content["config"]["allow_targets"] = ["my_package", "os"]
    path = tmp_path / "evil.ckpt"
    for further in ({}, {"allow_targets": ["my_package", "os"]}, {"network": NET}):
        hyperparameters_ = {**content["hyper_parameters"], **further}
        torch.save({**content, "hyper_parameters": hyperparameters_}, path)
        with pytest.raises((ConfigError, CheckpointError)):
            load_model(path)
        with pytest.raises((ConfigError, CheckpointError)):
            MLPModule.load_from_checkpoint(path, weights_only=True)
    target = {**content["hyper_parameters"]["model"], "_target_": "os.system", "options": {"command": "touch here"}}
    torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], "model": target}}, path)
    with pytest.raises(ConfigError, match=r"'os.system' is not imported"):
        load_model(path, allow_targets=["my_package"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": {"_target_": "os.system", "_args_": ["id"]}}, r"model\.width\._target_ = .* is not an argument"),
        ({"_partial_": True}, r"model\._partial_ = True is not an argument"),
        ({"in_features": 3}, r"model\.in_features = 3 follows from the rows"),
    ],
)
def test_arguments_in_a_checkpoint_are_checked_before_anything_is_made(
    run: Path, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    """A class that builds what it is given must not get what no configuration may have."""
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    model = {**content["hyper_parameters"]["model"], "options": given}
    path = tmp_path / "evil.ckpt"
    torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], "model": model}}, path)
    with pytest.raises(ConfigError, match=message):
        load_model(path, allow_targets=["my_package"])


def test_options_of_the_mlp_are_arguments_of_an_own_network(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'residual'"):
        train(config(model={"_target_": NET, "residual": False}), tmp_path / "run")


def test_composed_configuration_of_an_own_network(tmp_path: Path) -> None:
    done = command("train.py", "--cfg", "job", *of_page("A network"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "width: 8" in done.stdout


def test_exports(run: Path, tmp_path: Path) -> None:
    path, allowed = run / "checkpoints" / "last.ckpt", ["my_package"]
    kinds = ["safetensors", "torch"]
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        pass
    else:
        kinds.append("onnx")
    for kind in kinds:
        assert export_model(path, kind, tmp_path / kind, allowed).largest_difference < 1e-5
    with pytest.raises(ConfigError, match="is not imported"):
        load_exported(tmp_path / "safetensors")
    model = load_exported(tmp_path / "safetensors", allow_targets=allowed)
    assert_same_state(model.module.state_dict(), load_model(path, allow_targets=allowed).module.state_dict())


def test_network_that_torch_cannot_export(tmp_path: Path) -> None:
    own = {"model": {"_target_": "support.own_networks.Branching"}, "optimizer": {"lr": 0.1}}
    run_dir = train(config(**own, allow_targets=["support"]), tmp_path / "run").run_dir
    path = run_dir / "checkpoints" / "last.ckpt"
    with pytest.raises(ExportError, match=r"cannot be exported with format=torch .*format=safetensors"):
        export_model(path, "torch", tmp_path / "model", ["support"])
    assert not (tmp_path / "model.pt2").exists()
    export_model(path, "safetensors", tmp_path / "model", ["support"])


def test_from_python_with_classes(run: Path) -> None:
    """Who has the class needs no allowlist."""
    path = run / "checkpoints" / "last.ckpt"
    module = MLPModule.load_from_checkpoint(path, weights_only=True, network=GatedNet)
    assert isinstance(module.mlp.network, GatedNet)


def test_trainer_of_the_user(tmp_path: Path) -> None:
    """MLPModule takes the classes themselves; one that is missing is an error, and one that is not asked for."""
    asked: dict[str, Any] = {
        "model": {"_target_": NET, "options": {"width": 5}},
        "optimizer": {"_target_": OPTIMIZER, "name": "SignDescent", "lr": 0.01},
    }
    module = MLPModule(4, 3, "multiclass", **asked, network=GatedNet, optimizer_class=SignDescent)
    before = [one.detach().clone() for one in module.parameters()]

    def fit(trained: MLPModule) -> None:
        quiet = {"limit_val_batches": 0, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_steps=3, accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path, **quiet
        )
        trainer.fit(trained, datamodule=IrisDataModule())

    fit(module)
    for one, other in zip(module.parameters(), before, strict=True):
        assert float((one - other).detach().abs().max()) <= 0.03 + 1e-6
        assert not torch.equal(one.detach(), other)
    with pytest.raises(ConfigError, match=r"optimizer\._target_ = .* is not imported automatically"):
        fit(MLPModule(4, 3, "multiclass", **asked, network=GatedNet))
    with pytest.raises(ConfigError, match=r"model\._target_ = .* is not imported automatically"):
        MLPModule(4, 3, "multiclass", **asked)
    with pytest.raises(ConfigError, match=r"network = .* has no effect: model has no _target_"):
        MLPModule(4, 3, "multiclass", network=GatedNet)
    with pytest.raises(ConfigError, match=r"optimizer_class = .* has no effect: optimizer has no _target_"):
        fit(MLPModule(4, 3, "multiclass", optimizer_class=SignDescent))


def test_folds(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    lines = [f"{one / 7:.3f},{one % 5},{'ab'[one % 2]}" for one in range(60)]
    file.write_text("\n".join(["x,z,y", *lines, ""]), encoding="utf-8")
    data = {"name": "table", "path": str(file), "target": "y", "cv": {"folds": 2}}
    result = cross_validate(config(data=data, trainer={"max_steps": 5, "accelerator": "cpu"}), tmp_path / "cv")
    assert result.status == "finished"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, f"model._target_ = {NET} is not stacked"),
        ({"model": {}}, f"optimizer._target_ = {OPTIMIZER} is not stacked"),
        (
            {"model": {}, "optimizer": {}, "callbacks": {"extra": [{"_target_": CALLBACK, "threshold": 3}]}},
            f"callbacks.extra ({CALLBACK}) is for a run alone",
        ),
    ],
)
def test_stacked_engine_refuses(changes: dict[str, Any], refusal: str, tmp_path: Path) -> None:
    assert stacked_refuses(parse_config(config(**changes))) == refusal
    with pytest.raises(ValueError, match="cannot be a member of a stack"):
        train_stack([parse_config(config(**changes))] * 2, [tmp_path / "0", tmp_path / "1"])
    with pytest.raises(ConfigError, match="'stacked' cannot train this run"):
        train(config(**changes, trainer={"max_steps": 2, "engine": "stacked"}), tmp_path / "2")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"_target_": CALLBACK}, r"callbacks\.extra\.0 = .*cannot be made with {} .*threshold"),
        ({"_target_": NET}, r"must be a subclass of lightning\.pytorch"),
    ],
)
def test_callbacks_that_cannot_be(extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config(model={}, optimizer={}, callbacks={"extra": [extra]}), tmp_path / "run")


def test_a_network_is_no_optimizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\._target_ = .* must be a subclass of torch\.optim"):
        train(config(optimizer={"_target_": NET, "lr": 0.1}), tmp_path / "0")
    with pytest.raises(ConfigError, match=r"was refused by SignDescent: .*beta"):
        train(config(optimizer={"_target_": OPTIMIZER, "lr": 0.1, "beta": 1}), tmp_path / "1")


def test_callback_from_python_is_the_object(tmp_path: Path) -> None:
    result = train(config(model={}, optimizer={"lr": 0.01}), tmp_path / "run", callbacks=[StopBelow(100.0)])
    assert (result.run_dir / "stopped_below.txt").is_file()


def test_parts_as_objects_give_the_bits_of_their_paths(run: Path, tmp_path: Path) -> None:
    objects = {"_target_": GatedNet, "width": 8}, {"_target_": SignDescent, "lr": 0.01, "momentum": 0.9}
    asked = {**config(), "model": objects[0], "optimizer": objects[1]}
    del asked["allow_targets"]
    result = train(asked, tmp_path / "run")
    expected = load_model(run / "checkpoints" / "last.ckpt", allow_targets=["my_package"])
    assert_same_state(result.module.state_dict(), expected.module.state_dict())
    for name in ("config.yaml",):
        assert (result.run_dir / name).read_text(encoding="utf-8") == (run / name).read_text(encoding="utf-8")
    assert asked["model"]["_target_"] is GatedNet  # what was given is as it was
