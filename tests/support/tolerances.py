"""How close numbers have to be, decided in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# What may differ between two orders of the same float32 sums.
ROUNDING = 1e-6


def assert_close(actual: Any, expected: Any, atol: float = ROUNDING) -> None:
    """Numbers, tensors, arrays or sequences of them, equal up to ``atol``; types and devices do not matter."""
    torch.testing.assert_close(_tensor(actual), _tensor(expected), rtol=0, atol=atol)


def assert_same_bits(actual: Any, expected: Any) -> None:
    """The same numbers to the last bit, of the same type and shape."""
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(expected), rtol=0, atol=0, equal_nan=True)


def assert_same_weights(actual: nn.Module | Iterable[Tensor], expected: nn.Module | Iterable[Tensor]) -> None:
    """The same parameters in the same order to the last bit, whatever their names."""
    for one, other in zip(_parameters(actual), _parameters(expected), strict=True):
        assert_same_bits(one, other)


def assert_same_state(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Two state dicts with the same names and the same bits."""
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_same_bits(actual[name], expected[name])


def _parameters(source: nn.Module | Iterable[Tensor]) -> list[Tensor]:
    found = list(source.parameters()) if isinstance(source, nn.Module) else list(source)
    assert found
    return [one.detach() for one in found]


def _tensor(numbers: Any) -> Tensor:
    if isinstance(numbers, (list, tuple)) and numbers and isinstance(numbers[0], Tensor):
        numbers = torch.stack(list(numbers))
    return torch.as_tensor(numbers).detach().double()
