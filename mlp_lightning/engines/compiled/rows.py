"""The rows of a stack as the kernel reads them.

Shapes: ``K`` members, ``D`` members with distinct rows, ``N`` blocks of ``L`` lanes, ``T`` rows of all steps of a call,
``B`` rows of one step, ``F`` features, ``C`` outputs.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from mlp_lightning.engines.compiled.shape import ROWS
from mlp_lightning.engines.stacked.steps import StackedSteps


@dataclasses.dataclass(frozen=True)
class RowsOfCall:
    """Which rows the steps of a call see, and how much each counts: ``(D, T)``, without ``D`` if they are shared.

    Attributes:
        order: numbers of rows, of all of a :class:`KernelRows`.
        share: of the mean over the rows of a step.
    """

    order: Tensor
    share: Tensor

    def of_lanes(self, distinct_L: Tensor) -> tuple[Tensor, Tensor]:
        """Both for the lanes of a block, ``(T, L)``, or ``(T,)`` if they are shared."""
        if self.order.dim() == 1:
            return self.order, self.share
        return self.order[distinct_L].T.contiguous(), self.share[distinct_L].T.contiguous()


class KernelRows:
    """Features and targets of all rows, and which of them the steps of a call see.

    Args:
        steps: of the stack.
        classes: number of classes where the targets are their numbers; ``None`` where they are as many as the outputs.
        members_NL: the member of each lane.
    """

    def __init__(self, steps: StackedSteps, classes: int | None, members_NL: Tensor) -> None:
        self._steps = steps
        features_DBF, targets, weights_DB = steps.all_rows
        self._rows = features_DBF.shape[1]
        self._weights_DB = weights_DB
        #: ``(D * rows, F)``
        self.features = features_DBF.flatten(0, 1).contiguous()
        if classes is not None:
            targets = F.one_hot(targets, classes)
        #: ``(D * rows, C)``
        self.targets = targets.flatten(0, 1).to(self.features.dtype).contiguous()
        # The loss is a mean over the outputs too, unless they are classes.
        self._parts = 1 if classes is not None else targets.shape[-1]
        self._distinct_NL = torch.tensor(steps.of_member)[members_NL]

    def of_block(self, rows: RowsOfCall, block: int) -> tuple[Tensor, Tensor]:
        """Order and share for the lanes of a block."""
        return rows.of_lanes(self._distinct_NL[block])

    def of_call(self, first_step: int, count: int, rows: int) -> RowsOfCall:
        """The rows of ``count`` steps that all see ``rows`` rows; of a full batch those of one step."""
        steps = self._steps
        order_DT = self._order(first_step, count, rows)
        if self._weights_DB is None:
            share_DT = torch.full(order_DT.shape, 1 / (rows * self._parts), dtype=self.features.dtype)
        else:
            weights_DSB = self._weights_DB.gather(1, order_DT).view(len(order_DT), -1, rows)
            total_DS1 = weights_DSB.sum(-1, keepdim=True)
            share_DT = weights_DSB / (torch.where(total_DS1 > 0, total_DS1, 1.0) * self._parts)
            share_DT = share_DT.flatten(1)
        order_DT = order_DT + self._rows * torch.arange(len(order_DT))[:, None]
        # The kernel looks at a few rows together, and so behind the last.
        order_DT, share_DT = F.pad(order_DT, (0, ROWS)), F.pad(share_DT, (0, ROWS))
        return RowsOfCall(order_DT[0], share_DT[0]) if steps.shared else RowsOfCall(order_DT, share_DT)

    def _order(self, first_step: int, count: int, rows: int) -> Tensor:
        steps = self._steps
        if steps.steps_per_epoch == 1:
            return torch.arange(rows).expand(len(steps.distinct), rows)
        parts, last = [], first_step + count
        while first_step < last:
            epoch, position = divmod(first_step, steps.steps_per_epoch)
            taken = min(last - first_step, steps.steps_per_epoch - position)
            start = position * steps.rows_per_step
            parts.append(steps.order(epoch)[:, start : start + taken * rows])
            first_step += taken
        return torch.cat(parts, 1)
