"""Makes the folder of a packed run: the same files with the same content as without packing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlp_lightning.config import parse_complete
from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.files import names_file
from mlp_lightning.runs.history import Series
from mlp_lightning.runs.packed.checkpoints import put_together
from mlp_lightning.runs.packed.claims import HYDRA_FILES
from mlp_lightning.runs.packed.curves import Curves, csv_text, curve_files
from mlp_lightning.runs.packed.parts import CHECKPOINTS, FORMAT, curve_columns
from mlp_lightning.runs.packed.reading import UNPACKING, FolderThereError, PackedRun, Row, inside, read_row
from mlp_lightning.runs.run_folder import config_yaml, result_bytes


def unpack(run: PackedRun, folder: Path) -> None:
    """Make the folder of a run: whole, or not at all.

    Args:
        run: of a packed sweep.
        folder: is not there.

    Raises:
        FolderThereError: the folder is there already.
        RunFolderError: the files of the sweep are damaged.
        OSError: the folder cannot be written.
    """
    files = run_files(run)
    with names_file(folder.parent):
        waiting = Path(tempfile.mkdtemp(prefix=f".{folder.name}.{os.getpid()}.", suffix=UNPACKING, dir=folder.parent))
    try:
        for name, content in files.items():
            path = inside(waiting, name, run.claim)
            path.parent.mkdir(parents=True, exist_ok=True)
            with names_file(path):
                path.write_bytes(content)
        waiting.chmod(folder.parent.stat().st_mode & 0o777)
        try:
            waiting.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FolderThereError(f"{folder} is there already. Move it away, or choose another --out.") from error
            raise
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def run_files(run: PackedRun) -> dict[str, bytes]:
    """The files of a run, by their path in its folder."""
    claim, _ = read_row(run.claim)
    files = {"config.yaml": config_yaml(run.sections).encode()}
    if subdir := claim["hydra_folder"]:
        files |= {f"{subdir}/{name}": claim[name].encode() for name in HYDRA_FILES}
    if run.end is None:
        return files
    row, facts = _end(run.end)
    config = parse_complete(run.sections, is_stored=True)
    files |= curve_files(_curves(row, facts["metric"]), config, facts["metric"], row["status"])
    files |= {"train.log": row["log"].encode(), **_checkpoints(row, facts, run.end)}
    return {**files, "result.json": result_bytes(json.loads(row["result"]))}


def csv_of_run(run: PackedRun) -> str:
    """The text of ``metrics.csv``; empty where there is none."""
    config = parse_complete(run.sections, is_stored=True)
    if run.end is None or not config.logger.csv:
        return ""
    row, facts = _end(run.end)
    return csv_text(_curves(row, facts["metric"]), facts["metric"], config.callbacks.lr_monitor)


def _end(row: Row) -> tuple[dict[str, Any], dict[str, str]]:
    content, facts = read_row(row)
    if facts.get("format") != FORMAT:
        raise RunFolderError(f"{row.file} was packed by another version of this package, as {facts.get('format')!r}.")
    return content, facts


def _curves(row: Mapping[str, Any], metric_name: str) -> Curves:
    series = {}
    for split, names in curve_columns(metric_name).items():
        values = np.array([row[name] for name in names], dtype=np.float64).reshape(len(names), -1).T
        steps = np.array(row[f"{split}_steps"], dtype=np.int64)
        times = np.array(row[f"{split}_times"], dtype=np.float64)
        series[split] = Series(steps, times, np.ascontiguousarray(values)[None])
    facts = json.loads(row["final"]), row["steps"], row["started"], row["ended"], row["event_file"], row["graph"]
    return Curves(series["training"], series["validation"], *facts)


def _checkpoints(row: Mapping[str, Any], facts: Mapping[str, str], place: Row) -> dict[str, bytes]:
    """The checkpoint files of a run."""
    from safetensors import SafetensorError, safe_open

    shape, seed = row["shape"], json.loads(row["result"])["seed"]
    names_of_shape, path = json.loads(facts["shapes"])[shape], place.file.with_suffix(".safetensors")
    files = {}
    try:
        with safe_open(path, framework="pt") as file:
            there = set(file.keys())
            for which in (one for one in CHECKPOINTS if row[one] is not None):
                kept = {}
                for name in names_of_shape[which]:
                    if (key := f"{shape}/{which}/{name}") in there:
                        tensor = file.get_slice(key)
                        index = row["place"] if tensor.get_shape()[0] > 1 else 0
                        kept[name] = tensor[index : index + 1][0]
                files[f"checkpoints/{which}.ckpt"] = put_together(row[which], names_of_shape[which], kept, seed)
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}): the file is damaged or missing.") from error
    return files
