"""Reads a packed sweep: which runs there are, how they ended, and all that one of them left."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mlp_lightning.errors import RunFolderError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "packed"
#: A folder with this at the end of its name is not whole yet; that of a killed process never will be.
UNPACKING = ".unpacking"


class FolderThereError(RunFolderError):
    """The folder to unpack into is there already."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Where a row is."""

    file: Path
    number: int


@dataclasses.dataclass(frozen=True)
class PackedRun:
    """One run of a packed sweep.

    Attributes:
        folder: that it would have, or has been unpacked into.
        sections: its configuration; equal ones are the same objects.
        overrides: of its job.
        claim: where it says what the run is.
        end: where it says how the run ended; ``None`` if it has not.
        result: what ``result.json`` says; empty if the run has not ended.
    """

    folder: Path
    sections: Mapping[str, Any]
    overrides: tuple[str, ...]
    claim: Row
    end: Row | None
    result: Mapping[str, Any]


def is_packed_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep with packed runs."""
    return any((folder / FOLDER).glob("claims-*.parquet"))


def remove_incomplete(sweep: Path) -> None:
    """Remove what a killed process has left of parts that it could not complete."""
    for file in (sweep / FOLDER).glob("*.safetensors"):
        if not file.with_suffix(".parquet").exists():
            file.unlink()


def packed_runs(sweep: Path, only: str | None = None) -> list[PackedRun]:
    """The runs of a packed sweep that have no folder beside, in the order of their claims.

    Args:
        sweep: its folder; one without packed runs has none.
        only: the name of the only run that is asked for.

    Raises:
        RunFolderError: a file is damaged.
    """
    folder = sweep / FOLDER
    claims = {
        str(row["run"]): (row, Row(file, number))
        for file in sorted(folder.glob("claims-*.parquet"))
        for number, row in enumerate(_claims(file))
        if only is None or row["run"] == only
    }
    if not claims:
        return []
    ends = {
        run: (result, Row(file, number))
        for file in sorted(folder.glob("[0-9]*-*.parquet"))
        for number, (run, result) in enumerate(zip(*_columns(file, ("run", "result")), strict=True))
        if only is None or run == only
    }
    runs = []
    for run, (claim, row) in claims.items():
        path = sweep / _inside(run, row.file)
        if (path / "config.yaml").is_file():
            continue  # it was unpacked, or has failed before it could train
        result, end = ends.get(run, ("{}", None))
        runs.append(PackedRun(path, claim["sections"], claim["overrides"], row, end, _json(result, row.file)))
    return runs


def packed_run(folder: Path) -> PackedRun | None:
    """The packed run at this path that has no folder.

    Raises:
        RunFolderError: a file of its sweep is damaged.
    """
    if folder.exists() or not is_packed_sweep(folder.parent):
        return None
    return next(iter(packed_runs(folder.parent, folder.name)), None)


def read_row(row: Row) -> tuple[dict[str, Any], dict[str, str]]:
    """All of a row, and what its file says of itself.

    Raises:
        RunFolderError: the file is damaged.
    """
    with _damaged(row.file):
        first = 0
        for group, count in enumerate(_group_sizes(row.file)):
            if row.number < first + count:
                table = _group(row.file, group)
                (content,) = table.slice(row.number - first, 1).to_pylist()
                return content, {key.decode(): one.decode() for key, one in table.schema.metadata.items()}
            first += count
        raise IndexError(row.number)


# A file does not change, and its rows are mostly asked for one after another.
@functools.lru_cache(maxsize=64)
def _group_sizes(file: Path) -> list[int]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


@functools.lru_cache(maxsize=2)
def _group(file: Path, group: int) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        return opened.read_row_group(group)


def _claims(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with _damaged(file):
        names = pq.read_schema(file).names
    keys = [one for one in names if one.startswith("config.") and one != "config.yaml"]
    runs, overrides, *texts = _columns(file, ("run", "overrides", *keys))
    parsed = functools.cache(functools.partial(_json, file=file))  # equal sections become the same object
    for run, of_job, *of_run in zip(runs, overrides, *texts, strict=True):
        sections = {key.partition(".")[2]: parsed(text) for key, text in zip(keys, of_run, strict=True)}
        yield {"run": run, "overrides": tuple(of_job), "sections": sections}


def _columns(file: Path, names: Sequence[str]) -> list[list[Any]]:
    import pyarrow.parquet as pq

    with _damaged(file):
        table = pq.read_table(file, columns=list(names))
        return [table[name].to_pylist() for name in names]


def _inside(path: str, file: Path) -> PurePosixPath:
    """A path below a folder, which a file names.

    Raises:
        RunFolderError: it leads elsewhere.
    """
    inside = PurePosixPath(path)
    if not path or inside.is_absolute() or ".." in inside.parts or "\\" in path or ":" in path:
        raise RunFolderError(f"{file} names the path {path!r}, which is outside of the run: the file is damaged.")
    return inside


def inside(folder: Path, path: str, row: Row) -> Path:
    """A path below a folder, which a row names.

    Raises:
        RunFolderError: it leads elsewhere.
    """
    return folder / _inside(path, row.file)


def _json(text: str, file: Path) -> Any:
    with _damaged(file):
        return json.loads(text)


@contextlib.contextmanager
def _damaged(file: Path) -> Iterator[None]:
    """Errors of what is in a file name the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, UnicodeDecodeError) as error:
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFolderError(
            f"{file} cannot be read ({cause}): the file is damaged, or of another version. Bring it back as it was, or"
            " move it away: without it, its runs are lost."
        ) from error
