"""What an entry of the activations promises, whichever there are."""

from __future__ import annotations

import pytest
import torch
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.networks.activations import ACTIVATIONS

WRITTEN_OUT = {name: one.written_out for name, one in ACTIVATIONS.items() if one.written_out is not None}
# Both sides of 0 and of the places where an activation becomes linear.
INPUTS = torch.cat([torch.linspace(-30, 30, 401), torch.tensor([1e-9, -1e-9, 6.0, 20.0])])


def test_some_are_written_out_and_some_are_not() -> None:
    assert set(ACTIVATIONS) > set(WRITTEN_OUT) > set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_written_out_gradient_is_that_of_autograd(name: str, dtype: torch.dtype) -> None:
    entry, tolerance = WRITTEN_OUT[name], 1e-6 if dtype == torch.float32 else 1e-13
    inputs = INPUTS.to(dtype).requires_grad_()
    expected = ACTIVATIONS[name].module()(inputs)
    above = torch.linspace(-2, 2, len(inputs), dtype=dtype)
    (expected_gradient,) = torch.autograd.grad(expected, inputs, above)
    z = inputs.detach().clone()
    out, gradient = torch.empty_like(z) if entry.keeps_input else z, above.clone()
    entry.forward(z, out)
    entry.backward(gradient, z if entry.keeps_input else out)
    assert_close(out, expected.detach(), tolerance * 30)
    assert_close(gradient, expected_gradient, tolerance * 4)
    if entry.keeps_input:
        assert_same_bits(z, inputs.detach())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_training_and_evaluation_are_the_same(name: str) -> None:
    """The autograd engine does not switch between the two for networks of activations alone."""
    module = ACTIVATIONS[name].module()
    assert_same_bits(module.train()(INPUTS), module.eval()(INPUTS))
    assert not list(module.parameters())
