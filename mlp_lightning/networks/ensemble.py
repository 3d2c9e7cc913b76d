"""Several trained networks as one model: the weighted mean of their predictions.

Shapes: ``K`` members, ``G`` preprocessors, ``B`` rows, ``F`` columns, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import Task
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN


class Ensemble(nn.Module):
    """The mean of the predictions of K networks: of probabilities for classes, of values for numbers.

    It takes the columns that any member takes. Members that were trained on other rows (the folds of a table) have
    separate preprocessors, perhaps with other columns and categories; a category that a member does not know is
    unknown to it alone.

    The mean of probabilities is the linear opinion pool (Stone, 1961); its log loss and Brier score are never above
    the weighted mean of those of the members, since both are convex.

    Args:
        preprocessors: G of them, fitted.
        networks: K of them, each from the features of its preprocessor to logits.
        group_K: for each network the number of its preprocessor.
        tasks: of each network, with the statistics of its targets.
        weights_K: of their predictions in the mean; not negative, with the sum 1.
        hparams: what it is made of, as plain data.
        own_parts: the user's own parts of every network, with which ``hparams`` make it again.
        temperature: logits of the mean are divided by it (Guo et al., "On calibration of modern neural networks", 2017,
            section 4.2).
    """

    def __init__(
        self,
        preprocessors: Sequence[Preprocessor],
        networks: Sequence[nn.Module],
        group_K: Sequence[int],
        tasks: Sequence[Task],
        weights_K: Sequence[float],
        hparams: Mapping[str, Any],
        own_parts: Mapping[str, Any],
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        counts = {len(networks), len(group_K), len(tasks), len(weights_K)}
        if len(counts) > 1 or not networks:
            raise ValueError("networks, group_K, tasks and weights_K must be equally many, and at least one")
        if not (all(one >= 0 for one in weights_K) and abs(sum(weights_K) - 1) < 1e-9):
            raise ValueError(f"weights_K = {list(weights_K)} must be numbers of at least 0 with the sum 1")
        self.preprocessors = nn.ModuleList(preprocessors)
        self.networks = nn.ModuleList(networks)
        self.group_K = tuple(group_K)
        self.tasks = tuple(tasks)
        self.columns = union_of_columns([one.columns for one in preprocessors])
        self._recodings = nn.ModuleList(_Recoding(self.columns, one.columns) for one in preprocessors)
        self.hparams, self.own_parts = hparams, own_parts
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature = {temperature} must be a number above 0")
        self.weights_K, self.temperature = tuple(weights_K), temperature

    @property
    def task(self) -> Task:
        """What all of them learned."""
        return self.tasks[0]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.networks.parameters()).device

    def member_predictions(self, raw_BF: Tensor) -> Tensor:
        """What each member predicts of raw columns ``(B, F)``: ``(K, B, C)`` in double precision."""
        features = [
            preprocessor(recoding(raw_BF))
            for preprocessor, recoding in zip(self.preprocessors, self._recodings, strict=True)
        ]
        predictions = []
        for network, group, task in zip(self.networks, self.group_K, self.tasks, strict=True):
            parameter = next(network.parameters())
            logits_BC = network(features[group].to(parameter.device, parameter.dtype))
            predictions.append(task.predictions(logits_BC.double() if logits_BC.device.type != "mps" else logits_BC))
        return torch.stack(predictions)

    def predict(self, raw_BF: Tensor) -> Tensor:
        """The mean of the members' predictions at the temperature, ``(B, C)``."""
        return self.mean(self.member_predictions(raw_BF))

    def forward(self, raw_BF: Tensor) -> Tensor:
        """Logits of the mean prediction, as the first member would have them."""
        return self.task.logits(self.predict(raw_BF))

    def mean(self, predictions_KBC: Tensor) -> Tensor:
        """The weighted mean over the members at the temperature, ``(B, C)``."""
        mean_BC = (self._weights(predictions_KBC) * predictions_KBC).sum(0)
        return mean_BC if self.temperature == 1 else self.task.predictions(self.task.logits(mean_BC) / self.temperature)

    def spread(self, predictions_KBC: Tensor) -> Tensor:
        """The weighted standard deviation between the members, ``(B, C)``, in the unit of the predictions."""
        weights_K11 = self._weights(predictions_KBC)
        apart_KBC = predictions_KBC - (weights_K11 * predictions_KBC).sum(0)
        return (weights_K11 * apart_KBC.square()).sum(0).sqrt()

    def quantiles(self, predictions_KBC: Tensor, shares: Sequence[float]) -> Tensor:
        """For each share the least prediction up to which members of that share of the weight lie, ``(Q, B, C)``."""
        ordered_KBC, order_KBC = predictions_KBC.sort(dim=0)
        up_to_KBC = predictions_KBC.new_tensor(self.weights_K)[order_KBC].cumsum(0)
        # Rounding must not move a share off the border of two members.
        places = [(up_to_KBC < share - 1e-12).sum(0, keepdim=True) for share in shares]
        return torch.cat([ordered_KBC.gather(0, one.clamp(max=len(ordered_KBC) - 1)) for one in places])

    def _weights(self, predictions_KBC: Tensor) -> Tensor:
        return predictions_KBC.new_tensor(self.weights_K)[:, None, None]


