"""The folder of a packed run is the one that the run would have had, byte for byte but for times."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.configurations import ComposeConfig
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2 as _plugin_data_pb2

from mlp_lightning.config import Config
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs import train_stack
from mlp_lightning.runs.packed.claims import Claim, write_claims
from mlp_lightning.runs.packed.reading import packed_run, packed_runs
from mlp_lightning.runs.packed.resolving import unpacked

# protobuf makes the classes in this module when it is imported, so type checkers do not see them.
plugin_data_pb2: Any = _plugin_data_pb2

IRIS = ["data=iris", "trainer=cpu", "trainer.threads=1", "trainer.log_every_n_steps=7"]
FRIEDMAN = ["data=friedman", "trainer=cpu", "trainer.threads=1", "trainer.log_every_n_steps=1"]
XOR = ["data=xor", "trainer=cpu", "trainer.threads=1", "trainer.max_steps=40"]
#: What all runs have, and what each has.
CASES: dict[str, tuple[list[str], list[list[str]]]] = {
    "XOR": (XOR, [["seed=3"], ["seed=4", "optimizer.lr=0.2"]]),
    "one fails": (
        [*FRIEDMAN, "trainer.max_epochs=5"],
        [["optimizer.lr=0.01"], ["optimizer.lr=1e20"], ["optimizer.lr=0.02", "seed=7"]],
    ),
    "widths, Adam, validation": (
        [*IRIS, "optimizer=adam", "trainer.max_epochs=6", "data.test_fraction=0.2", "callbacks.snapshots=6"],
        [["seed=0", "model.hidden_units=3"], ["seed=0", "model.hidden_units=5"], ["seed=9", "model.hidden_units=3"]],
    ),
    "they end one after another": (
        [
            *(*IRIS, "optimizer=adam", "data.batch_size=32", "trainer.max_epochs=40", "callbacks=early_stopping"),
            *("callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=0.02", "report_weights=best"),
        ],
        [["optimizer.lr=0.3"], ["optimizer.lr=0.01"], ["optimizer.lr=0.05"], ["optimizer.lr=1e-5"]],
    ),
    "dropout, double precision": (
        [*IRIS, "model.dropout=0.3", "trainer.precision=64", "trainer.max_epochs=3"],
        [["seed=5"], ["seed=6"]],
    ),
    "schedule, clipping, no lr": (
        [*IRIS, "scheduler=one_cycle", "trainer.gradient_clip_val=0.1", "callbacks.lr_monitor=false"],
        [["trainer.max_epochs=4", "seed=1"], ["trainer.max_epochs=4", "seed=2"]],
    ),
    "without files": (
        [*XOR, "logger.tensorboard=false", "logger.csv=false", "callbacks.checkpoint=null"],
        [["seed=1"], ["seed=2"]],
    ),
    "batch norm": (
        [*IRIS, "model.norm=batch", "data.batch_size=50", "trainer.max_epochs=2", "logger.graph=false"],
        [["seed=1"], ["seed=2"]],
    ),
}


def trained(configs: Sequence[Config], sweep: Path, packed: bool) -> None:
    """Train a stack; its packed runs are unpacked afterwards."""
    folders = [sweep / str(number) for number in range(len(configs))]
    if not packed:
        train_stack(configs, folders, checkpoint=sweep / "a.stack")
        return
    write_claims(
        sweep / "packed", [Claim(one.name, own.sections(), ()) for one, own in zip(folders, configs, strict=True)]
    )
    train_stack(configs, folders, checkpoint=sweep / "a.stack", packed=sweep / "packed")
    assert [one.name for one in sweep.iterdir()] == ["packed"]
    assert [one.folder for one in packed_runs(sweep)] == folders
    for one in folders:
        assert unpacked(one) == one
    assert not packed_runs(sweep)


def events(path: Path) -> list[bytes]:
    """The events of a file without their times."""
    found = []
    for event in EventFileLoader(str(path)).Load():
        event.wall_time = 0
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                record = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                record.session_start_info.ClearField("start_time_secs")
                record.session_end_info.ClearField("end_time_secs")
                value.metadata.plugin_data.content = record.SerializeToString(deterministic=True)
        found.append(event.SerializeToString(deterministic=True))
    return found


def content(run: Path) -> dict[str, Any]:
    """All files of a run without times."""
    read: dict[str, Any] = {}
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_file():
            read[name] = path.read_bytes()
            if "events.out.tfevents" in name:
                read[re.sub(r"tfevents.*", "tfevents", name)] = events(path)
                del read[name]
    result = json.loads(read["result.json"])
    for of in (result, result["stack"]):
        for key in ("wall_time_s", "fit_time_s", "started_at", "ended_at"):
            of.pop(key, None)
    read["result.json"] = json.dumps(result, indent=2)
    log = re.sub(r"^\[[\d -]+ [\d:]+\]", "", read["train.log"].decode(), flags=re.MULTILINE)
    read["train.log"] = re.sub(r" in [\d.]+ s on ", " in 0 s on ", log)
    return read


@pytest.mark.parametrize("case", CASES)
def test_same_folders(case: str, tmp_path: Path, compose_config: ComposeConfig) -> None:
    common, members = CASES[case]
    configs = [compose_config(*common, *one) for one in members]
    sweep, first = tmp_path / "sweep", tmp_path / "first"
    trained(configs, sweep, packed=False)
    sweep.rename(first)  # both have the same paths in what they write
    trained(configs, sweep, packed=True)
    for number in range(len(configs)):
        expected, actual = content(first / str(number)), content(sweep / str(number))
        assert actual.keys() == expected.keys()
        assert {name for name in expected if actual[name] != expected[name]} == set()
    statuses = [json.loads((sweep / str(one) / "result.json").read_text())["status"] for one in range(len(configs))]
    assert statuses.count("failed") == (case == "one fails")


@pytest.fixture
def sweep(tmp_path: Path, compose_config: ComposeConfig) -> Path:
    """A packed sweep of two runs."""
    configs = [compose_config(*XOR, f"seed={seed}") for seed in (1, 2)]
    folders = [tmp_path / "sweep" / name for name in "01"]
    packed = tmp_path / "sweep" / "packed"
    write_claims(packed, [Claim(one.name, own.sections(), ()) for one, own in zip(folders, configs, strict=True)])
    train_stack(configs, folders, packed=packed)
    return tmp_path / "sweep"


def test_files_are_those_of_common_tools(sweep: Path) -> None:
    import pyarrow.parquet as pq
    from safetensors.torch import load_file

    (table,) = (pq.read_table(one) for one in (sweep / "packed").glob("0*.parquet"))
    assert table["run"].to_pylist() == ["0", "1"]
    assert [len(one) for one in table["loss/train"].to_pylist()] == [
        len(one) for one in table["training_steps"].to_pylist()
    ]
    (tensors,) = (load_file(one) for one in (sweep / "packed").glob("*.safetensors"))
    for number in (0, 1):
        checkpoint = torch.load(unpacked(sweep / str(number)) / "checkpoints" / "last.ckpt", weights_only=True)
        for name, one in checkpoint["state_dict"].items():
            stacked = tensors[f"0/last/state_dict.{name}"]
            assert torch.equal(stacked[number if len(stacked) > 1 else 0], one)


def test_a_path_inside_of_a_packed_run_is_made(sweep: Path) -> None:
    wanted = sweep / "1" / "checkpoints" / "last.ckpt"
    assert unpacked(wanted) == wanted
    assert wanted.is_file()
    assert not (sweep / "0").exists()
    other = sweep / "7"
    assert unpacked(other) == other
    assert not other.exists()
    assert sorted(one.name for one in sweep.iterdir()) == ["1", "packed"]


@pytest.mark.parametrize("kind", ["parquet", "safetensors", "claims"])
@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
def test_damaged_files_are_named(kind: str, damage: str, sweep: Path) -> None:
    pattern = "claims-*.parquet" if kind == "claims" else f"0*.{kind}"
    (path,) = (sweep / "packed").glob(pattern)
    if damage == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else bytes(len(whole)))
    if damage == "gone" and kind != "safetensors":
        # There is no such run, or it has not ended.
        assert unpacked(sweep / "0").is_dir() == (kind == "parquet")
        assert not (sweep / "0" / "result.json").exists()
        return
    with pytest.raises(RunFolderError, match=re.escape(path.name)):
        unpacked(sweep / "0")
    assert not [one for one in sweep.iterdir() if one.name != "packed"]


@pytest.mark.parametrize("run", ["../elsewhere", "/elsewhere", "a/../../b", ""])
def test_no_path_leads_out_of_the_sweep(run: str, sweep: Path, compose_config: ComposeConfig) -> None:
    write_claims(sweep / "packed", [Claim(run, compose_config(*XOR).sections(), ())])
    with pytest.raises(RunFolderError, match="outside"):
        packed_runs(sweep)


def test_no_file_leads_out_of_the_run(sweep: Path, compose_config: ComposeConfig) -> None:
    texts: dict[str, str] = dict.fromkeys(("config.yaml", "hydra.yaml", "overrides.yaml"), "[]")
    claim = Claim("5", compose_config(*XOR).sections(), (), "../../elsewhere", texts)
    write_claims(sweep / "packed", [claim])
    with pytest.raises(RunFolderError, match="outside"):
        unpacked(sweep / "5")
    assert sorted(one.name for one in sweep.parent.iterdir()) == ["sweep"]
    assert [one.name for one in sweep.iterdir()] == ["packed"]


def test_the_latest_attempt_counts(sweep: Path, compose_config: ComposeConfig) -> None:
    before = packed_run(sweep / "1")
    config = compose_config(*XOR, "seed=2", "trainer.max_steps=50")
    write_claims(sweep / "packed", [Claim("1", config.sections(), ("seed=2",))])
    train_stack([config] * 2, [sweep / "1", sweep / "2"], packed=sweep / "packed")
    after = packed_run(sweep / "1")
    assert before is not None
    assert after is not None
    assert (before.result["steps"], after.result["steps"], after.overrides) == (40, 50, ("seed=2",))
    shutil.rmtree(sweep / "packed")
    assert packed_run(sweep / "1") is None
