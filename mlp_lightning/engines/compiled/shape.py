"""What a kernel is compiled for and called with.

Shapes: ``L`` lanes, ``P`` vectors of the weights of a block, ``S`` steps, ``B`` rows of a step, ``R`` rows that are
worked out together, ``F`` features, ``C`` outputs, ``U`` hidden units of all layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Rows that are worked out together, at most: R.
ROWS = 8


class Shape(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        is_double: whether numbers have 64 bits.
        depth: number of hidden layers.
        rows: R.
        shared: whether all members see the same rows in the same order.
        activation: of the hidden layers.
        task: whose loss it is.
        bias: whether layers have biases.
        masked: whether units that a member lacks have to be set to 0.
        drops: whether there is dropout.
        smoothed: whether labels are smoothed.
        optimizer: name of torch's class.
        options: its arguments, without learning rate and weight decay.
        decay: ``""``, ``coupled`` (added to the gradient) or ``decoupled`` (a factor of the weights).
        clip: ``""``, ``norm`` or ``value``.
    """

    is_double: bool
    depth: int
    rows: int
    shared: bool
    activation: str
    task: str
    bias: bool
    masked: bool
    drops: bool
    smoothed: bool
    optimizer: str
    options: tuple[tuple[str, Any], ...]
    decay: str
    clip: str


POINTERS = (
    *("widths", "strides", "weights", "gradient", "states", "rates", "factors", "decay", "mask", "smoothing", "clip"),
    *("features", "targets", "order", "share", "losses", "logits", "scratch"),
    *("seeds", "kept"),
)
COUNTS = ("size", "rows", "steps", "row_step", "rate_step", "log_from", "log_every", "first_step")
POINTERS_TO_INTS = ("widths", "strides", "order")
POINTERS_TO_NUMBERS = ("factors", "features", "targets")


class Arguments(ctypes.Structure):
    """What a kernel is called with; all arrays have numbers of its precision.

    ``widths`` are those of the block, ``strides`` those of the memory that it has in the stack: both ``(depth + 2,)``.
    ``weights``, ``gradient`` and ``states`` are ``(P, L)`` each, the states one after another. ``features (…, F)`` and
    ``targets (…, C)`` have all rows; ``order`` says which of them a step sees: ``(S * B,)``, or ``(S * B, L)`` unless
    rows are shared, ``share`` likewise how much each counts. (With ``row_step`` 0 all steps see the first ``B``.)
    ``rates`` are ``(S, L)``, with ``rate_step`` 0 of the first step for all; ``factors (S, …)`` are the rule's.
    ``mask (U, L)`` has all hidden units of the stack.
    With dropout, ``seeds (3, L)`` are words: both halves of the keys of the masks, and the smallest word that is kept;
    ``kept (L,)`` is the factor of what is kept.
    ``losses (S, L)`` and ``logits (logged steps, B rounded up to R, C, L)`` are written.
    """

    _fields_ = [*((name, ctypes.c_void_p) for name in POINTERS), *((name, ctypes.c_int64) for name in COUNTS)]


def scratch_vectors(shape: Shape, widths: Sequence[int]) -> int:
    """Vectors of scratch memory of one call."""
    inner, depth = sum(widths[1:-1]), len(widths) - 2
    of_dropout = inner + 2 * depth + 2 if shape.drops else 0
    return shape.rows * (widths[0] + 2 * widths[-1] + 3 * inner + 1 + of_dropout)
