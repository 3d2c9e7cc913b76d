"""Reads the runs of a sweep, from their folders or packed: one record per run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlp_lightning.errors import RunFolderError
from mlp_lightning.runs.folder_names import MEMBERS, fold_folder
from mlp_lightning.runs.packed.reading import FOLDER as PACKED
from mlp_lightning.runs.packed.reading import UNPACKING, PackedRun, packed_run, packed_runs

UNENDED = "unended"
# Of a program whose configuration file asks for a sweep: makes a single run of it.
SINGLE_RUN = " hydra.mode=RUN"
# Folders without run folders of the sweep: Hydra's, that of superseded runs, and those of members of ensembles.
_IGNORED_FOLDERS = (".hydra", "superseded", MEMBERS)
STATUSES = ("finished", "interrupted", "failed", "pruned")
# The loader in C is about ten times faster; PyYAML can be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of one run.

    Attributes:
        number: job number in its sweep; ``None`` for a run whose folder is not named by a number.
        folder: the run folder.
        status: ``finished``, ``interrupted``, ``failed`` or ``pruned`` as in ``result.json``; ``unended`` without
            one: the run was killed, or is still running.
        overrides: those of the job, e.g. ``model.hidden_units=5``; empty for a run started from Python.
        config: the resolved configuration as nested plain dicts (``Config.to_dict()``).
        metrics: ``{split: {"loss": …, metric: …}}`` of a finished run; else empty.
        steps: optimizer steps made.
        wall_time_s: seconds from the start of the run to its end.
        error: why the run did not finish.
        fingerprint: of the rows that it was trained on; ``None`` if it is not known.
        baseline: the same metrics of a prediction that does not look at the features, as far as they are known.
        packed: what it was read from, of a packed run.
    """

    number: int | None
    folder: Path
    status: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, float]]
    steps: int = 0
    wall_time_s: float = 0.0
    error: str = ""
    fingerprint: Mapping[str, Any] | None = None
    baseline: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    packed: PackedRun | None = None

    @property
    def job_folder(self) -> Path:
        """The run folder, or for one of several folds the folder that they have in common."""
        return self.folder.parent if is_fold_of(self.folder, self.config) else self.folder

    @property
    def sweep(self) -> Path:
        """The folder of the sweep."""
        return self.job_folder.parent

    @property
    def sort_key(self) -> tuple[str, bool, int, str, int]:
        """Orders runs by sweep folder, job number and fold; runs without a number follow by name."""
        job = self.job_folder.name
        return str(self.sweep), self.number is None, self.number or 0, job, configured(self.config, "data.cv.fold") or 0

    @property
    def held_out(self) -> bool:
        """Whether it is a fold of a cross-validation: its test rows are those that it held out."""
        return configured(self.config, "data.cv.fold") is not None


