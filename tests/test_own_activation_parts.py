"""Activations, optimizers and other parts of the user, as import paths and as objects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from my_package.parts import GatedNet, Snake
from support.commands import environment
from support.own_page import PAGE, command, of_page
from support.own_parts import config
from support.tolerances import assert_close, assert_same_state

from mlp_lightning import MLPModule, train
from mlp_lightning.config import parse_config
from mlp_lightning.errors import ConfigError
from mlp_lightning.inference.export.formats import export_model, load_exported

SNAKE = "my_package.parts.Snake"


def with_snake(**changes: Any) -> dict[str, Any]:
    return config(
        **{
            "model": {"activation": SNAKE, "hidden_units": [6, 5]},
            "optimizer": {"name": "SGD", "lr": 0.1},
            **changes,
        }
    )


def test_activation_of_the_page(tmp_path: Path) -> None:
    done = command("train.py", *of_page("An activation"), "hydra.run.dir=run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Engine: autograd" in done.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["metrics"]["test"]["accuracy"] >= 0.99
    refused = command("evaluate.py", "ckpt_path=run", "split=test", folder=tmp_path)
    assert refused.returncode == 2
    assert f"model.activation = '{SNAKE}' is not imported" in refused.stderr
    done = command("evaluate.py", "ckpt_path=run", "split=test", "allow_targets=[my_package]", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_sweep_of_activations_of_the_page(tmp_path: Path) -> None:
    part = PAGE[PAGE.index("An activation is swept") :]
    import shlex

    words = shlex.split(part[part.index("python scripts/") :].split("\n\n")[0].replace("\\\n", " "))[2:]
    done = command("train.py", *words, "sweep.name=s", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = (tmp_path / "lightning_logs" / "moons" / "s").glob("*/result.json")
    engines = sorted(json.loads(one.read_text(encoding="utf-8"))["engine"] for one in results)
    assert engines == ["autograd", "explicit", "explicit"]  # runs with other activations share no stack


def test_python_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    part = PAGE[PAGE.index("## From Python") :]
    block = part[part.index("    from mlp_lightning") : part.index("\n\n`model._target_`")]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(re.sub("^    ", "", block, flags=re.MULTILINE), names)
    assert names["result"].metrics["test"]["accuracy"] >= 0.9
    assert names["snake"].metrics["test"]["accuracy"] >= 0.99
    assert names["tides"].metrics["test"]["mae"] < 0.1


@pytest.mark.parametrize("residual", [False, True])
def test_an_own_activation_trains_as_a_loop_by_hand(tmp_path: Path, residual: bool) -> None:
    asked = with_snake(
        data={"name": "iris"},
        trainer={"max_steps": 4, "accelerator": "cpu"},
        model={"activation": SNAKE, "hidden_units": [6, 6], "residual": residual},
    )
    result = train(asked, tmp_path / "run")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second, third = torch.nn.Linear(4, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        further = [torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)] if residual else []
        output = torch.nn.Linear(6, 3)
        if not residual:
            torch.manual_seed(0)
            first, second, output = torch.nn.Linear(4, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)

    def snake(x: torch.Tensor) -> torch.Tensor:
        return x + torch.sin(x) ** 2

    def logits(x: torch.Tensor) -> torch.Tensor:
        if not residual:
            return output(snake(second(snake(first(x)))))
        x = first(x)
        for inner, outer in ((second, third), (further[0], further[1])):
            x = x + outer(snake(inner(x)))
        return output(snake(x))

    layers = [first, second, *([third, *further] if residual else []), output]
    optimizer = torch.optim.SGD([p for one in layers for p in one.parameters()], lr=0.1)
    from mlp_lightning.runs.build import build_data

    rows = build_data(parse_config(asked)).splits["train"]
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(rows.features_BF), rows.targets).backward()
        optimizer.step()
    trained = [one for one in result.module.mlp.modules() if isinstance(one, torch.nn.Linear)]
    for one, other in zip(trained, layers, strict=True):
        assert_close(one.weight.detach(), other.weight.detach())


def test_own_activation_is_exported_and_continued(tmp_path: Path) -> None:
    whole = train(with_snake(), tmp_path / "run")
    path = whole.run_dir / "checkpoints" / "last.ckpt"
    for kind in ("safetensors", "torch"):
        assert export_model(path, kind, tmp_path / kind, ["my_package"]).largest_difference < 1e-5
    with pytest.raises(ConfigError, match=r"model\.activation = .* is not imported"):
        load_exported(tmp_path / "safetensors")
    assert load_exported(tmp_path / "safetensors", allow_targets=["my_package"])
    part = train(with_snake(trainer={"max_steps": 13, "accelerator": "cpu"}), tmp_path / "part").run_dir
    continued = train(with_snake(ckpt_path=str(part / "checkpoints" / "last.ckpt")), tmp_path / "continued")
    assert_same_state(continued.module.state_dict(), whole.module.state_dict())


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("my_package.parts.GatedNet", r"cannot be made and applied .*missing 2 required"),
        ("my_package.parts.SignDescent", r"must be a subclass of torch\.nn"),
        ("support.own_networks.Halving", r"returned \(2, 3\) for rows of shape \(2, 6\)"),
        ("torch.nn.Mish", r"is not imported: its module is not in allow_targets"),
        ("snake", r"must be one of identity, .* or the import path of a torch\.nn\.Module"),
    ],
)
def test_activation_that_is_none_is_refused(tmp_path: Path, activation: str, message: str) -> None:
    asked = with_snake(model={"activation": activation, "hidden_units": 6}, allow_targets=["my_package", "support"])
    with pytest.raises(ConfigError, match=message):
        train(asked, tmp_path / "run")


def test_what_makes_a_part_need_not_be_a_class(tmp_path: Path) -> None:
    def halves(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr / 2)

    changes = {"model": {"activation": lambda: Snake(), "hidden_units": [6, 5]}, "allow_targets": []}
    given = train(with_snake(**changes, optimizer={"_target_": halves, "lr": 0.2}), tmp_path / "a")
    expected = train(with_snake(optimizer={"name": "SGD", "lr": 0.1}), tmp_path / "b")
    assert_same_state(given.module.state_dict(), expected.module.state_dict())
    kept = yaml.safe_load((given.run_dir / "config.yaml").read_text(encoding="utf-8"))
    assert kept["optimizer"]["_target_"].endswith("halves")
    with pytest.raises(ConfigError, match=r"in_features = 3 follows from the rows"):
        train({**config(), "model": {"_target_": GatedNet, "in_features": 3}}, tmp_path / "c")


def test_module_with_an_own_activation(tmp_path: Path) -> None:
    module = MLPModule(4, 3, "multiclass", model={"activation": SNAKE}, activation_class=Snake)
    assert any(isinstance(one, Snake) for one in module.modules())
    with pytest.raises(ConfigError, match=r"model\.activation = .* is not imported automatically"):
        MLPModule(4, 3, "multiclass", model={"activation": SNAKE})
    with pytest.raises(ConfigError, match=r"activation_class = .* has no effect"):
        MLPModule(4, 3, "multiclass", activation_class=Snake)


def test_class_of_the_script_that_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom mlp_lightning import train\nfrom mlp_lightning.inference.loading import load_model\n"
        "class Cube(torch.nn.Module):\n    def forward(self, x):\n        return x**3\n"
        "if __name__ == '__main__':\n"
        "    train({'model': {'activation': Cube}, 'trainer': {'max_steps': 2}, 'verbosity': 0}, 'run')\n"
        "    print(load_model('run/checkpoints/last.ckpt', allow_targets=['__main__']).config.model.activation)\n",
        encoding="utf-8",
    )
    words = [sys.executable, str(script)]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "__main__.Cube"
