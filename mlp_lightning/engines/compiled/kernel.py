"""The kernel: many optimizer steps of a block of members, one member in each lane of the processor's vectors.

A block's weights, gradient and optimizer state stay in the cache for all of these steps, and no step leaves the
kernel. Widths are known at run time, so that one kernel serves all networks of one depth and one way of training. It is
compiled in memory by LLVM (of the package ``llvmlite``, which needs no compiler on the machine) in about a third of a
second.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import NamedTuple

from llvmlite import binding

from mlp_lightning.engines.compiled.program import Writer
from mlp_lightning.engines.compiled.shape import ROWS, Arguments, Shape
from mlp_lightning.engines.compiled.vectors import Lanes


class _Processor(NamedTuple):
    """What kernels are written for.

    Attributes:
        name: LLVM's name of it.
        features: that it has, as LLVM takes them.
        vector_bytes: of a vector.
        sums: how many sums its registers hold beside what is multiplied.
        has_fma: whether it multiplies and adds at once, rounding once.
    """

    name: str
    features: str
    vector_bytes: int
    sums: int
    has_fma: bool


@functools.cache
def _processor() -> _Processor:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    try:
        found = binding.get_host_cpu_features()
        features = found.flatten()
    except RuntimeError:  # LLVM does not know how to ask this system
        found, features = {}, ""
    if found.get("avx512f"):
        # Some processors are said to prefer vectors of half the size, which is not so for arithmetic alone.
        features += ",-prefer-256-bit"
    size = 64 if found.get("avx512f") else 32 if found.get("avx") else 16
    is_arm64 = platform.machine().lower() in ("arm64", "aarch64")
    sums = 16 if found.get("avx512f") or is_arm64 else 8
    has_fma = is_arm64 or any(found.get(one) for one in ("fma", "fma4", "avx512f"))
    return _Processor(binding.get_host_cpu_name(), features, size, sums, has_fma)


def lanes_of(is_double: bool) -> int:
    """Members of a block, L."""
    return _processor().vector_bytes // (8 if is_double else 4)


def rows_together(rows: int) -> int:
    """R for steps of ``rows`` rows: so that few are worked out beside these, and else as many as registers allow."""
    most = min(ROWS, _processor().sums // 2, rows)
    return min(range(most, most // 2, -1), key=lambda together: -(-rows // together) * together)


class Kernel:
    """A compiled kernel; calling it does not hold Python's lock.

    Args:
        shape: what it is for.
    """

    def __init__(self, shape: Shape) -> None:
        processor = _processor()
        lanes = Lanes(shape.is_double, lanes_of(shape.is_double), processor.has_fma)
        module = binding.parse_assembly(str(Writer(shape, lanes, processor.sums).module))
        module.verify()
        # The engine owns it, and so each has another.
        target = binding.Target.from_default_triple()
        machine = target.create_target_machine(processor.name, processor.features, opt=3)
        tuning = binding.create_pipeline_tuning_options(speed_level=3)
        # Vectors are written out, and so are tiles.
        tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
        builder = binding.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)
        self._engine = binding.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        address = self._engine.get_function_address("train")
        self._function = ctypes.CFUNCTYPE(None, ctypes.POINTER(Arguments))(address)

    def __call__(self, arguments: Arguments) -> None:
        self._function(ctypes.byref(arguments))


@functools.lru_cache(maxsize=64)
def kernel_for(shape: Shape) -> Kernel:
    """The kernel of a shape, compiled once per process."""
    return Kernel(shape)
