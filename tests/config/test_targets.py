"""What may be imported: decided by name, before anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, environment

from mlp_lightning.config import parse_complete, parse_config
from mlp_lightning.config.targets import import_target, installed_targets, target_fault
from mlp_lightning.errors import ConfigError

LENGTH = {"trainer": {"max_steps": 1}}
MARKER = "imported.txt"
# Leaves a file behind when it is imported.
TRACE = f"from pathlib import Path\nPath({MARKER!r}).touch()\n"


@pytest.mark.parametrize(
    ("path", "allowed", "is_allowed"),
    [
        ("my_package.Part", ["my_package"], True),
        ("my_package.deep.er.Part", ["my_package"], True),
        ("my_package.deep.Part", ["my_package.deep"], True),
        ("my_package.Part", ["other", "my_package"], True),
        ("my_package_evil.Part", ["my_package"], False),
        ("my_packag.Part", ["my_package"], False),
        ("my_package.Part", ["my_package.deep"], False),
        ("my_package.deeper.Part", ["my_package.deep"], False),
        ("my_package.Part", ["my_package.Part"], False),  # a class is no module
        ("evil.my_package.Part", ["my_package"], False),
        ("os.system", [], False),
        ("os.system", ["my_package"], False),
        ("builtins.exec", ["my_package"], False),
        ("torch.optim.SGD", ["my_package"], False),
        ("lightning.pytorch.callbacks.ModelCheckpoint", ["my_package"], False),
        ("hydra.utils.call", ["my_package"], False),
        ("My_Package.Part", ["my_package"], False),
        ("my_package", ["my_package"], False),
        ("my_package.", ["my_package"], False),
        ("my_package..Part", ["my_package"], False),
        (".my_package.Part", ["my_package"], False),
        ("my_package.Part()", ["my_package"], False),
        ("my_package/Part", ["my_package"], False),
        ("my_package. Part", ["my_package"], False),
        ("", ["my_package"], False),
        (None, ["my_package"], False),
        (["my_package", "Part"], ["my_package"], False),
    ],
)
def test_whole_parts_of_a_name_count(path: Any, allowed: list[str], is_allowed: bool) -> None:
    fault = target_fault("model._target_", path, allowed)
    assert (fault is None) == is_allowed
    if fault is not None:
        assert repr(path) in str(fault)


def faults(**sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config({**LENGTH, **sections})
    return [str(one) for one in caught.value.faults]


def test_each_part_is_refused_by_name_with_what_to_type() -> None:
    found = faults(
        allow_targets=["mine"],
        model={"_target_": "other.Net"},
        optimizer={"_target_": "os.system", "lr": 0.1},
        callbacks={"extra": [{"_target_": "mine.Callback"}, {"_target_": "builtins.exec"}]},
    )
    rule = "is not imported: its module is not in allow_targets = ['mine']; if you trust its code, add allow_targets="
    assert found == [
        f"model._target_ = 'other.Net' {rule}[other]",
        f"optimizer._target_ = 'os.system' {rule}[os]",
        f"callbacks.extra.1._target_ = 'builtins.exec' {rule}[builtins]",
    ]


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ({"_args_": ["rm"]}, "_args_"),
        ({"_partial_": True}, "_partial_"),
        ({"_recursive_": True}, "_recursive_"),
        ({"inner": {"_target_": "mine.Other"}}, "inner._target_"),
        ({"inner": [1, [{"_target_": "os.system"}]]}, "inner.1.0._target_"),
    ],
)
@pytest.mark.parametrize("section", ["model", "optimizer", "callbacks"])
def test_instructions_inside_of_arguments_are_refused(section: str, argument: dict[str, Any], key: str) -> None:
    part: Any = {"_target_": "mine.Part", **argument}
    prefix = section
    if section == "callbacks":
        part, prefix = {"extra": [part]}, "callbacks.extra.0"
    (found,) = faults(allow_targets=["mine"], **{section: part})
    assert found.startswith(f"{prefix}.{key} = ")
    assert "keys that begin with _ are instructions" in found


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"allow_targets": ["*"]}, "allow_targets = ['*'] must have only values that are names of packages"),
        ({"allow_targets": [""]}, "allow_targets = [''] must have only values that are names of packages"),
        ({"allow_targets": "mine"}, "allow_targets = 'mine' must be a list of texts"),
        ({"model": {"_target_": None}}, "model._target_ = None is missing"),
        ({"model": {"_targt_": "mine.Net"}}, "did you mean"),
        ({"optimizer": {"_target_": "mine.Opt", "name": "Adam"}}, "optimizer.name = 'Adam' contradicts"),
        ({"optimizer": {"_target_": "mine.Opt", "lr": -1}}, "optimizer.lr = -1 must be at least 0"),
        ({"model": {"_target_": "mine.Net", "numeric_embedding": "x"}}, "must be one of none, periodic"),
        ({"model": {"_target_": "mine.Net", "width": object()}}, "must be plain data"),
        ({"callbacks": {"extra": {"_target_": "mine.C"}}}, "must be a list of sections with a _target_"),
        ({"callbacks": {"extra": [{"threshold": 3}]}}, "must be a list of sections with a _target_"),
    ],
)
def test_faults(sections: dict[str, Any], message: str) -> None:
    assert any(message in one for one in faults(**{"allow_targets": ["mine"], **sections}))


def test_options_of_the_mlp_are_not_passed_on(compose_config) -> None:
    with pytest.raises(ConfigError, match=r"would get every option of the MLP as an argument; choose model=own"):
        compose_config("+model._target_=mine.Net", "allow_targets=[mine]")


def test_what_was_allowed_is_not_kept() -> None:
    """A run's config.yaml allows nothing: whoever gives it to a training has to."""
    config = parse_config({**LENGTH, "allow_targets": ["mine"], "model": {"_target_": "mine.Net", "width": 3}})
    plain = config.to_dict()
    assert "allow_targets" not in plain
    assert (plain["model"]["_target_"], plain["model"]["width"]) == ("mine.Net", 3)
    with pytest.raises(ConfigError, match="is not imported"):
        parse_config(plain)
    assert parse_complete(plain, is_stored=True).model == config.model
    assert parse_config({**plain, "allow_targets": ["mine"]}) == config


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages: one that leaves a trace when it is imported, and one that passes on what is not its own."""
    for name, content in {
        "traced_package": TRACE,
        "passing_package": "import os, collections\nfrom os import system\nfrom collections import OrderedDict\n"
        "class Mine(OrderedDict): pass\nMINE = Mine()\n",
        "broken_package": "raise RuntimeError('no')\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_nothing_is_imported_that_is_not_allowed(package: Path) -> None:
    for allowed in ([], ["traced"], ["traced_package.deep"], ["TRACED_PACKAGE"]):
        with pytest.raises(ConfigError, match="is not imported"):
            import_target("model._target_", "traced_package.Net", allowed, dict)
    assert not (package / MARKER).exists()
    with pytest.raises(ConfigError, match="traced_package has no Net"):
        import_target("model._target_", "traced_package.Net", ["traced_package"], dict)
    assert (package / MARKER).exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("passing_package.os.system", r"cannot be imported \(ModuleNotFoundError"),
        ("passing_package.system", "must be a subclass of builtins.dict"),
        ("passing_package.os", "must be a subclass of builtins.dict"),
        ("passing_package.MINE", "must be a subclass of builtins.dict"),
        ("passing_package.OrderedDict", "is defined in collections, which is not in allow_targets"),
        ("passing_package.__builtins__.exec", "must be the import path of a class"),
        ("passing_package.nothing.Part", "cannot be imported .*PYTHONPATH"),
        ("broken_package.Part", r"cannot be imported \(RuntimeError: no\)"),
    ],
)
def test_only_classes_of_the_package_itself(package: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        import_target("model._target_", path, ["passing_package", "broken_package"], dict)
    assert import_target("model._target_", "passing_package.Mine", ["passing_package"], dict).__name__ == "Mine"


def test_names_are_checked_without_torch() -> None:
    config = {**LENGTH, "allow_targets": ["mine"], "model": {"_target_": "other.Net"}}
    code = (
        "import json, sys\nfrom mlp_lightning.config import parse_config\n"
        f"try: parse_config(json.loads({json.dumps(config)!r}))\n"
        "except ValueError as error: print(error)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "model._target_ = 'other.Net' is not imported" in done.stdout
    assert done.stdout.endswith("False\n")


# ---- entry points ------------------------------------------------------------------------------------------


def install(folder: Path, name: str, entries: dict[str, str], packages: tuple[str, ...]) -> None:
    """A package as pip leaves it, whose modules leave a file behind when they are imported."""
    record = []
    for one in packages:
        (folder / one).mkdir(parents=True)
        text = f"{TRACE}import torch\n\n\nclass Net(torch.nn.Linear):\n    pass\n"
        (folder / one / "__init__.py").write_text(text, encoding="utf-8")
        record.append(f"{one}/__init__.py,,")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "top_level.txt").write_text("\n".join(packages), encoding="utf-8")  # what Python 3.10 looks at
    points = "\n".join(f"{key} = {value}" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[mlp_lightning.targets]\n{points}\n", encoding="utf-8")
    (info / "RECORD").write_text("\n".join([*record, f"{info.name}/METADATA,,"]), encoding="utf-8")


def test_an_installed_package_allows_its_own_modules_and_is_not_imported_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "net-parts", {"any": "net_parts"}, ("net_parts", "net_parts_2"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert installed_targets() == ["net_parts"]
    config = parse_config({**LENGTH, "model": {"_target_": "net_parts.Net"}})
    assert config.allow_targets == []
    found = faults(model={"_target_": "net_parts_2.Net"})
    assert len(found) == 1
    assert "is not in allow_targets = []" in found[0]
    assert not (tmp_path / MARKER).exists()
    import torch

    assert import_target("model._target_", "net_parts.Net", [], torch.nn.Module).__module__ == "net_parts"
    assert (tmp_path / MARKER).exists()
    monkeypatch.delitem(sys.modules, "net_parts")


def test_an_installed_package_cannot_allow_what_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"a": "os", "b": "torch", "c": "subprocess", "d": "net_parts:Net", "e": "hydra.utils", "f": "net_parts.x"}
    install(tmp_path, "net-parts", entries, ("net_parts",))
    install(tmp_path, "other-parts", {"a": "net_parts"}, ("other_parts",))
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_targets() == ["net_parts.x"]
    for path in ("os.system", "torch.nn.Linear", "hydra.utils.call", "net_parts.Net"):
        assert target_fault("model._target_", path, []) is not None


def test_a_command_finds_what_an_installed_package_allows(tmp_path: Path) -> None:
    install(tmp_path / "site", "net-parts", {"any": "net_parts"}, ("net_parts",))
    words = ["data=iris", "model=own", "model._target_=net_parts.Net", "trainer.max_steps=3", "hydra.run.dir=run"]
    variables = {**environment(), "PYTHONPATH": str(tmp_path / "site") + os.pathsep + os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").is_file()


# ---- other faults beside them ------------------------------------------------------------------------------


def test_faults_of_targets_come_with_all_others() -> None:
    found = faults(
        allow_targets=["my_package", 3],
        model={"_target_": "my_packge.Net"},
        optimizer={"_target_": "other.Optimizer", "lr": -1},
        callbacks={"extra": [{"_target_": "Callback"}]},
        data={"nam": "iris"},
    )
    keys = [one.split(" = ")[0] for one in found]
    sections = {"allow_targets", "model._target_", "optimizer._target_", "optimizer.lr", "data.nam"}
    assert sorted(keys) == sorted({*sections, "callbacks.extra.0._target_"})
    (of_model,) = (one for one in found if one.startswith("model"))
    assert of_model.endswith("did you mean my_package.Net?")


def test_nearest_name_of_a_class_that_its_module_has_not() -> None:
    import torch

    with pytest.raises(ConfigError, match=r"has no GatedNets; did you mean my_package\.parts\.GatedNet\?"):
        import_target("model._target_", "my_package.parts.GatedNets", ["my_package"], torch.nn.Module)


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ({"experiment": "hidden_units"}, "iris_hidden_units"),
        ({"experiment": "lab8_2_wide_dep"}, "lab8_2_wide_deep"),
        ({"model": "wide_dep"}, "wide_deep"),
        ({"data": "spiral"}, "spirals"),
    ],
)
def test_nearest_names_of_options(section: dict[str, str], meant: str) -> None:
    (found,) = faults(**section)
    assert found.endswith(f"did you mean {meant}?")
