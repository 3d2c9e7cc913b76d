"""Which files a path means: one table, a folder of them, a pattern with ``*``, standard input, or an address."""

from __future__ import annotations

import atexit
import difflib
import functools
import glob
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from mlp_lightning.errors import DataError
from mlp_lightning.tables.reading.limits import HEADER_CHARACTERS, STANDARD_INPUT_BYTES

TEXT, JSON, PARQUET, ARROW, EXCEL = "text", "JSON lines", "Parquet", "Arrow", "Excel"
FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), TEXT),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JSON),
    **dict.fromkeys((".parquet", ".pq"), PARQUET),
    **dict.fromkeys((".feather", ".arrow", ".ipc"), ARROW),
    **dict.fromkeys((".xlsx", ".xlsm"), EXCEL),
}
_BLOCK_BYTES = 1 << 20
COMPRESSED = (".gz", ".zst", ".bz2")
KNOWN_ENDINGS = (
    ".csv .tsv .txt .jsonl .ndjson .json (also with .gz, .zst or .bz2 behind it), .parquet .pq, .feather .arrow .ipc,"
    " .xlsx .xlsm"
)


def format_of(path: Path) -> str | None:
    """The format that a file's ending says, None if it is not known.

    >>> format_of(Path("rows.csv.gz")), format_of(Path("rows.PQ")), format_of(Path("rows.parquet.gz"))
    ('text', 'Parquet', None)
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        found = FORMATS.get(suffixes[-2]) if len(suffixes) > 1 else None
        return found if found in (TEXT, JSON) else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def find_files(given: str) -> tuple[list[Path], Path]:
    """The files that a path means, in the order of their paths, and the folder that messages leave out.

    Raises:
        DataError: there is nothing, nothing that is a table, or tables of several formats.
    """
    try:
        given.encode()
        path = fetched(given) if given == "-" or "://" in given else Path(given).expanduser()
    except UnicodeEncodeError:
        raise DataError(f"{given!r}: the name of this file is not UTF-8 ({os.fsencode(given)!r}); rename it.") from None
    except RuntimeError as error:  # there is no such user
        raise DataError(f"{given}: {error}") from None
    try:
        if path.is_dir():
            with os.scandir(path):  # rglob ignores folders that it may not read
                pass
            return of_one_format(tables_in(sorted(path.rglob("*")), path), given), path
        if path.exists():
            if format_of(path) is None:
                raise DataError(f"{given}: files with this ending are not supported; supported are {KNOWN_ENDINGS}.")
            refuse_special(path, given)
            return [path], path.parent
        if glob.has_magic(given):
            return files_of_pattern(given, path)
        refuse_special(path, given)
        raise DataError(not_found(path))
    except PermissionError as error:
        raise DataError(f"{error.filename or given}: no permission to read this; ask its owner.") from None
    except OSError as error:
        raise DataError(f"{error.filename or given} cannot be read: {error.strerror or error}.") from None


def refuse_special(path: Path, given: str) -> None:
    """Refuse what has no content that can be read several times, or none at all.

    Raises:
        DataError: a link that leads nowhere, a pipe, a device, a socket.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(f"{given} is a link to {str(path.readlink())!r}, and there is no such file.")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(
            f"{given} is a pipe, a device or a socket, and a table is read several times: write its content to a file,"
            " or pipe it into the command with data.path=-"
        )


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


def partition_values(path: Path, root: Path) -> dict[str, str | None]:
    """The columns that the folders of a file stand for, as in ``region=north/rows.parquet``.

    Args:
        path: of the file.
        root: the folder of the table; what folders directly above it stand for counts too.

    >>> partition_values(Path("sales/region=north/year=2024/rows.csv"), Path("sales"))
    {'region': 'north', 'year': '2024'}
    """
    above = list(itertools.takewhile(lambda part: "=" in part, reversed(root.parts)))[::-1]
    parts = [one for one in (*above, *path.parent.relative_to(root).parts) if one.find("=") > 0]
    names = [one.partition("=")[0] for one in parts]
    if not names:
        return {}
    import pyarrow.dataset as ds

    partitioning = ds.HivePartitioning(pa.schema([(name, pa.string()) for name in dict.fromkeys(names)]))
    found = ds.get_partition_keys(partitioning.parse("/".join([*parts, ""])))
    return {name: found.get(name) for name in dict.fromkeys(names)}  # what has no value is missing


