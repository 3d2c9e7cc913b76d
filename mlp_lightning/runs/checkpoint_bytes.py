"""The bytes that ``torch.save`` writes, in half of the time: a sweep saves two small checkpoints for every run.

``torch.save`` asks Python of every number and text whether it is a storage. Here only what may hold one is asked.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.storage import TypedStorage


def checkpoint_bytes(content: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint as a file of torch's; its tensors are on the CPU."""
    return file_of(*pickled(content)) if is_as_torch_writes() else _saved(content)


@functools.cache
def is_as_torch_writes() -> bool:
    """Whether this version of torch writes the same bytes; if not, it writes them itself."""
    row_3 = torch.arange(3.0)
    example = {"a": row_3, "b": [row_3[1:], torch.tensor(1), 0.5, None], "c": OrderedDict(d="e"), "f": torch.int8}
    try:
        return file_of(*pickled(example)) == _saved(example)
    except Exception:  # what it raises if its inner functions are others
        return False


def pickled(content: Mapping[str, Any]) -> tuple[bytes, list[torch.UntypedStorage]]:
    """The content without its numbers, and the storages that have them, in the order in which they are met."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(content)
    return file.getvalue(), [storage for _, storage in pickler.storages.values()]


def file_of(data_pkl: bytes, storages: Sequence[torch.UntypedStorage]) -> bytes:
    """The file that :func:`pickled` has taken apart."""
    file = io.BytesIO()
    writer: Any = torch._C.PyTorchFileWriter(file, True, _ALIGNMENT)
    for name, record in {"data.pkl": data_pkl, **_MARKS}.items():
        writer.write_record(name, record, len(record))
    for number, storage in enumerate(storages):
        writer.write_record(f"data/{number}", storage, storage.nbytes())
    writer.write_end_of_file()
    return file.getvalue()


_ALIGNMENT = 64
_MARKS = {".format_version": b"1", ".storage_alignment": str(_ALIGNMENT).encode(), "byteorder": b"little"}


class _Pickler(pickle.Pickler):
    """Pickles tensors on the CPU by their storages, each of which becomes a record."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[int, tuple[str, torch.UntypedStorage]] = {}

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not TypedStorage:
            return None
        storage = obj._untyped_storage
        key, _ = self.storages.setdefault(storage._cdata, (str(len(self.storages)), storage))
        return "storage", getattr(torch, obj._pickle_storage_type()), key, "cpu", obj._size()


def _saved(content: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
