"""Further columns of predictions: intervals for the value, and quantiles of what the members of an ensemble predict.

Shapes: ``K`` members, ``G`` folds, ``B`` rows, ``T`` targets, ``N`` rows that calibrate, ``Q`` quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.conformal import Floats, cv_plus, least_count, split_half_widths
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.runs.calibration import USES, Calibration

_HOW_TO_KEEP = "train with data.val_fraction=0.2, data.cv.folds=5 or preset=best"


class FurtherColumns:
    """What predictions have besides the value.

    Args:
        model: to predict with.
        interval: the share of new rows whose value is to lie between ``lower_<target>`` and ``upper_<target>``, above 0
            and below 1; ``None`` for none. Each target has intervals by itself.
        member_quantiles: from 0 to 1, in ascending order; ``None`` for none. ``member_q0.1_<target>`` is the value up
            to which a tenth of the members of an ensemble predict, by their weights. That is how far they agree, and no
            interval for the value: the noise of the targets is not in it.

    Raises:
        ConfigError: the model cannot have such columns.
    """

    def __init__(
        self, model: TrainedModel, interval: float | None = None, member_quantiles: Sequence[float] | None = None
    ) -> None:
        if faults := [*_faults_of_interval(model, interval), *_faults_of_quantiles(model, member_quantiles)]:
            raise ConfigError(faults)
        self._module = model.module
        self._calibration = model.calibration
        self._level = interval
        self._shares = list(member_quantiles or ())
        self._weights_K: Sequence[float] = model.module.weights_K if isinstance(model.module, Ensemble) else [1.0]
        bounds = () if interval is None else ("lower", "upper")
        prefixes = [*bounds, *(f"member_q{share:g}" for share in self._shares)]
        self.names = [f"{prefix}_{name}" for prefix in prefixes for name in model.target.names]
        self._by_time_or_group = [
            key for key in ("time_column", "group_column") if getattr(model.config.data, key) is not None
        ]

    def __call__(self, predictions_KBT: Tensor) -> Tensor:
        """The columns called :attr:`names`, ``(B, …)``, from the predictions of all members in double precision."""
        parts = [] if self._level is None else [*self._bounds(predictions_KBT.numpy())]
        if self._shares:
            assert isinstance(self._module, Ensemble)
            parts += [one.numpy() for one in self._module.quantiles(predictions_KBT, self._shares)]
        none = np.empty((predictions_KBT.shape[1], 0))
        return torch.from_numpy(np.concatenate([none, *parts], axis=1))

    def _bounds(self, predictions_KBT: Floats) -> tuple[Floats, Floats]:
        assert self._calibration is not None
        assert self._level is not None
        known, weights_K = self._calibration, np.asarray(self._weights_K)
        if known.fold_N is None:
            half_T = split_half_widths(known.residuals_NT, self._level)
            mean_BT = np.tensordot(weights_K, predictions_KBT, 1)
            return mean_BT - half_T, mean_BT + half_T
        folds, fold_of_member = np.unique(known.fold_N), np.asarray(known.fold_of_member)
        of_folds = []
        for fold in folds:
            here = fold_of_member == fold
            of_folds.append(np.tensordot(weights_K[here] / weights_K[here].sum(), predictions_KBT[here], 1))
        number_N = np.searchsorted(folds, known.fold_N)
        return cv_plus(np.stack(of_folds), known.residuals_NT, number_N, self._level)

    def notes(self) -> list[str]:
        """What the intervals rest on, and what share of new rows lies inside."""
        if self._level is None or self._calibration is None:
            return []
        known, level = self._calibration, self._level
        count, is_cv = len(known.residuals_NT), known.fold_N is not None
        rows = "rows that folds held out (CV+)" if is_cv else "validation rows (split conformal)"
        lines = [f"Intervals for {level:.6g} of new rows, from the residuals of {count:,} {rows}"]
        if known.used_for:
            uses = " and ".join(USES[one] for one in known.used_for)
            lines.append(
                f"These rows also {uses}, so their residuals are a little too small and fewer new rows may lie inside:"
                f" {_how_to_be_sure(known)}"
            )
        elif is_cv:
            assured = max(0.0, 1 - 2 * (1 - level) - math.sqrt(2 / count))
            lines.append(
                f"For rows that are drawn as these were, a share of at least {assured:.3g} is proven, and about"
                f" {level:.6g} is usual"
            )
        else:
            lines.append(f"For rows that are drawn as these were, a share of at least {level:.6g} is proven")
        if self._by_time_or_group:
            named = " and ".join(f"data.{one}" for one in self._by_time_or_group)
            lines.append(f"The training split rows by {named}: rows of another time or group may be off more often")
        return lines


def _how_to_be_sure(known: Calibration) -> str:
    if "selection" in known.used_for:
        return "count how many of your test rows do"
    if known.fold_N is not None:
        return "train with data.cv.held_out_as=test to be sure"
    return "train with data.cv.folds=5, or with report_weights=last and without early stopping, to be sure"


def _faults_of_interval(model: TrainedModel, level: float | None) -> list[Fault]:
    if level is None:
        return []
    if not 0 < level < 1:
        return [Fault("interval", level, "must be greater than 0 and less than 1", "for example 0.9")]
    if model.target.task != "regression":
        rule = f"is for numbers, and the task of the model is {model.target.task}"
        return [Fault("interval", level, rule, "leave it out: the probabilities say how sure the model is")]
    if model.calibration is None:
        rule = "needs residuals of rows that the model did not train on, and its checkpoint has none"
        return [Fault("interval", level, rule, _HOW_TO_KEEP)]
    count, least = len(model.calibration.residuals_NT), least_count(level)
    if count < least:
        highest = math.floor(1000 * count / (count + 1)) / 1000
        rule = f"needs the residuals of at least {least:,} rows, and the checkpoint has {count:,}"
        return [Fault("interval", level, rule, f"the highest level with these is {highest:g}")]
    return []


def _faults_of_quantiles(model: TrainedModel, shares: Sequence[float] | None) -> list[Fault]:
    if shares is None:
        return []
    key, given = "member_quantiles", list(shares)
    if not given or any(not 0 <= one <= 1 for one in given) or sorted(set(given)) != given:
        return [Fault(key, given, "must be numbers from 0 to 1 in ascending order", "for example [0.1,0.5,0.9]")]
    if not model.is_ensemble:
        return [Fault(key, given, "is for ensembles, and the model is a single network", "leave it out")]
    if model.target.task != "regression":
        rule = f"is for numbers, and the task of the model is {model.target.task}"
        return [Fault(key, given, rule, "leave it out: std_<target> says how far its members agree")]
    return []
