"""The engine of stacks of small networks."""

from __future__ import annotations

from mlp_lightning.engines.stacked.engine import StackedEngine


class CompiledEngine(StackedEngine):
    """A stack whose steps are made by a kernel that is compiled for the processor.

    Its loop is a :class:`~mlp_lightning.engines.compiled.loop.CompiledLoop`; states and evaluation are the stack's.
    """

    name = "compiled"