def configured(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of nested dicts; ``None`` where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def is_fold_of(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a run folder lies in the folder of its cross-validation."""
    fold = configured(config, "data.cv.fold")
    return fold is not None and folder.name == fold_folder(fold)


def job_number(folder: Path) -> int | None:
    """The number that a folder of a sweep is named by; ``None`` if it is named otherwise."""
    return int(folder.name) if folder.name.isascii() and folder.name.isdigit() else None


def objective(metrics: Mapping[str, Mapping[str, float]], held_out: bool) -> float:
    """The loss that a search minimises: of the rows that a fold held out, of validation rows, else of training rows.

    A run that did not finish has an infinite one, the worst that searches accept (Optuna's stops at NaN).
    """
    of_split = metrics.get("test") if held_out else metrics.get("val") or metrics.get("train")
    return of_split["loss"] if of_split else math.inf


def read_records(paths: Iterable[Path]) -> list[RunRecord]:
    """Read every run at or below ``paths``, in the order of their sweep folders and job numbers.

    A run folder is one with a ``config.yaml``; a cross-validation has one for each fold. A packed run counts like its
    folder. Folders in ``.hydra`` or
    ``superseded`` below the given paths are ignored; a run that is reached by two of the paths counts once.

    Raises:
        RunFolderError: a file of a run cannot be read or has invalid content; the message names it.
    """
    paths = list(paths)
    folders = {folder.resolve(): folder for path in paths for folder in run_folders(path)}
    packed = {run.folder.resolve(): run for path in paths for run in _packed(path)}
    records = [*map(read_record, folders.values()), *map(packed_record, packed.values())]
    return sorted(records, key=lambda record: record.sort_key)


def _packed(path: Path) -> Iterator[PackedRun]:
    """Every packed run at or below a path."""
    if (run := packed_run(path)) is not None:
        yield run
    for folder, below, _ in os.walk(path):
        below[:] = [name for name in below if name not in _IGNORED_FOLDERS]
        if PACKED in below:
            yield from packed_runs(Path(folder))


def run_folders(path: Path) -> Iterator[Path]:
    """Every run folder at or below a path; of a cross-validation those of its folds."""
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if name not in _IGNORED_FOLDERS and not name.endswith(UNPACKING)]
        has_folds = any((Path(folder) / name / "config.yaml").is_file() for name in below if name.startswith("fold-"))
        if "config.yaml" in files and Path(folder).name != ".hydra" and not has_folds:
            yield Path(folder)


def read_record(folder: Path) -> RunRecord:
    """Read one run folder.

    Raises:
        RunFolderError: see :func:`read_records`.
    """
    config = _checked(folder / "config.yaml", _yaml(folder / "config.yaml"), dict, "a mapping of keys to values")
    job_folder = folder.parent if is_fold_of(folder, config) else folder
    overrides = _read_overrides(job_folder / ".hydra" / "overrides.yaml")
    number = job_number(job_folder)
    result_path = folder / "result.json"
    start = RunRecord(number, folder, UNENDED, overrides, config, {})
    if not result_path.exists():
        return start
    return _ended(start, _checked(result_path, _json(result_path), dict, "a mapping of keys to values"), result_path)


def curves_text(record: RunRecord) -> str | None:
    """The text of ``metrics.csv`` of a packed run; ``None`` of one with a folder."""
    if record.packed is None:
        return None
    from mlp_lightning.runs.packed.unpacking import csv_of_run

    return csv_of_run(record.packed)


def packed_record(run: PackedRun) -> RunRecord:
    """The record of a packed run.

    Raises:
        RunFolderError: its content is invalid.
    """
    number = job_number(run.folder)
    start = RunRecord(number, run.folder, UNENDED, run.overrides, run.sections, {}, packed=run)
    return start if run.end is None else _ended(start, run.result, run.end.file)


def _ended(start: RunRecord, result: Mapping[str, Any], path: Path) -> RunRecord:
    """The record of a run with a result, which is in a file."""
    status = _status(path, result.get("status"))
    why = result.get("stopped_by" if status == "pruned" else "error")
    return dataclasses.replace(
        start,
        status=status,
        metrics=_metrics(path, result.get("metrics")),
        steps=int(_number(path, result.get("steps", 0))),
        wall_time_s=_number(path, result.get("wall_time_s", 0.0)),
        error=cause(str(why or "")),
        fingerprint=_fingerprint(path, result.get("fingerprint")),
        baseline=_baseline(path, result.get("baseline")),
    )


def cause(error: str) -> str:
    """The message of an error in one line, without the name of its class."""
    name, separator, message = " ".join(error.split()).partition(": ")
    return message if separator and name.isidentifier() and name.endswith("Error") else " ".join(error.split())


def _read_overrides(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return ()
    overrides = _checked(path, _yaml(path), list, "a list of overrides")
    return tuple(_checked(path, one, str, "a list of overrides as KEY=VALUE") for one in overrides)


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(_text(path), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise _damaged(path, f"is not valid YAML ({error.problem}{where})") from error
    except yaml.YAMLError as error:
        raise _damaged(path, f"is not valid YAML ({str(error).splitlines()[0]})") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise _damaged(path, f"is not valid JSON ({error})") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror or error})") from error


def _status(path: Path, value: Any) -> str:
    if value not in STATUSES:
        raise _damaged(path, f"has the status {value!r}, which is not one of {', '.join(STATUSES)}")
    return value


def _metrics(path: Path, value: Any) -> dict[str, dict[str, float]]:
    expected = "metrics as {split: {name: number}}"
    splits = _checked(path, {} if value is None else value, dict, expected)
    return {
        split: {name: _number(path, one) for name, one in _checked(path, of_split, dict, expected).items()}
        for split, of_split in splits.items()
    }


def _baseline(path: Path, value: Any) -> dict[str, dict[str, float]]:
    expected = "a baseline as {predicts: text, metrics: {split: {name: number}}}"
    return {} if value is None else _metrics(path, _checked(path, value, dict, expected).get("metrics"))


def _fingerprint(path: Path, value: Any) -> dict[str, dict[str, Any]] | None:
    if value is None:
        return None
    expected = "the fingerprint of tables as {name: {rows, columns, as_set}}"
    for one in _checked(path, value, dict, expected).values():
        _checked(path, _checked(path, one, dict, expected).get("columns"), dict, expected)
        _number(path, one.get("rows"))
        _checked(path, one.get("as_set"), str, expected)
    return value


def _number(path: Path, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _damaged(path, f"has {value!r} where a number should be")
    return float(value)


def _checked(path: Path, value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind):
        raise _damaged(path, f"has {_short(value)} where {expected} should be")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _damaged(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{path} {what}: the file is damaged. Repair it, or move its run folder {path.parent} away, and try again"
    )
