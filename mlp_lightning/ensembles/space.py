"""The candidates of ``preset=best``: what may differ between them, and how it is drawn.

Candidates of one structure train as one stack, so there are few structures; the other options are drawn for each. The
ranges lie around the defaults for tables of this package. They were set by judgement and not by a search over tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from mlp_lightning.config import Config, EnsembleConfig, LoggerConfig, PresetConfig
from mlp_lightning.config.contradictions import contradictions
from mlp_lightning.config.ensembles import DRAWN
from mlp_lightning.tables.randomness import derived_seed

#: Options that make a stack: depth, embedding of numbers, residual blocks, and how many times the epochs.
_STRUCTURES: tuple[tuple[int, str, bool, int], ...] = (
    (2, "none", False, 1),
    (2, "piecewise_linear", False, 1),
    (3, "none", False, 1),
    (2, "periodic", False, 2),
    (1, "none", False, 1),
    (2, "none", True, 1),
)
_WIDTHS = (64, 128, 192, 256)
_DROPOUTS = (0.0, 0.05, 0.1, 0.2, 0.3)
_SMOOTHINGS = (0.0, 0.01, 0.05)
_LEARNING_RATES, _WEIGHT_DECAYS = (1.5e-3, 1.5e-2), (1e-2, 1.0)
_SEEDS = 2**63


def candidates(config: Config, has_classes: bool, has_numbers: bool) -> Iterator[tuple[Config, dict[str, Any]]]:
    """Candidates without end: the configuration itself, and then what is drawn around it.

    Args:
        config: of the whole run; its seed decides what is drawn.
        has_classes: whether labels can be smoothed.
        has_numbers: whether a column holds numbers, which can be embedded.

    Yields:
        The configuration of one network of the candidate, and the options in which it differs from ``config``.
    """
    quiet = {"logger": LoggerConfig(False, False, False), "ensemble": EnsembleConfig(), "preset": PresetConfig()}
    data = config.data
    if data.split_follows_seed:
        data = dataclasses.replace(data, split_seed=config.seed)
    # Nobody looks at the pictures and replays of candidates.
    callbacks = dataclasses.replace(config.callbacks, histograms_every_n_steps=None, snapshots=None)
    base = dataclasses.replace(config, data=data, callbacks=callbacks, **quiet)
    yield base, {}
    fixed = fixed_options(config)
    structures = _structures(base, fixed, has_classes, has_numbers)
    number = 0
    while True:
        options = _drawn(config, number, structures[number % len(structures)], has_classes, fixed)
        number += 1
        yield _with(dataclasses.replace(base, seed=(config.seed + number) % _SEEDS), options), options


def fixed_options(config: Config) -> set[str]:
    """The options in which no candidate differs: those that the user set, and what these leave no choice of."""
    fixed = set(config.preset.fixed)
    if "model.hidden_units" in fixed and isinstance(config.model.hidden_units, list):
        fixed.add("model.depth")
    if "model.depth" in fixed and not config.model.layer_widths:
        fixed |= {key for key in DRAWN if key.startswith("model.")}
    if config.optimizer.name != "AdamW":  # the ranges of the rates are those of AdamW
        fixed |= {key for key in DRAWN if key.startswith("optimizer.")}
    return fixed


def _structures(
    base: Config, fixed: Collection[str], has_classes: bool, has_numbers: bool
) -> list[tuple[int, str, bool, int]]:
    """Those that differ in an option that is not fixed, and do not contradict one that is."""
    found: dict[str, tuple[int, str, bool, int]] = {}
    for one in _STRUCTURES:
        if not has_numbers and one[1] != "none":
            continue
        options = _drawn(base, 0, one, has_classes, fixed)
        if not contradictions(_with(base, options)):
            found.setdefault(f"{options}", one)
    return [*found.values()]


def _drawn(
    config: Config, number: int, structure: tuple[int, str, bool, int], has_classes: bool, fixed: Collection[str]
) -> dict[str, Any]:
    random = np.random.default_rng(derived_seed(config.seed, f"preset/{number}"))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    depth, embedding, residual, times = structure
    width = int(random.choice(_WIDTHS))
    options: dict[str, Any] = {
        "model.hidden_units": width,
        "model.depth": depth,
        "model.numeric_embedding": embedding,
        "model.residual": residual,
        "model.dropout": float(random.choice(_DROPOUTS)),
        "optimizer.lr": float(f"{log_uniform(*_LEARNING_RATES):.3g}"),
        "optimizer.weight_decay": float(f"{log_uniform(*_WEIGHT_DECAYS):.3g}"),
    }
    if has_classes:
        options["trainer.label_smoothing"] = float(random.choice(_SMOOTHINGS))
    if times > 1 and config.trainer.max_epochs is not None:
        options["trainer.max_epochs"] = times * config.trainer.max_epochs
    if "weight_decay" not in config.optimizer.options:
        del options["optimizer.weight_decay"]
    return {key: value for key, value in options.items() if key not in fixed}


def _with(config: Config, options: Mapping[str, Any]) -> Config:
    for key, value in options.items():
        section, name = key.split(".")
        part = getattr(config, section)
        if section == "optimizer" and name != "lr":
            changed = dataclasses.replace(part, options={**part.options, name: value})
        else:
            changed = dataclasses.replace(part, **{name: value})
        config = dataclasses.replace(config, **{section: changed})
    return config
