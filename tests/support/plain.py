"""Contents of checkpoints in a form that compares with ``==``, to the bit."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def plain(value: Any) -> Any:
    """Tensors as their bytes, dicts and lists likewise."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
