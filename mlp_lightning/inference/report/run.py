"""What a page says of one run: what was asked, what came out, and how it learned."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.config.free_names import path_option
from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.sizing import cpu_threads
from mlp_lightning.errors import DataError, MLPLightningError, RunFolderError
from mlp_lightning.inference.explanation.rows import ExplainedRows, rows_of_split
from mlp_lightning.inference.labelled_rows import opened_split
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.inference.report.curves import RunCurves, read_curves
from mlp_lightning.inference.report.diagram import stages
from mlp_lightning.inference.report.live import live_part
from mlp_lightning.inference.report.network import NotLive
from mlp_lightning.inference.report.page import texts
from mlp_lightning.inference.report.sentences import Sentences, marks
from mlp_lightning.inference.report.table import table_section
from mlp_lightning.runs.card import evaluable_split
from mlp_lightning.runs.run_folder import RunFolder
from mlp_lightning.sweeps.records import RunRecord, configured, read_record
from mlp_lightning.tables.reading.sources import TableSource

#: Of a ``config.yaml`` or ``result.json`` that is read.
MOST_BYTES = 1 << 26
# Held-out rows that importances and errors are measured on.
_ROWS = 1_000
_SPLITS = ("train", "val", "test")
Program = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Opened:
    """What of a run can be used again.

    Attributes:
        model: the trained one; ``None`` without.
        why_no_model: in words of the error.
        data: its rows, split as for the training; ``None`` if they cannot be had.
        why_no_data: in words of the error.
    """

    model: TrainedModel | None
    why_no_model: str = ""
    data: tuple[TabularDataModule, TableSource] | None = None
    why_no_data: str = ""

    def rows(self, split: str, most: int, seed: int) -> ExplainedRows | None:
        """Rows of a split; ``None`` if there are none, or none counts."""
        if self.model is None or self.data is None or split not in self.data[0].splits:
            return None
        try:
            return rows_of_split(self.model, split, None, most, seed, self.data)
        except MLPLightningError:  # all of weight 0
            return None


def run_section(
    folder: Path,
    checkpoint: Path | None,
    lang: str,
    rows: int,
    seed: int,
    allow_targets: Sequence[str],
    program: Program,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the templates and the scripts get of a run.

    Args:
        folder: of the run; need not be there if there is a checkpoint.
        checkpoint: of the model; ``None``: that of the weights whose metrics the run reports.
        lang: of sentences.
        rows: most rows of each split that the page holds.
        seed: draws them.
        allow_targets: packages that parts of the user's own may be imported from.
        program: names the commands.

    Raises:
        CheckpointError, RunFolderError: what is there cannot be read.
    """
    record, result = _recorded(folder)
    path = checkpoint or _checkpoint(folder, result)
    opened = _opened(path, allow_targets, is_needed=checkpoint is not None)
    curves, why_no_curves = _curves(folder)
    say = Sentences(texts(lang))
    config = record.config if record is not None else _config_of(opened)
    content: dict[str, Any] = {
        "title": _title(folder, config),
        "folder": str(folder),
        "checkpoint": "" if path is None else str(path),
        "record": record,
        "result": _plain_result(result),
        "data": _data(opened),
        "why_no_data": opened.why_no_data,
        "why_no_model": opened.why_no_model,
        "settings": _settings(config),
        "metrics": _metrics(record),
        "events": say.events(result, curves),
        "why_no_curves": why_no_curves,
        "commands": _commands(record, path, opened, allow_targets, program),
    }
    data: dict[str, Any] = {"curves": curves.plain(), "marks": marks(result)}
    content["has_curves"] = bool(data["curves"]["charts"])
    content |= {"stages": [], "parameters": 0, "why_not_live": "", "table": None, "why_no_table": ""}
    if (model := opened.model) is not None:
        content["stages"] = stages(model, say.texts)
        content["parameters"] = sum(one.numel() for one in model.module.parameters())
        with cpu_threads(model.threads):
            _add_model(content, data, opened, model, folder, rows, seed, say.texts)
    return content, data


def _add_model(
    content: dict[str, Any],
    data: dict[str, Any],
    opened: Opened,
    model: TrainedModel,
    folder: Path,
    rows: int,
    seed: int,
    of_lang: Mapping[str, str],
) -> None:
    """Add what is measured with the model, and the model itself."""
    importance = []
    held_out = next((one for split in reversed(_SPLITS) if (one := opened.rows(split, _ROWS, seed))), None)
    if held_out is not None:
        try:
            content["table"], data["table"] = table_section(model, held_out, seed, rows)
            importance = [one["name"] for one in data["table"]["importance"]]
        except DataError as error:  # a network that diverged predicts no numbers
            content["why_no_table"] = str(error)
    try:
        of_splits = {split: opened.rows(split, rows, seed) for split in _SPLITS[:2]} if rows else {}
        data["live"] = live_part(model, folder, importance, of_splits)
    except NotLive as reason:
        content["why_not_live"] = of_lang[reason.key].format(**reason.values)


def _recorded(folder: Path) -> tuple[RunRecord | None, dict[str, Any]]:
    """The record of a run and all of its ``result.json``; nothing where a checkpoint was moved away from its run."""
    paths = RunFolder(folder)
    if not paths.config.is_file():
        return None, {}
    for path in (paths.config, paths.result):
        if path.is_file() and (size := path.stat().st_size) > MOST_BYTES:
            raise RunFolderError(f"{path} has {size:,} bytes, and the limit for a page is {MOST_BYTES:,}.")
    try:
        record = read_record(folder)
        result = json.loads(paths.result.read_text(encoding="utf-8")) if paths.result.is_file() else {}
    except RecursionError:
        raise RunFolderError(f"{folder} has a config.yaml or a result.json that is nested too deeply.") from None
    return record, result


