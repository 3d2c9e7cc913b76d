"""Checkpoints that we put together are the files that torch writes."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict

import pytest
import torch

from mlp_lightning.runs import checkpoint_bytes as module
from mlp_lightning.runs.checkpoint_bytes import checkpoint_bytes


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


ROWS_43 = torch.arange(12.0).reshape(4, 3)
CONTENTS = {
    "numbers": {"a": 1, "b": [2.5, None, True, "text"], "c": {"d": (1, 2)}, 3: -(10**15)},
    "views of one storage": {"whole": ROWS_43, "row": ROWS_43[1], "turned": ROWS_43.t()},
    "no elements": {"empty": torch.empty(0), "scalar": torch.tensor(3), "wide": torch.empty(2, 0, 5)},
    "types": OrderedDict(
        (str(dtype), torch.ones(3).to(dtype))
        for dtype in (torch.float64, torch.int64, torch.uint8, torch.bfloat16, torch.int32, torch.bool, torch.complex64)
    ),
    "other tensors": {
        "learns": torch.ones(2, requires_grad=True),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "negated": torch.ones(2, dtype=torch.complex64).conj().imag,
        "sparse": torch.eye(2).to_sparse(),
        "one for all": torch.ones(1).expand(4),
    },
    "parameters": {"weight": torch.nn.Parameter(torch.randn(5, 2)), "size": torch.Size([1, 2]), "t": torch.int32},
    "long": {"x": torch.arange(100_000), "names": [f"name {number}" for number in range(3000)]},
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_bytes_are_torchs(content) -> None:
    assert module.file_of(*module.pickled(content)) == saved(content)
    written = checkpoint_bytes(content)
    assert zipfile.ZipFile(io.BytesIO(written)).testzip() is None
    assert str(torch.load(io.BytesIO(written), weights_only=True)) == str(content)


def test_another_torch_writes_its_own(monkeypatch) -> None:
    def other(content: object, file: io.BytesIO) -> None:
        file.write(b"another format")

    module.is_as_torch_writes.cache_clear()
    monkeypatch.setattr(torch, "save", other)
    assert checkpoint_bytes({"a": 1}) == b"another format"
    monkeypatch.undo()
    module.is_as_torch_writes.cache_clear()
    assert checkpoint_bytes({"a": 1}) == saved({"a": 1})
