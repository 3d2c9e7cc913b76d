"""Which files a path means: one table, a folder of them, or a pattern with ``*``."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from mlp_lightning.errors import DataError

TEXT, PARQUET, ARROW = "text", "Parquet", "Arrow"
FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), TEXT),
    **dict.fromkeys((".parquet", ".pq"), PARQUET),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), ARROW),
}
COMPRESSED = (".gz", ".zst", ".bz2")
KNOWN_ENDINGS = ".csv .tsv .txt (also with .gz, .zst or .bz2 behind it), .parquet .pq, .feather .arrow .ipc"


def format_of(path: Path) -> str | None:
    """The format that a file's ending says, None if it is not known.

    >>> format_of(Path("rows.csv.gz")), format_of(Path("rows.PQ")), format_of(Path("rows.parquet.gz"))
    ('text', 'Parquet', None)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        return TEXT if len(suffixes) > 1 and FORMATS.get(suffixes[-2]) == TEXT else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def find_files(given: str) -> tuple[list[Path], Path]:
    """The files that a path means, in the order of their paths, and the folder that messages leave out.

    Raises:
        DataError: there is nothing, nothing that is a table, or tables of several formats.
    """
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            with os.scandir(path):  # rglob ignores folders that it may not read
                pass
            return of_one_format(tables_in(sorted(path.rglob("*")), path), given), path
        if path.exists():
            if format_of(path) is None:
                raise DataError(f"{given}: files with this ending are not supported; supported are {KNOWN_ENDINGS}.")
            return [path], path.parent
        if glob.has_magic(given):
            return files_of_pattern(given, path)
        raise DataError(not_found(path))
    except PermissionError as error:
        raise DataError(f"{error.filename or given}: no permission to read this; ask its owner.") from None


def files_of_pattern(given: str, path: Path) -> tuple[list[Path], Path]:
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - ** and absolute
    if not matches:
        raise DataError(f"{given}: no file matches this pattern (in {fixed_part(path).resolve()}).")
    root = fixed_part(path)
    inside = [file for match in matches for file in (sorted(match.rglob("*")) if match.is_dir() else [match])]
    return of_one_format(tables_in(list(dict.fromkeys(inside)), root), given), root


def fixed_part(pattern: Path) -> Path:
    """The folder of a pattern, up to the first part that holds a ``*``."""
    parts = pattern.parts
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def tables_in(paths: Sequence[Path], root: Path) -> list[Path]:
    """The files of known endings; hidden ones and those that begin with ``_`` belong to other programs.

    Raises:
        DataError: there are none.
    """

    def is_left_out(path: Path) -> bool:
        return any(part.startswith((".", "_")) for part in path.relative_to(root).parts)

    files = [path for path in paths if path.is_file() and not is_left_out(path)]
    tables = [path for path in files if format_of(path)]
    if not tables:
        found = ", ".join(path.name for path in files[:3]) + (" …" if len(files) > 3 else "")
        raise DataError(f"{root}: no tables here, only {found or 'nothing'}; endings of tables are {KNOWN_ENDINGS}.")
    return tables


def of_one_format(files: list[Path], given: str) -> list[Path]:
    """The files themselves.

    Raises:
        DataError: they are of several formats.
    """
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(str(format_of(file)), file)
    if len(first) > 1:
        listed = ", ".join(f"{format_} ({file.name})" for format_, file in first.items())
        raise DataError(
            f"{given} holds tables of several formats: {listed}. One table is of one format; "
            "choose with a pattern such as data.path='folder/*.csv'."
        )
    return files


def not_found(path: Path) -> str:
    """The message for a missing path, with the nearest name in the last folder that exists."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    folder = missing.parent
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    near = difflib.get_close_matches(missing.name, names, n=1)
    text = f"{path} does not exist: there is no {missing.name!r} in {folder.resolve()}"
    return f"{text}; did you mean {str(folder / near[0])!r}?" if near else f"{text}."