def _plain_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates show of a ``result.json``, whatever is in it."""
    baseline, warnings, members = (result.get(name) for name in ("baseline", "warnings", "members"))
    keys = ("folder", "seed", "weight")
    return {
        **{name: str(result.get(name) or "") for name in ("device", "engine", "weights")},
        "predicts": str(baseline.get("predicts") or "") if isinstance(baseline, Mapping) else "",
        "warnings": [str(one) for one in warnings] if isinstance(warnings, list) else [],
        "members": [{key: one.get(key) for key in keys} for one in members if isinstance(one, Mapping)]
        if isinstance(members, list)
        else [],
        "is_there": bool(result),
    }


def _checkpoint(folder: Path, result: Mapping[str, Any]) -> Path | None:
    paths = RunFolder(folder)
    in_order = [paths.best_checkpoint, paths.last_checkpoint]
    if result.get("weights") == "last":
        in_order.reverse()
    return next((one for one in in_order if one.is_file()), None)


def _opened(path: Path | None, allow_targets: Sequence[str], is_needed: bool) -> Opened:
    if path is None:
        return Opened(None, "")
    try:
        model = load_model(path, allow_targets=allow_targets)
    except MLPLightningError as error:
        if is_needed:
            raise
        return Opened(None, str(error))
    try:
        return Opened(model, data=opened_split(model, "train"))
    except (MLPLightningError, OSError) as error:
        return Opened(model, why_no_data=str(error))


def _curves(folder: Path) -> tuple[RunCurves, str]:
    try:
        return read_curves(folder), ""
    except FileNotFoundError:
        return RunCurves("", {}), ""
    except (MLPLightningError, OSError) as error:
        return RunCurves("", {}), str(error)


def _config_of(opened: Opened) -> Mapping[str, Any]:
    return {} if opened.model is None else opened.model.config.to_dict()


def _title(folder: Path, config: Mapping[str, Any]) -> str:
    name = configured(config, "name") or configured(config, "data.name") or ""
    return f"{name} {folder.name}".strip()


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options that decide most, as the command line has them."""
    keys = ("data.name", "data.path", "data.target", "task", "model.hidden_units", "model.depth", "model.activation")
    keys += ("model.dropout", "model.norm", "model.residual", "optimizer.name", "optimizer.lr", "scheduler.name")
    keys += ("trainer.max_steps", "trainer.max_epochs", "data.batch_size", "data.scaling", "seed")
    found = ((key, configured(config, key)) for key in keys)
    return [(key, json.dumps(one) if isinstance(one, list) else str(one)) for key, one in found if one is not None]


def _data(opened: Opened) -> dict[str, Any] | None:
    """What the model sees, of the rows as they were read again; without them, of the checkpoint alone."""
    if opened.model is None:
        return None
    columns = [
        {"name": one.name, "kind": one.kind, "values": len(one.vocabulary) or None, "missing": one.missing}
        for one in opened.model.columns
    ]
    target = [{"name": one.name, "classes": list(one.class_names[:12])} for one in opened.model.target.columns]
    found = {"columns": columns, "target": target, "task": opened.model.target.task}
    if opened.data is None:
        return {**found, "splits": {}, "dropped": 0, "ignored": {}, "notes": [], "baseline": ""}
    data, _ = opened.data
    splits = {split: len(part) for split, part in data.splits.items()}
    rows = data.rows
    return {**found, "splits": splits, "dropped": rows.dropped, "ignored": rows.report.ignored, "notes": rows.notes}


def _metrics(record: RunRecord | None) -> dict[str, Any] | None:
    if record is None or not record.metrics:
        return None
    names = list(dict.fromkeys(name for values in record.metrics.values() for name in values))
    rows = [
        {
            "split": split,
            "cells": [(values.get(name), record.baseline.get(split, {}).get(name)) for name in names],
        }
        for split, values in record.metrics.items()
    ]
    return {"names": names, "rows": rows}


def _commands(
    record: RunRecord | None, checkpoint: Path | None, opened: Opened, allow_targets: Sequence[str], program: Program
) -> list[tuple[str, str]]:
    """Commands by the key of what they do."""
    found = []
    if record is not None and record.overrides:
        train = " ".join([program("train"), *map(shlex.quote, record.overrides)])
        found.append(("repeat", train))
        last = RunFolder(record.folder).last_checkpoint
        if last.is_file() and not any(one.startswith("ckpt_path=") for one in record.overrides):
            found.append(("continue", f"{train} {shlex.quote(path_option('ckpt_path', str(last)))}"))
    if checkpoint is not None:
        split = None
        if opened.model is not None and opened.data is not None:
            split = evaluable_split(opened.model.config, opened.data[0])
        of_commands = {
            "evaluate": ["data.path=labelled.csv" if split is None else f"split={split}"],
            "predict": ["data.path=new.csv", "output=predictions.csv"],
            "export": ["format=onnx"],
        }
        allowed = [f"allow_targets=[{','.join(allow_targets)}]"] if allow_targets else []
        for name, more in of_commands.items():
            words = shlex.join([path_option("ckpt_path", str(checkpoint)), *more, *allowed])
            found.append((name, f"{program(name)} {words}"))
    return found
