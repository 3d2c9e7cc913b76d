"""Which runs of a sweep may train as one stack: a pure function of their configurations and sizes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.config.shared import SECTIONS, Remembered
from mlp_lightning.engines.support import stacked_refuses
from mlp_lightning.errors import MLPLightningError

# Members of one stack may differ in these options and in no others (not in depth, for example).
_MAY_DIFFER = ("seed", "name", "verbosity", "sweep", "search", "data.suggested_lr", "data.cv", "data.split_seed")
_MAY_DIFFER_TOO = (
    "model.hidden_units",
    "model.init",
    "model.dropout",
    "optimizer.lr",
    "optimizer.weight_decay",
    "trainer.label_smoothing",
)
# A product of small matrices takes as long as one with this many multiply-adds.
_LEAST_MULTIPLY_ADDS = 1000
# Zero-padding may at most double the arithmetic.
_MAX_PADDING = 2.0
# Largest ratio between the arithmetic of a padded member and that of the smallest member.
_MAX_RATIO = 8.0
# Weights, gradient, learning rates, decays, initial weights; optimizer state (up to 3), and best of all of these.
_NUMBERS_PER_WEIGHT = 12
# Buffers per hidden unit and row: input, output, after dropout, gradient, mask, product.
_NUMBERS_PER_UNIT = 6
# Loss, metric and learning rate of a logged step, in double precision, twice while they are concatenated.
_BYTES_PER_LOGGED_STEP = 3 * 8 * 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of one run, which follow from its data set and its configuration.

    Attributes:
        in_features: F.
        out_features: C.
        rows_per_step: rows that an optimizer step sees.
        rows: rows of all splits.
        steps: optimizer steps of the run.
        steps_per_epoch: of the training rows.
        embedded: how many features are numbers, and how many categories whose embedding is learned.
    """

    in_features: int
    out_features: int
    rows_per_step: int
    rows: int
    steps: int
    steps_per_epoch: int = 1
    embedded: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How runs are grouped.

    Attributes:
        stacks: groups of indices into the list of runs; each group trains as one stack.
        alone: indices of the runs that train alone, each with the reason.
    """

    stacks: list[list[int]]
    alone: list[tuple[int, str]]


def group_runs(
    configs: Sequence[Config], sizes_of: Callable[[Config], Sizes], memory: int, stacks_at_least: int = 1
) -> Grouping:
    """Group the runs that differ only in what the members of a stack may differ in.

    Stacks are cut so that no more than ``memory`` is used, and so that zero-padding at most doubles the arithmetic
    (widths of 4 and 4,096 do not belong together).

    Args:
        configs: of the runs.
        sizes_of: returns the sizes of a run; called once for each group, for tables once for each run. A run for
            which it raises trains alone and reports the error.
        memory: bytes that one stack may take.
        stacks_at_least: cut stacks further until there are this many, to spread them over as many processes.
    """
    alone: list[tuple[int, str]] = []
    groups: dict[str, list[int]] = {}
    reasons: dict[tuple[Any, ...], str] = {}
    for index, config in enumerate(configs):
        # Runs with the same sections have the same reason.
        key = config.ckpt_path, *(id(getattr(config, name)) for name in SECTIONS if name not in _MAY_DIFFER)
        if key not in reasons:
            reasons[key] = why_alone(config)
        reason = reasons[key]
        if reason:
            alone.append((index, reason))
        else:
            groups.setdefault(group_key(config), []).append(index)
    stacks: list[list[int]] = []
    for indices, sizes in _of_equal_sizes(groups.values(), configs, sizes_of, alone):
        stacks += _cut([(index, configs[index]) for index in indices], sizes, memory)
    while stacks and len(stacks) < stacks_at_least and max(map(len, stacks)) > 1:
        largest = max(stacks, key=len)
        stacks.remove(largest)
        middle = len(largest) // 2
        stacks += [largest[:middle], largest[middle:]]
    alone += [(one[0], "no other run has its shape") for one in stacks if len(one) == 1]
    return Grouping(sorted(sorted(one) for one in stacks if len(one) > 1), sorted(alone))


def _of_equal_sizes(
    groups: Iterable[list[int]],
    configs: Sequence[Config],
    sizes_of: Callable[[Config], Sizes],
    alone: list[tuple[int, str]],
) -> Iterator[tuple[list[int], Sizes]]:
    """Split groups by numbers of features and steps; runs that cannot be stacked are added to ``alone``.

    Which features there are depends on the training rows, and so on the seed and the fold.
    """
    for indices in groups:
        of_sizes: dict[tuple[int, ...], tuple[list[int], Sizes]] = {}
        for index in indices:
            try:
                sizes = sizes_of(configs[index])
            except MLPLightningError:
                alone.append((index, "its data cannot be used"))
                continue
            # Equal batches, unless an epoch is one step: then members with fewer rows are padded.
            batch = sizes.rows_per_step if sizes.steps_per_epoch > 1 else 0
            features = (sizes.in_features, sizes.out_features, *sizes.embedded)
            key = (*features, sizes.steps, sizes.steps_per_epoch, batch)
            of_sizes.setdefault(key, ([], sizes))[0].append(index)
        yield from of_sizes.values()


def why_alone(config: Config) -> str:
    """Why a run cannot be a member of a stack; empty if it can."""
    if config.ckpt_path is not None:
        return "it continues from a checkpoint"
    wanted = config.trainer.engine
    return f"trainer.engine = {wanted}" if wanted in ("autograd", "explicit") else stacked_refuses(config)


def group_key(config: Config) -> str:
    """The options that must be the same in all members of a stack."""
    texts = [
        f"{name}: {_text_of_key[name](one) if name in _text_of_key else json.dumps(one)}"
        for name, one in config.sections().items()
        if name not in _MAY_DIFFER
    ]
    return "\n".join([*texts, f"depth: {len(config.model.layer_widths)}"])


def _common(name: str, section: Mapping[str, Any]) -> str:
    """What a section must have in common, as text."""
    differing = {"model.depth", *_MAY_DIFFER, *_MAY_DIFFER_TOO}
    content = {key: one for key, one in section.items() if f"{name}.{key}" not in differing}
    if name == "data":  # folds of other rows may differ, but not in which splits they have
        content["cv"] = section["cv"]["held_out_as"]
    return json.dumps(content, sort_keys=True)


_text_of_key = {name: Remembered(functools.partial(_common, name)) for name in SECTIONS}


def _cut(members: Sequence[tuple[int, Config]], sizes: Sizes, memory: int) -> Iterator[list[int]]:
    """Cut a group into stacks, narrowest runs first, each as large as padding and memory allow."""
    widths = {index: [sizes.in_features, *_hidden(one), sizes.out_features] for index, one in members}
    config = members[0][1]
    logged = sizes.steps // config.trainer.log_every_n_steps + 1
    bytes_per_number = 8 if config.trainer.precision == "64" else 4
    stack: list[int] = []
    widest: list[int] = []
    arithmetic = smallest = 0
    for index in sorted(widths, key=lambda one: (_arithmetic(widths[one], sizes.rows_per_step), widths[one], one)):
        wider = [max(pair) for pair in zip(widest or widths[index], widths[index], strict=True)]
        own = _arithmetic(widths[index], sizes.rows_per_step)
        each = _arithmetic(wider, sizes.rows_per_step)
        padded = (len(stack) + 1) * each
        used = (len(stack) + 1) * _bytes(wider, sizes, logged, bytes_per_number)
        too_much = padded > _MAX_PADDING * (arithmetic + own) or each > _MAX_RATIO * smallest
        if stack and (too_much or used > memory):
            yield stack
            stack, arithmetic, wider = [], 0, widths[index]
        if not stack:
            smallest = own
        stack.append(index)
        widest, arithmetic = wider, arithmetic + own
    if stack:
        yield stack


def _hidden(config: Config) -> list[int]:
    hidden = config.model.layer_widths
    return hidden[:1] * (1 + 2 * len(hidden)) if config.model.residual else hidden


def _arithmetic(widths: Sequence[int], rows: int) -> int:
    """Multiply-adds of one forward pass; the backward pass takes twice as many for any network."""
    return sum(max(rows * a * b, _LEAST_MULTIPLY_ADDS) for a, b in itertools.pairwise(widths))


def _bytes(widths: Sequence[int], sizes: Sizes, logged: int, bytes_per_number: int) -> int:
    """Memory of one member in a stack with the given ``widths``."""
    weights = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    units = sum(widths[1:-1])
    numbers = _NUMBERS_PER_WEIGHT * weights + _NUMBERS_PER_UNIT * units * sizes.rows_per_step
    numbers += 2 * sizes.rows * (sizes.in_features + sizes.out_features)
    return numbers * bytes_per_number + logged * _BYTES_PER_LOGGED_STEP
