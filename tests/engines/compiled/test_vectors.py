"""The functions of vectors, number by number, against torch and SciPy; and kernels for other processors."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from llvmlite import binding, ir
from support.stack_members import STACKED_ACTIVATIONS, Group, Member, together
from support.tolerances import assert_close, assert_same_bits

from mlp_lightning.engines.compiled import kernel
from mlp_lightning.engines.compiled.elementwise import ACTIVATIONS
from mlp_lightning.engines.compiled.loop import CompiledLoop
from mlp_lightning.engines.compiled.program import Writer
from mlp_lightning.engines.compiled.shape import Shape
from mlp_lightning.engines.compiled.vectors import INT, Code, Lanes
from mlp_lightning.engines.stacked.loop import StackedLoop
from mlp_lightning.networks.activations import ACTIVATIONS as OF_NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")


def applied(write: Callable[[Code, Any], Any], x_N: torch.Tensor, has_fma: bool = True) -> torch.Tensor:
    """What a function of vectors gives for numbers, as many as fill whole vectors."""
    lanes = Lanes(x_N.dtype == torch.float64, 8, has_fma)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [lanes.vectors, lanes.vectors, INT]), "apply")
    code = Code(function, lanes)
    source, target, count = function.args
    with code.loop(0, count) as at:
        code.store(write(code, code.load(source, at)), target, at)
    code.builder.ret_void()
    kernel.lanes_of(True)  # makes LLVM ready
    machine = binding.Target.from_default_triple().create_target_machine(opt=2)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    result_N = torch.empty_like(x_N)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
        engine.get_function_address("apply")
    )
    call(x_N.data_ptr(), result_N.data_ptr(), len(x_N) // 8)
    return result_N


FUNCTIONS: dict[str, tuple[Callable[[Code, Any], Any], Callable[[torch.Tensor], torch.Tensor], tuple[float, float]]] = {
    "exp": (Code.exp, torch.exp, (-80, 80)),
    "expm1": (Code.expm1, torch.expm1, (-20, 20)),
    "expm1 of small numbers": (Code.expm1, torch.expm1, (-1e-5, 1e-5)),
    "log": (Code.log, torch.log, (1e-10, 30)),
    "log near 1": (Code.log, torch.log, (0.9, 1.1)),
    "log1p": (Code.log1p, torch.log1p, (0, 1)),
    "log1p of small numbers": (Code.log1p, torch.log1p, (0, 1e-6)),
    "sigmoid": (Code.sigmoid, torch.sigmoid, (-40, 40)),
    "tanh": (Code.tanh, torch.tanh, (-12, 12)),
    "tanh of small numbers": (Code.tanh, torch.tanh, (-1e-4, 1e-4)),
    "erf": (Code.erf, torch.erf, (-7, 7)),
    "erf of small numbers": (Code.erf, torch.erf, (-1e-3, 1e-3)),
}


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "ulps"), [(torch.float32, 6), (torch.float64, 12)])
def test_a_function_is_right_to_a_few_units_of_the_last_place(
    name: str, dtype: torch.dtype, ulps: int, has_fma: bool
) -> None:
    write, reference, (low, high) = FUNCTIONS[name]
    draw = torch.Generator().manual_seed(1)
    x_N = (low + (high - low) * torch.rand(4096, generator=draw, dtype=torch.float64)).to(dtype)
    expected = reference(x_N.double())
    off = (applied(write, x_N, has_fma).double() - expected).abs() / expected.abs().clamp(min=1e-300)
    assert off.max() <= ulps * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "sigmoid", "tanh", "erf"])
def test_a_nan_stays_one(name: str) -> None:
    x_N = torch.tensor([0.5, float("nan")] * 4)
    assert applied(FUNCTIONS[name][0], x_N).isnan().tolist() == [False, True] * 4


@pytest.mark.parametrize("activation", STACKED_ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_and_their_gradients(activation: str, dtype: torch.dtype) -> None:
    """Far out and near 0 too, where they saturate or bend."""
    x_N = torch.cat([torch.linspace(-120, 120, 4000, dtype=dtype), torch.linspace(-0.01, 0.01, 96, dtype=dtype)])
    entry = ACTIVATIONS[activation]
    reference = x_N.clone().requires_grad_()
    expected = OF_NETWORKS[activation].module()(reference)
    expected.sum().backward()
    assert reference.grad is not None
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    output = applied(entry.forward, x_N)
    assert_close(output, expected.detach(), tolerance)
    kept = x_N if entry.keeps_input else output
    one = torch.ones_like(x_N)
    assert_close(
        applied(lambda code, k: entry.backward(code, code.number(1), k), kept), reference.grad * one, tolerance
    )


REAL = kernel._processor()
Run = Callable[[Group, kernel._Processor], list[Any]]


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Train a group as another processor does."""

    def run(group: Group, processor: kernel._Processor) -> list[Any]:
        monkeypatch.setattr(kernel, "_processor", lambda: processor)
        kernel.kernel_for.cache_clear()
        return together(group, 30)

    yield run
    kernel.kernel_for.cache_clear()


