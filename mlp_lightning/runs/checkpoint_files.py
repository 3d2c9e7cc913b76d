"""Files of checkpoints and of saved stacks: found to be whole before anything in them is used. Imports no torch.

A file of torch's is a zip archive of stored members, each with a checksum that torch writes and does not read.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pickletools
import re
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

from mlp_lightning.errors import CheckpointError

# What rebuilds plain data and tensors; torch would also call what allocates as much memory as a file asks for.
_BUILDERS = {
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size"),
    *("torch device", "builtins set", "__builtin__ set"),
}
_KINDS = ("float", "double", "half", "bfloat16", "int", "long", "short", "char", "byte", "bool")
_STORAGES = {f"torch {'BFloat16' if kind == 'bfloat16' else kind.title()}Storage" for kind in _KINDS}
_TYPES = {
    f"torch {kind}{bits}" for kind, sizes in (("float", (16, 32, 64)), ("int", (8, 16, 32, 64))) for bits in sizes
}
_ALLOWED = _BUILDERS | _STORAGES | _TYPES | {"torch bfloat16", "torch uint8", "torch bool"}
_ALLOWED_BYTES = {one.encode() for one in _ALLOWED}
# A global of a pickle in a package of which torch knows some; it refuses all others.
_GLOBAL = re.compile(rb"(?=c((?:torch|collections|builtins|__builtin__|_codecs|numpy)[\w.]*)\n([\w.]+)\n)")
_MISSING = "is not a file"


def why_no_file(path: Path) -> str:
    """Why a path is no file that can be read, as the end of a sentence; empty if it is one."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
            return ""
    except OSError as error:
        return _REASONS.get(error.errno, f"cannot be read ({error.strerror})")
    if stat.S_ISDIR(mode):
        last = path / "checkpoints" / "last.ckpt"
        return "is a folder" + (f" (its last checkpoint is {last})" if last.is_file() else "")
    return f"is {'a pipe' if stat.S_ISFIFO(mode) else 'a device or a socket'}, and not a file"


_REASONS: dict[int | None, str] = {
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.EACCES: "may not be read by this user (permission denied)",
    errno.ELOOP: "is a symbolic link that leads back to itself",
}


def open_whole(path: Path, prefix: str = "ckpt_path: ", what: str = "a checkpoint") -> BinaryIO:
    """Open a file of torch's and compare all of its checksums.

    Args:
        path: of the file.
        prefix: what messages begin with.
        what: it is to be.

    Raises:
        CheckpointError: there is no such file, it may not be read, is damaged, or holds more than plain data.
    """
    if reason := why_no_file(path):
        text = f"there is no file {path}" if reason == _MISSING else f"{path} {reason}. Name a .ckpt file."
        raise CheckpointError(f"{prefix}{text}")
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(path.open("rb"))
            fault = _fault(file)
            file.seek(0)
        except OSError as error:
            raise CheckpointError(f"{prefix}{path} cannot be read ({error.strerror})") from error
        if fault:
            raise CheckpointError(f"{prefix}{path} cannot be read as {what}: {fault}.")
        closing.pop_all()
    return file


def why_unusable(path: Path) -> str:
    """Why a file cannot be used as a checkpoint; empty if it is whole."""
    try:
        found = path.stat()
    except OSError:
        found = None
    return _why_unusable(path, *(() if found is None else (found.st_mtime_ns, found.st_size)))


@functools.lru_cache(maxsize=64)
def _why_unusable(path: Path, *_changed: int) -> str:
    try:
        open_whole(path).close()
    except CheckpointError as error:
        return str(error)
    return ""


def _fault(file: BinaryIO) -> str:
    """What is wrong with the content of a file; empty if nothing is."""
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if refusal := _refusal(archive, members, size):
                return refusal
            wrong = archive.testzip()
            if wrong is not None:
                return f"the file is damaged, as the checksum of {wrong!r} in it shows"
            (pickled,) = [one for one in members if one.filename.endswith("/data.pkl")]
            return _pickle_fault(archive.read(pickled))
    except OSError:
        raise
    except Exception as error:  # zipfile raises of all kinds over damaged files
        return f"the file is damaged or none of torch's ({type(error).__name__})"


def _refusal(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], size: int) -> str:
    for one in members:
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            ratio = one.file_size / max(1, one.compress_size)
            return f"{one.filename!r} in it is compressed ({ratio:,.0f} times; the limit is 1, as torch stores them)"
    stored = sum(one.file_size for one in members)
    if stored > size:
        return f"its members are {stored:,} bytes long, and the file is {size:,}: they overlap"
    if archive.comment or len({one.filename for one in members}) != len(members):
        return "the file is damaged or none of torch's (its list of members)"
    if min((one.header_offset for one in members), default=1) != 0:
        return "the file is damaged or none of torch's (it does not begin with a member)"
    return ""


def _pickle_fault(content: bytes) -> str:
    """Why the plain data in a file are not loaded; empty if they may be."""
    # Texts that look like one included. Only then is every code read, which takes seconds for a million of them.
    if {b" ".join(one) for one in _GLOBAL.findall(content)} <= _ALLOWED_BYTES:
        return ""
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("GLOBAL", "INST", "STACK_GLOBAL") and argument not in _ALLOWED:
            return f"it holds more than numbers and plain data ({argument}) and is not opened for safety"
    return ""