def tables_in(paths: Sequence[Path], root: Path) -> list[Path]:
    """The files of known endings; hidden ones and those that begin with ``_`` or ``~$`` belong to other programs.

    Raises:
        DataError: there are none.
    """

    def is_left_out(path: Path) -> bool:
        return any(part.startswith((".", "_", "~$")) for part in path.relative_to(root).parts)

    for path in paths:
        if format_of(path) and not is_left_out(path):
            refuse_special(path, str(path))
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


def fetched(given: str) -> Path:
    """What standard input or an address has, as a file or a folder that is kept until the process ends.

    Raises:
        DataError: it cannot be read.
    """
    folder = _standard_input() if given == "-" else _copy_of(given)
    return next(folder.iterdir())


def _folder() -> Path:
    """A new folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="mlp-lightning-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _standard_input() -> Path:
    """A folder with the content of standard input: it can be read only once, and a run reads its table several times.

    Raises:
        DataError: it is empty, a terminal, or larger than the limit.
        OSError: the disk is full.
    """
    source = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer
    first = b"" if source is None else source.read(HEADER_CHARACTERS)
    if source is None or not first.strip():
        raise DataError(
            "data.path = - is standard input, and it is empty. Pipe a table into the command; several processes"
            " (hydra.launcher.n_jobs) need a file."
        )
    ending = _ending(first)
    if ending == ".csv" and len(first) == HEADER_CHARACTERS and not re.search(rb"[\r\n]", first):
        raise DataError(
            f"data.path = - is standard input, and its first line has more than {HEADER_CHARACTERS:,} bytes, which is"
            " the limit for the names of the columns; is it a table?"
        )
    folder = _folder()
    with (folder / f"standard-input{ending}").open("wb") as file:
        file.write(first)
        while block := source.read(_BLOCK_BYTES):
            file.write(block)
            if file.tell() > STANDARD_INPUT_BYTES:
                raise DataError(
                    f"data.path = - is standard input, and it has more than {STANDARD_INPUT_BYTES:,} bytes, which is"
                    " the limit. Write it to a file and give its path."
                )
    return folder


def _ending(content: bytes) -> str:
    """The ending of a table, by its first bytes."""
    of_magic = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"PK\x03\x04": ".xlsx", b"\xff\xff\xff\xff": ".arrow"}
    compressed = {b"\x1f\x8b": ".csv.gz", b"\x28\xb5\x2f\xfd": ".csv.zst", b"BZh": ".csv.bz2", b"{": ".jsonl"}
    return next((end for magic, end in (of_magic | compressed).items() if content.startswith(magic)), ".csv")


@functools.cache
def _copy_of(address: str) -> Path:
    """A folder with a copy of what an address has."""
    import pyarrow.fs

    try:
        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(address)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # Arrow does not know the scheme
            import fsspec

            known, path = fsspec.core.url_to_fs(address)
            filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(known))
        folder = _folder()
        target = folder / PurePosixPath(address.partition("?")[0]).name
        kind = filesystem.get_file_info(path).type
        if kind == pyarrow.fs.FileType.Directory:
            target.mkdir()
        elif kind == pyarrow.fs.FileType.Unknown:
            raise OSError("it is a pipe, a device or a socket")
        pyarrow.fs.copy_files(path, str(target), filesystem, pyarrow.fs.LocalFileSystem())
    except ImportError as error:
        raise DataError(f"{address}: reading it needs a package that is not installed ({error}).") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{address} cannot be read: {error}.") from None
    return folder


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
