"""Exports of strangers, and damaged ones: one message each, no code run, in little memory and time."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pytest
from support.export_runs import table_of_all_kinds, trained

from mlp_lightning.inference.export.formats import export_model, load_exported
from mlp_lightning.inference.loading import load_model
from mlp_lightning.inference.predict import predict

if sys.platform != "linux":
    pytest.skip("children of limited memory are made as on Linux", allow_module_level=True)
from support.hostile_commands import COMMANDS, REFUSED, command_outcome
from support.hostile_exports import MARK, hostile_exports
from support.kill_points import forked
from support.limited_children import outcome

TRIALS = 30


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return export_model(trained(folder, "two"), "safetensors", folder / "good").path


def loaded(path: Path) -> str:
    model = load_exported(path)
    return repr([model.columns, model.target, [(name, one.sum()) for name, one in model.module.state_dict().items()]])


@pytest.mark.posix
def test_a_hostile_export(good: Path, tmp_path: Path) -> None:
    made = hostile_exports(good, tmp_path)
    assert len(made) >= 50
    for name, path in made.items():
        found = outcome(lambda path=path: loaded(path))
        if name == "an interpolation":  # is a name like any other: nothing resolves it
            assert not found.startswith(("message", "traceback")), found
            continue
        assert found.startswith("message"), (name, found)
        assert str(path.with_suffix("")) in found or "allow_targets" in found, (name, found)
        assert len(found) < 1500, (name, found)
    assert not (tmp_path / MARK).exists()


@pytest.mark.posix
def test_a_hostile_export_given_as_a_checkpoint(good: Path, tmp_path: Path) -> None:
    made = hostile_exports(good, tmp_path)
    table = tmp_path / "rows.csv"
    pyarrow.csv.write_csv(table_of_all_kinds(30), table)
    commands: dict[str, Callable[[Path], object]] = {
        "load_model": load_model,
        "predict": lambda path: predict(path, str(table), tmp_path / "predicted.csv"),
        "export": lambda path: export_model(path, "safetensors", tmp_path / "again"),
    }
    for name in ("nothing", "a description that is a pickle", "tensors that are a pickle", "a million brackets"):
        for path in (made[name], made[name].with_suffix(".json")):
            for command, run in commands.items():
                found = outcome(lambda path=path, run=run: str(run(path)))
                assert found.startswith("message"), (command, name, found)
                assert str(path) in found
    assert not (tmp_path / MARK).exists()
    assert not (tmp_path / "predicted.csv").exists()


@pytest.mark.posix
@pytest.mark.slow
def test_a_hostile_export_given_to_a_command(good: Path, tmp_path: Path, torture: int) -> None:
    rows, folder = tmp_path / "rows.csv", tmp_path / "left"
    (tmp_path / "made").mkdir()
    made = hostile_exports(good, tmp_path / "made")
    pyarrow.csv.write_csv(table_of_all_kinds(30), rows)
    folder.mkdir()
    for number, (name, path) in enumerate(made.items()):
        if torture == 1 and number % 5:
            continue
        for file in (path, path.with_suffix(".json")):
            command = list(COMMANDS)[number % len(COMMANDS)]
            for one in [command] if torture == 1 else COMMANDS:
                code, _ = forked(lambda file=file, one=one: command_outcome(one, file, rows, folder, []), folder)
                said = (tmp_path / "output").read_text()
                assert code == REFUSED, (name, one, said)
                assert "Traceback" not in said, (name, one, said)
                assert 0 < len(said) < 3000, (name, one, said)
                assert not list(folder.iterdir()), (name, one)
    assert not (tmp_path / "made" / MARK).exists()


@pytest.mark.posix
@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_a_damaged_export(good: Path, ending: str, tmp_path: Path, torture: int) -> None:
    right, trials = loaded(good), random.Random(ending)
    for name in (".safetensors", ".json"):
        (tmp_path / f"m{name}").write_bytes(good.with_suffix(name).read_bytes())
    path = tmp_path / f"m{ending}"
    content = path.read_bytes()
    for trial in range(TRIALS * torture):
        changed = bytearray(content)
        for _ in range(trials.choice((1, 1, 4))):
            changed[trials.randrange(len(content))] ^= 1 << trials.randrange(8)
        path.write_bytes(changed if trial % 5 else content[: trials.randrange(len(content))])
        found = outcome(lambda: loaded(path))
        assert found == right or (found.startswith("message") and str(tmp_path / "m.") in found), (trial, found)


def test_files_that_cannot_be_read(good: Path, tmp_path: Path) -> None:
    for name in (".safetensors", ".json"):
        (tmp_path / f"m{name}").write_bytes(good.with_suffix(name).read_bytes())
    (tmp_path / "m.json").unlink()
    (tmp_path / "m.json").symlink_to("m.json")
    with pytest.raises(ValueError, match=r"There is no file .*m\.json"):
        load_exported(tmp_path / "m.safetensors")
