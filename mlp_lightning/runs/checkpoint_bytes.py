"""The bytes that ``torch.save`` writes, in half of the time: a sweep saves two small checkpoints for every run.

``torch.save`` asks Python of every number and text whether it is a storage. Here only what may hold one is asked.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch._utils import _rebuild_tensor_v2
from torch.storage import TypedStorage


def checkpoint_bytes(content: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint as a file of torch's; its tensors are on the CPU."""
    return file_of(*pickled(content)) if is_as_torch_writes() else _saved(content)


@functools.cache
def is_as_torch_writes() -> bool:
    """Whether this version of torch writes the same bytes; if not, it writes them itself."""
    row_3 = torch.arange(3.0)
    example = {"a": row_3, "b": [row_3[1:], torch.tensor(1), 0.5, None], "c": OrderedDict(d="e"), "f": torch.int8}
    example["g"] = [torch.ones(2, 1, dtype=dtype).t() for dtype in (*_PLAIN, torch.float16)]
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


_PLAIN = {torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool}
_ALIGNMENT = 64
_MARKS = {".format_version": b"1", ".storage_alignment": str(_ALIGNMENT).encode(), "byteorder": b"little"}


class _Storage(NamedTuple):
    """Stands for torch's ``TypedStorage`` of a tensor, which takes as long to make as all else of it to pickle."""

    persistent_id: tuple[Any, ...]


@functools.cache
def _storage_class(dtype: torch.dtype) -> tuple[Any, int]:
    """The class that a storage is pickled as, and the bytes of a number."""
    example = torch.empty(0, dtype=dtype)
    return getattr(torch, cast("Any", example)._typed_storage()._pickle_storage_type()), example.element_size()


class _Pickler(pickle.Pickler):
    """Pickles tensors on the CPU by their storages, each of which becomes a record."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[int, tuple[str, torch.UntypedStorage]] = {}

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is _Storage:
            return obj.persistent_id
        if type(obj) is not TypedStorage:
            return None
        return self._id_of(obj._untyped_storage, getattr(torch, obj._pickle_storage_type()), obj._element_size())

    def _id_of(self, storage: torch.UntypedStorage, kind: Any, size: int) -> tuple[Any, ...]:
        key, _ = self.storages.setdefault(storage._cdata, (str(len(self.storages)), storage))
        return "storage", kind, key, "cpu", storage.nbytes() // size

    def reducer_override(self, obj: Any) -> Any:
        """What torch makes of a plain tensor, and Python of an empty dict; any other object says it itself."""
        if type(obj) is OrderedDict and not obj and not vars(obj):
            return OrderedDict, ()
        if type(obj) is not torch.Tensor or obj.dtype not in _PLAIN or obj.requires_grad or obj.__dict__:
            return NotImplemented
        if not obj.is_cpu or obj.layout is not torch.strided or obj.is_neg():
            return NotImplemented
        storage = _Storage(self._id_of(obj.untyped_storage(), *_storage_class(obj.dtype)))
        return _rebuild_tensor_v2, (storage, obj.storage_offset(), tuple(obj.shape), obj.stride(), False, OrderedDict())


def _saved(content: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