def union_of_columns(of_groups: Sequence[Sequence[Column]]) -> tuple[Column, ...]:
    """The columns that any group has, each with the categories of all of them, in the order of their appearance.

    Raises:
        ValueError: two groups read a column differently.
    """
    found: dict[str, Column] = {}
    for columns in of_groups:
        for one in columns:
            known = found.setdefault(one.name, one)
            if (known.kind, known.type, known.format) != (one.kind, one.type, one.format):
                raise ValueError(f"the column {one.name!r} is {known.kind} to one member and {one.kind} to another")
            if known is not one:
                found[one.name] = dataclasses.replace(
                    known,
                    missing=known.missing or one.missing,
                    vocabulary=tuple(dict.fromkeys([*known.vocabulary, *one.vocabulary])),
                    is_capped=known.is_capped or one.is_capped,
                )
    return tuple(found.values())


class _Recoding(nn.Module):
    """From the raw columns of an ensemble to those of one of its preprocessors.

    Args:
        columns: of the ensemble.
        wanted: of the preprocessor.
    """

    codes_V: Tensor
    offsets_Q: Tensor

    def __init__(self, columns: Sequence[Column], wanted: Sequence[Column]) -> None:
        super().__init__()
        place = {one.name: number for number, one in enumerate(columns)}
        self._indices = [place[one.name] for one in wanted]
        recoded = [n for n, one in enumerate(wanted) if one.vocabulary != columns[place[one.name]].vocabulary]
        kept = [n for n in range(len(wanted)) if n not in set(recoded)]
        self._kept = [self._indices[n] for n in kept]
        self._recoded = [self._indices[n] for n in recoded]
        order = {n: position for position, n in enumerate([*kept, *recoded])}
        self._order = [order[n] for n in range(len(wanted))]
        self._is_identity = not recoded and self._indices == list(range(len(columns)))
        offsets, codes = [], []
        for n in recoded:
            known = {value: FIRST_CATEGORY + at for at, value in enumerate(wanted[n].vocabulary)}
            offsets.append(len(codes))
            codes += [MISSING, UNKNOWN]
            codes += [known.get(value, UNKNOWN) for value in columns[self._indices[n]].vocabulary]
        self.register_buffer("codes_V", torch.tensor(codes, dtype=torch.int64), persistent=False)
        self.register_buffer("offsets_Q", torch.tensor(offsets, dtype=torch.int64), persistent=False)

    def forward(self, raw_BF: Tensor) -> Tensor:
        """The raw columns of the preprocessor."""
        if self._is_identity:
            return raw_BF
        if not self._recoded:
            return raw_BF[:, self._indices]
        recoded_BQ = self.codes_V[raw_BF[:, self._recoded].to(self.codes_V.device, torch.int64) + self.offsets_Q]
        return torch.cat([raw_BF[:, self._kept], recoded_BQ.to(raw_BF)], dim=1)[:, self._order]