def group_of(dtype: torch.dtype, loop: Any = CompiledLoop, dropout: float = 0.0) -> Group:
    members = [Member((3 + number, 5), 0.01, seed=number, dropout=dropout * (number % 2)) for number in range(9)]
    return Group(members, "Adam", activation="gelu", batch_size=16, own_rows=True, dtype=dtype, loop=loop)


@pytest.mark.parametrize("has_fma", [True, False])
@pytest.mark.parametrize(("vector_bytes", "sums"), [(16, 16), (32, 8), (64, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_vectors_give_the_same_bits(
    vector_bytes: int, sums: int, dtype: torch.dtype, has_fma: bool, run_on: Run
) -> None:
    """Those of processors without AVX-512, and of ones without AVX or with few registers."""
    processor = REAL._replace(has_fma=has_fma)
    group = group_of(dtype, dropout=0.1)
    expected = run_on(group, processor)
    outcomes = run_on(group, processor._replace(vector_bytes=vector_bytes, sums=sums))
    for outcome, other in zip(outcomes, expected, strict=True):
        assert_same_bits(outcome.losses, other.losses)
        for one, two in zip(outcome.weights, other.weights, strict=True):
            assert_same_bits(one, two)


# Without AVX, with AVX alone, and one of today that says that it has none.
OLD = [
    REAL._replace(name="x86-64", features="", vector_bytes=16, sums=8, has_fma=False),
    REAL._replace(name="ivybridge", features="", vector_bytes=32, sums=8, has_fma=False),
    REAL._replace(has_fma=False),
]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names processors of one kind")
@pytest.mark.parametrize("number", range(len(OLD)))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_processor_without_fma(number: int, dtype: torch.dtype, tolerance: float, run_on: Run) -> None:
    """The network is that of torch, and the kernel's code calls no library for a product."""
    outcomes = run_on(group_of(dtype), OLD[number])
    for outcome, other in zip(outcomes, together(group_of(dtype, StackedLoop), 30), strict=True):
        assert_close(outcome.losses, other.losses, tolerance)
        for one, two in zip(outcome.weights, other.weights, strict=True):
            assert_close(one, two, tolerance)
    shapes: list[Shape] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel.Kernel, "__init__", lambda self, shape: shapes.append(shape))
        patch.setattr(kernel.Kernel, "__call__", lambda self, arguments: None)
        run_on(group_of(dtype, dropout=0.1), OLD[number])
    assert any(shape.drops for shape in shapes)
    for shape in shapes:
        lanes = Lanes(shape.is_double, kernel.lanes_of(shape.is_double), OLD[number].has_fma)
        assert "llvm.fma" not in str(Writer(shape, lanes, OLD[number].sums).module)


@pytest.mark.parametrize(
    ("features", "machine", "expected"),
    [
        ({"sse2": True}, "x86_64", False),
        ({"avx": True, "fma": False}, "AMD64", False),
        ({"avx": True, "fma4": True}, "x86_64", True),
        ({"avx2": True, "fma": True}, "x86_64", True),
        ({}, "arm64", True),
    ],
)
def test_what_a_processor_says_of_fma(
    features: dict[str, bool], machine: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: binding.targets.FeatureMap(features))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert kernel._processor.__wrapped__().has_fma == expected
