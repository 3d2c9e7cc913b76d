"""One of torch's optimizers over a stack, with a learning rate and weight decay for every member.

An update of torch's optimizers is proportional to the learning rate and starts from the gradient alone, once
weight decay is taken out. So the optimizer runs with a learning rate of 1 on a parameter that stays zero; what it
writes there is the update, which is scaled for every member and added to the weights. What weight decay adds is
added before, by the rule of that optimizer: to the gradient (Adam, Kingma and Ba, 2015, as in torch), or as a
factor of the weights (AdamW, Loshchilov and Hutter, 2019).

Shapes: ``K`` members, ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlp_lightning.config import OptimizerConfig, PlateauSchedule, ScheduleConfig
from mlp_lightning.config.shared import Remembered
from mlp_lightning.engines.stacked.stack import Stack
from mlp_lightning.networks.optimizers import Schedule, build_optimizer, build_schedule

_LARGEST_SCALE = 1e6


class StackedSchedule:
    """The learning rates of K members under one schedule, each from its own initial one.

    The schedules are torch's. One scheduler serves all members if only the initial learning rates differ; each
    member has its own plateau.

    Args:
        config: which schedule.
        learning_rates: initial learning rate of each member.
        total_steps: length of the run in optimizer steps.
        has_validation: whether there are validation rows.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        learning_rates: Sequence[float],
        total_steps: int | None,
        has_validation: bool,
    ) -> None:
        self._per_member = isinstance(config, PlateauSchedule)
        distinct = list(learning_rates) if self._per_member else sorted(set(learning_rates))
        if self._per_member:
            self._of_member = list(range(len(learning_rates)))
        else:
            places = {lr: place for place, lr in enumerate(distinct)}
            self._of_member = [places[lr] for lr in learning_rates]
        groups = [[lr] for lr in distinct] if self._per_member else [distinct]
        self._carriers = [_carrier(group) for group in groups]
        built = [build_schedule(one, config, total_steps, has_validation) for one in self._carriers]
        self._schedules: list[Schedule] = [one for one in built if one is not None]
        for one in self._carriers:
            one.step()  # changes nothing; torch warns of a scheduler whose optimizer never made a step
        self.moment = self._schedules[0].moment if self._schedules else None

    def learning_rates(self) -> list[float]:
        """The current learning rate of each member."""
        groups = [group for one in self._carriers for group in one.param_groups]
        return [float(groups[index]["lr"]) for index in self._of_member]

    def step(self) -> None:
        """One step of a schedule that follows steps or epochs."""
        self._schedules[0].scheduler.step()

    def step_on(self, losses: Sequence[float], active: Sequence[bool]) -> None:
        """One step of a plateau schedule: the loss of each member; one that has ended keeps its learning rate."""
        for one, loss, is_active in zip(self._schedules, losses, active, strict=True):
            if is_active:
                one.scheduler.step(loss)  # type: ignore[arg-type]  # a plateau scheduler takes the loss

    def select(self, members: Sequence[int]) -> None:
        """Keep only some of the members."""
        if self._per_member:
            self._carriers = [self._carriers[one] for one in members]
            self._schedules = [self._schedules[one] for one in members]
            self._of_member = list(range(len(members)))
        else:
            self._of_member = [self._of_member[one] for one in members]

    def state(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """For each member the state of its scheduler alone and the entries of its parameter group."""
        states = [copy.deepcopy(one.scheduler.state_dict()) for one in self._schedules]
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for one in self._carriers
            for group in one.param_groups
        ]
        of_members = []
        for index in self._of_member:
            if not states:
                alone: dict[str, Any] = {}
            elif self._per_member:
                alone = states[index]
            else:
                alone = {key: [one[index]] if key in _PER_GROUP else one for key, one in states[0].items()}
            of_members.append((alone, groups[index]))
        return of_members

    def load_state(self, states: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Restore what :meth:`state` gave for the same members."""
        groups = [group for one in self._carriers for group in one.param_groups]
        for index, (_, group) in zip(self._of_member, states, strict=True):
            groups[index].update(copy.deepcopy(group))
        for number, one in enumerate(self._schedules):
            # Members that share a scheduler differ in the entries that it has for each group.
            members = [number] if self._per_member else range(len(self._of_member))
            state = copy.deepcopy(states[members[0]][0])
            for key in _PER_GROUP:
                if not self._per_member and key in state:
                    of_group = {self._of_member[member]: states[member][0][key][0] for member in members}
                    state[key] = [of_group[index] for index in range(len(groups))]
            one.scheduler.load_state_dict(state)


def _carrier(learning_rates: Sequence[float]) -> Optimizer:
    """An optimizer of nothing, with a parameter group per learning rate for a scheduler to work on."""
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(()))], "lr": lr} for lr in learning_rates], lr=1.0)


@dataclasses.dataclass
class Clip:
    limit: float
    algorithm: str


class StackedOptimizer:
    """Makes the updates of a stack.

    Args:
        model: the stack.
        gradient_N: its gradient.
        configs: the optimizer of each member; they differ only in learning rate and weight decay.
        clip_val: largest norm, or value, of a member's gradient; ``None`` for no limit.
        clip_algorithm: ``norm`` or ``value``.
    """

    def __init__(
        self,
        model: Stack,
        gradient_N: Tensor,
        configs: Sequence[OptimizerConfig],
        clip_val: float | None = None,
        clip_algorithm: str = "norm",
    ) -> None:
        self.configs = list(configs)
        self._new_alone = Remembered(self._state_of_new)
        self.clip = None if clip_val is None else Clip(clip_val, clip_algorithm)
        first = configs[0]
        decays = [_weight_decay(one) for one in configs]
        self.is_decoupled = first.name == "AdamW" or bool(first.options.get("decoupled_weight_decay"))
        # The update of plain SGD is the gradient itself: scaling the loss of each member scales it at no cost.
        # (Not for learning rates so large that a scaled gradient overflows and an unscaled one does not.)
        self.scales_loss = (
            first.name == "SGD"
            and not first.options.get("momentum")
            and clip_val is None
            and not any(decays)
            and max(one.lr for one in configs) <= _LARGEST_SCALE
        )
        # These only choose how an update is computed, and all numbers are in one tensor here.
        options = {name: one for name, one in first.options.items() if name not in ("fused", "foreach")}
        if "weight_decay" in options:
            options["weight_decay"] = 0.0
        if first.name == "AdamW":
            options = {**options, "weight_decay": 0.0}
        self.config = OptimizerConfig(first.name, 1.0, options)
        self._bind(model, gradient_N)
        self.decays = torch.tensor(decays, dtype=model.flat_N.dtype, device=model.flat_N.device)
        self._decay_N = model.spread(self.decays) if any(decays) else None
        self.optimizer = build_optimizer([self._carried], self.config)
        self.set_learning_rates([one.lr for one in configs])

    def _bind(self, model: Stack, gradient_N: Tensor) -> None:
        self._model = model
        self.gradient_N = gradient_N
        self._flat_N = model.flat_N.detach()
        self._carried = nn.Parameter(self._flat_N if self.scales_loss else torch.zeros_like(self._flat_N))
        self._carried.grad = gradient_N

    def set_learning_rates(self, learning_rates: Sequence[float]) -> None:
        """Change the learning rate of every member."""
        flat_N = self._flat_N
        #: The current learning rates, as they are logged: torch's schedulers work in double precision.
        self.learning_rates = torch.tensor(learning_rates, dtype=torch.float64)
        self.learning_rates_K = self.learning_rates.to(flat_N.device, flat_N.dtype)
        #: Factor of the loss of each member before the gradient is computed.
        self.loss_factor_K11 = self.learning_rates_K[:, None, None] if self.scales_loss else None
        if not self.scales_loss:
            self._rate_N = self._model.spread(self.learning_rates_K)
            if self.is_decoupled and self._decay_N is not None:
                self._kept_N = 1 - self._rate_N * self._decay_N

    def step(self) -> None:
        """Update the weights of every member by its gradient."""
        if self.scales_loss:
            self.optimizer.step()
            return
        if self.clip is not None:
            self._clip_gradients(self.clip)
        if self._decay_N is not None:
            if self.is_decoupled:
                self._flat_N.mul_(self._kept_N)
            else:
                self.gradient_N.addcmul_(self._flat_N, self._decay_N)
        self.optimizer.step()
        update_N = self._carried.detach()
        self._flat_N.addcmul_(update_N, self._rate_N)
        update_N.zero_()

    def _clip_gradients(self, clip: Clip) -> None:
        if clip.algorithm == "value":
            self.gradient_N.clamp_(-clip.limit, clip.limit)
            return
        blocks = list(self._model.per_member(self.gradient_N))
        norms_K = torch.stack([block.square().sum((1, 2)) for block in blocks]).sum(0).sqrt_()
        # The rule of torch.nn.utils.clip_grad_norm_, for each member separately.
        factor_K11 = (clip.limit / (norms_K + 1e-6)).clamp_(max=1.0)[:, None, None]
        for block in blocks:
            block.mul_(factor_K11)

    @property
    def state(self) -> dict[str, Any]:
        """The optimizer's state of all weights together; empty before the first update of some optimizers."""
        return self.optimizer.state[self._carried]

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimizer's elementwise state, each tensor laid out like the parameter."""
        state = self.optimizer.state.get(self._carried, {})
        return {key: one for key, one in state.items() if torch.is_tensor(one) and one.shape == self._carried.shape}

    def common_state(self) -> dict[str, Any]:
        """The optimizer's state that all members share, such as the count of its steps."""
        state = self.optimizer.state.get(self._carried, {})
        tensors = self.state_tensors()
        return {key: copy.deepcopy(one) for key, one in state.items() if key not in tensors and one is not None}

    def select(self, members: Sequence[int], chosen: Stack, gradient_N: Tensor) -> None:
        """Keep only some of the members, which are now those of ``chosen``."""
        kept = {key: self._model.selected(one, members, chosen) for key, one in self.state_tensors().items()}
        common = self.common_state()
        index = torch.as_tensor(members, device=self.decays.device)
        self.configs = [self.configs[one] for one in members]
        learning_rates = [self.learning_rates[one].item() for one in members]
        self._bind(chosen, gradient_N)
        self.decays = self.decays[index]
        self._decay_N = chosen.spread(self.decays) if self._decay_N is not None else None
        self.optimizer = build_optimizer([self._carried], self.config)
        self.load_state(common, kept)
        self.set_learning_rates(learning_rates)

    def use_scaled_loss(self, scales: bool) -> None:
        """Update by the rule of the stack that the state comes from, which may have had other members."""
        if scales != self.scales_loss:
            learning_rates = self.learning_rates.tolist()
            self.scales_loss = scales
            self._bind(self._model, self.gradient_N)
            self.optimizer = build_optimizer([self._carried], self.config)
            self.set_learning_rates(learning_rates)

    def load_state(self, common: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`common_state` and :meth:`state_tensors` gave."""
        self.optimizer.state[self._carried] = {**copy.deepcopy(common), **tensors}

    def alone(self, member: int, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
        """The ``state_dict()`` that the optimizer of a single run would have.

        Args:
            member: which one.
            state: for each entry of the state, the parts of it by parameter, or what is common to all.
            group: entries of its parameter group that a schedule has set.
        """
        count = len(self._model.parameter_names)
        (alone,) = self._new_alone(self.configs[member])["param_groups"]
        scheduled = {key: one for key, one in group.items() if key in SCHEDULED}
        content = {
            number: {key: one[number] if isinstance(one, list) else copy.deepcopy(one) for key, one in state.items()}
            for number in range(count if state else 0)
        }
        return {"state": content, "param_groups": [{**alone, **scheduled, "params": list(alone["params"])}]}

    def _state_of_new(self, config: OptimizerConfig) -> dict[str, Any]:
        """The ``state_dict()`` of the optimizer of a single run before its first step."""
        parameters = [nn.Parameter(torch.zeros(())) for _ in self._model.parameter_names]
        return build_optimizer(parameters, config).state_dict()


# Entries of a scheduler's state that have one value for every parameter group.
_PER_GROUP = ("base_lrs", "_last_lr", "lr_lambdas")
#: Entries of a parameter group that torch's schedulers write.
SCHEDULED = ("lr", "initial_lr", "max_lr", "min_lr")


def _weight_decay(config: OptimizerConfig) -> float:
    default = 0.01 if config.name == "AdamW" else 0.0
    return float(config.options.get("weight_decay", default))
