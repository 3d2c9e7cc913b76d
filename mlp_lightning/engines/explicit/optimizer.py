"""One of torch's optimizers over all parameters of a network as one flat tensor.

An optimizer that works number by number makes the same update of one tensor as of many, in one operation instead of one
for each; what it costs to call torch's optimizer at all is saved for the common ones.

Shapes: ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlp_lightning.config import OptimizerConfig
from mlp_lightning.networks.optimizers import build_optimizer

# These only choose how an update is computed.
_HOW = ("fused", "foreach")


class FlatOptimizer:
    """Updates parameters that are views of one tensor, as are their gradients.

    Args:
        parameters: of the network. They keep their values and become views.
        config: the optimizer.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> None:
        self._parameters = list(parameters)
        self._shapes = [one.shape for one in parameters]
        self._sizes = [one.numel() for one in parameters]
        with torch.no_grad():
            self.flat_N = torch.cat([one.detach().flatten() for one in parameters])
            self.gradient_N = torch.zeros_like(self.flat_N)
            for parameter, value in zip(parameters, self._split(self.flat_N), strict=True):
                parameter.data = value
        self.carrier = nn.Parameter(self.flat_N)
        self.carrier.grad = self.gradient_N
        self._how = {name: config.options.get(name) for name in _HOW}
        options = {name: one for name, one in config.options.items() if name not in _HOW}
        if config.name in ("Adam", "AdamW"):
            options["fused"] = True
        #: Torch's, whose only parameter is the flat one.
        self.optimizer: Optimizer = build_optimizer([self.carrier], dataclasses.replace(config, options=options))
        self._update = {"Adam": self._adam, "AdamW": self._adam, "SGD": self._sgd}.get(config.name, self._by_torch)
        self._is_first = True

    def give_gradients(self) -> None:
        """Make the ``grad`` of every parameter a view of the flat gradient (again: the Trainer removes it)."""
        for parameter, gradient in zip(self._parameters, self._split(self.gradient_N), strict=True):
            parameter.grad = gradient

    @property
    def learning_rate(self) -> float:
        """The present one."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self) -> None:
        """Update the parameters by their gradients."""
        if self._is_first:  # makes its state, and lets torch's schedulers know that there are steps
            self._is_first = False
            self._by_torch()
        else:
            self._update()

    def _by_torch(self) -> None:
        self.optimizer.step()

    def _adam(self) -> None:
        """What torch's fused Adam and AdamW do, without looking at every tensor and option again."""
        group, state = self.optimizer.param_groups[0], self.optimizer.state[self.carrier]
        state["step"].add_(1)
        update: Any = getattr(torch, "_fused_adamw_" if group["decoupled_weight_decay"] else "_fused_adam_")
        update(
            [self.flat_N],
            [self.gradient_N],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [state["max_exp_avg_sq"]] if group["amsgrad"] else [],
            [state["step"]],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=False,
        )

    def _sgd(self) -> None:
        group = self.optimizer.param_groups[0]
        if group["momentum"]:
            self._by_torch()
            return
        gradient_N = self.gradient_N
        if group["weight_decay"]:
            gradient_N = gradient_N.add(self.flat_N, alpha=group["weight_decay"])
        self.flat_N.add_(gradient_N, alpha=-group["lr"])

    def state_dict(self) -> dict[str, Any]:
        """The ``state_dict()`` that the optimizer would have over the parameters themselves; with views."""
        content = self.optimizer.state_dict()
        (group,) = content["param_groups"]
        group = {**group, **{name: one for name, one in self._how.items() if name in group}}
        group["params"] = list(range(len(self._sizes)))
        of_flat = content["state"].get(0, {})
        parts = {name: self._split(one) for name, one in of_flat.items() if self._is_flat(one)}
        state = {
            # A copy of what is common, such as the count of steps: each parameter would raise the same number.
            number: {name: parts[name][number] if name in parts else self._common(one) for name, one in of_flat.items()}
            for number in (range(len(self._sizes)) if of_flat else ())
        }
        return {"state": state, "param_groups": [group]}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, or that of the same optimizer over the parameters themselves."""
        own = self.optimizer.state_dict()
        (group,) = content["param_groups"]
        kept = {name: one for name, one in own["param_groups"][0].items() if name in (*_HOW, "params")}
        of_parameters = content["state"]
        state: dict[int, dict[str, Any]] = {}
        if of_parameters:
            first = of_parameters[0]
            state[0] = {name: self._joined([one[name] for one in of_parameters.values()]) for name in first}
        self.optimizer.load_state_dict({"state": state, "param_groups": [{**group, **kept}]})

    def _common(self, value: Any) -> Any:
        # Fused Adam counts steps in single precision always, the others in that of the parameters.
        return value.detach().clone().to(self.flat_N.dtype) if torch.is_tensor(value) else copy.deepcopy(value)

    def _is_flat(self, value: Any) -> bool:
        return torch.is_tensor(value) and value.shape == self.flat_N.shape and value.dim() == 1

    def _split(self, flat_N: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(flat_N.split(self._sizes), self._shapes, strict=True)]

    def _joined(self, values: Sequence[Any]) -> Any:
        """One entry of the state of all parameters: laid out like the flat one, or what they have in common."""
        alike = all(
            torch.is_tensor(one) and one.shape == shape for one, shape in zip(values, self._shapes, strict=True)
        )
        return torch.cat([one.flatten() for one in values]) if alike else values[0]
