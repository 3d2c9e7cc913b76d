"""The loop over optimizer steps of a stack of small networks: one call of a kernel makes many steps of a block.

Shapes: ``K`` members, ``N`` blocks of ``L`` lanes, ``S`` steps, ``B`` rows, ``C`` outputs, ``P`` vectors of the weights
of a block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.engines.compiled.blocks import Blocks
from mlp_lightning.engines.compiled.kernel import kernel_for, lanes_of, rows_together
from mlp_lightning.engines.compiled.rows import KernelRows
from mlp_lightning.engines.compiled.shape import ROWS, Arguments, Shape, scratch_vectors
from mlp_lightning.engines.compiled.updates import RULES
from mlp_lightning.engines.dropout import STEPS_OF_PROBABILITY, factor_of_kept, key_of, signed, threshold
from mlp_lightning.engines.protocol import Trace
from mlp_lightning.engines.sizing import compiled_seconds
from mlp_lightning.engines.stacked.layout import StackedMLP
from mlp_lightning.engines.stacked.loop import Measured, StackedLoop

# A call of the kernel takes about this long at most: a stop waits for its end.
_SECONDS_AT_ONCE = 1.0
# Row numbers of the steps of a call, and numbers of the logits that are kept for logged steps, at most.
_ROWS_AT_ONCE = 2**22
_KEPT_NUMBERS = 2**24


class CompiledLoop(StackedLoop):
    """Runs executions of a stack by the kernel; everything around the steps is that of the stack."""

    model: StackedMLP

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model, optimizer = self.model, self.optimizer
        dtype, config = model.flat_N.dtype, optimizer.config
        blocks = Blocks(model, lanes_of(dtype == torch.float64))
        self._blocks, self._rule = blocks, RULES[config.name]
        self._states = self._rule.states(config.options)
        classes = model.out_features if self.task.name == "multiclass" else None
        self._rows = KernelRows(self.steps, classes, blocks.members)
        self._decay_NL = optimizer.decays[blocks.members]
        limit = 0.0 if optimizer.clip is None else optimizer.clip.limit
        self._clip_L = torch.full((blocks.lanes,), limit, dtype=dtype)
        smoothing_K = torch.tensor(self.label_smoothing or [0.0] * model.members, dtype=dtype)
        # The share of a label that its class keeps, and what every class gets.
        spread = torch.stack([1 - smoothing_K, smoothing_K / (classes or 2)])
        self._smoothing_N2L = blocks.of_lanes(spread)
        self._drops_N, self._seeds_N3L, self._kept_NL = self._of_dropout()
        self._shape = self._common_shape()
        self._packed: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def run(self, first_step: int, count: int) -> Trace:
        """Make ``count`` optimizer steps, up to a requested stop."""
        try:
            return super().run(first_step, count)
        finally:
            self._unpack()

    def _steps_at_once(self) -> int:
        model, rows = self.model, self.steps.rows_per_step
        widths = [model.in_features, *(layer.outputs for layer in model.layers)]
        seconds = compiled_seconds(model.members, widths, rows)
        of_rows = 1 if self.steps.steps_per_epoch == 1 else len(self.steps.distinct) * rows
        logits = model.members * (rows + ROWS) * model.out_features / self.log_interval
        return max(1, int(min(_SECONDS_AT_ONCE / seconds, _ROWS_AT_ONCE / of_rows, _KEPT_NUMBERS / logits)))

    def _run_alike(self, first_step: int, count: int, rows: int) -> Measured:
        """Steps that all see ``rows`` rows."""
        follows_loss = self.schedule.moment == "epoch_loss"
        if follows_loss:
            count = min(count, self.steps.steps_per_epoch - first_step % self.steps.steps_per_epoch)
        rates_S = self._rates(first_step, count)
        losses_SK, logits_SKBC = self._call(first_step, count, rows, rates_S)
        if follows_loss:
            self._step_on_epoch_loss(first_step + count, losses_SK)
        logged = [step for step in range(count) if (first_step + step) % self.log_interval == 0]
        if not logged:
            return Measured(losses_SK, [], losses_SK[:0], losses_SK[:0], losses_SK[:0].double(), rates_S)
        batches = [next(self.steps.batches(first_step + step, 1)) for step in logged]
        targets = self._of_steps([targets for _, targets, _ in batches])
        weights_S = [weights for _, _, weights in batches if weights is not None]
        metrics = self.task.metric(logits_SKBC, targets, self._of_steps(weights_S) if weights_S else None)
        rates = torch.stack([rates_S[step] for step in logged])
        return Measured(losses_SK, [first_step + one for one in logged], losses_SK[logged], metrics, rates, rates_S)

    def _rates(self, first_step: int, count: int) -> list[Tensor]:
        """The learning rates of the steps; a schedule over steps or epochs moves on."""
        now, rates_S = self.optimizer.learning_rates, []
        if self.schedule.moment not in ("step", "epoch"):
            return [now] * count
        for step in range(first_step + 1, first_step + count + 1):
            rates_S.append(now)
            if self.schedule.moment == "step" or step % self.steps.steps_per_epoch == 0:
                self.schedule.step()
                now = torch.tensor(self.schedule.learning_rates(), dtype=torch.float64)
        self.optimizer.set_learning_rates(now.tolist())
        return rates_S

    def _step_on_epoch_loss(self, step: int, losses_SK: Tensor) -> None:
        self.epoch_loss_K += losses_SK.double().sum(0)
        if step % self.steps.steps_per_epoch == 0:
            self.schedule.step_on((self.epoch_loss_K / self.steps.steps_per_epoch).tolist(), self.active)
            self.epoch_loss_K.zero_()
            self.optimizer.set_learning_rates(self.schedule.learning_rates())

    # ---- the kernel --------------------------------------------------------------------------------------

    def _call(self, first_step: int, count: int, rows: int, rates_S: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Make the steps; the losses of all, ``(S, K)``, and the logits of the logged ones, ``(S, K, B, C)``."""
        blocks, interval, new = self._blocks, self.log_interval, self.model.flat_N.detach().new_empty
        dtype, options = self.model.flat_N.dtype, self.optimizer.config.options
        state = self.optimizer.state
        is_new = self._rule.begin(options, state, self.model.flat_N.detach())
        factors = torch.tensor(self._rule.factors(options, state, count, is_new), dtype=dtype)
        weights_NPL, gradient_NPL, states_NQPL = self._pack()
        changes = any(one is not rates_S[0] for one in rates_S)
        rates_NSL = blocks.of_lanes(torch.stack(rates_S if changes else rates_S[:1]).to(dtype))
        seen = self._rows.of_call(first_step, count, rows)
        together = rows_together(rows)
        before = -first_step % interval
        size = (len(range(before, count, interval)), -(-rows // together) * together, self.model.out_features)
        losses_NSL, logits = new(blocks.count, count, blocks.lanes), new(blocks.count, *size, blocks.lanes)

        def train(block: int) -> None:
            masked = self.model.needs_mask and blocks.is_mixed[block]
            shape = self._shape._replace(rows=together, masked=masked, drops=self._drops_N[block])
            order, share = self._rows.of_block(seen, block)
            tensors = {
                "weights": weights_NPL[block],
                "gradient": gradient_NPL[block],
                "states": states_NQPL[block],
                "rates": rates_NSL[block],
                "factors": factors,
                "decay": self._decay_NL[block],
                "mask": blocks.mask_NUL[block],
                "smoothing": self._smoothing_N2L[block],
                "clip": self._clip_L,
                "features": self._rows.features,
                "targets": self._rows.targets,
                "order": order,
                "share": share,
                "losses": losses_NSL[block],
                "logits": logits[block],
                "seeds": self._seeds_N3L[block],
                "kept": self._kept_NL[block],
                "scratch": new(scratch_vectors(shape, blocks.widths[block].tolist()), blocks.lanes),
            }
            arguments = Arguments(
                widths=blocks.widths[block].ctypes.data,
                strides=blocks.strides.ctypes.data,
                **{name: one.data_ptr() for name, one in tensors.items()},
                size=blocks.size,
                rows=rows,
                steps=count,
                row_step=0 if self.steps.steps_per_epoch == 1 else rows,
                rate_step=int(changes),
                log_from=-before,
                log_every=interval,
                first_step=first_step,
            )
            kernel_for(shape)(arguments)

        self._for_each_block(train)
        of_lanes = logits.permute(1, 0, 4, 2, 3).flatten(1, 2)
        return blocks.of_members(losses_NSL), of_lanes[:, blocks.lane_K, :rows]

    def _of_dropout(self) -> tuple[list[bool], Tensor, Tensor]:
        """For each block whether its members have dropout, and what its kernel is given for it."""
        members = range(self.model.members)
        seeds, rates = [0 for _ in members], [0.0 for _ in members]
        if self.dropout is not None:
            seeds, rates = self.dropout.seeds, self.dropout.probabilities
        half = STEPS_OF_PROBABILITY // 2
        least = [(threshold(one) - half) * STEPS_OF_PROBABILITY for one in rates]
        words_K3 = torch.tensor([(*key_of(seed), one) for seed, one in zip(seeds, least, strict=True)])
        kept_K = torch.tensor([factor_of_kept(one) for one in rates], dtype=self.model.flat_N.dtype)
        drops_K = torch.tensor(rates) > 0
        members_NL = self._blocks.members
        return drops_K[members_NL].any(1).tolist(), self._blocks.of_lanes(signed(words_K3).T), kept_K[members_NL]

    def _common_shape(self) -> Shape:
        """What the kernels of all blocks and batches have in common."""
        model, optimizer = self.model, self.optimizer
        is_decayed, options = bool(optimizer.decays.any()), optimizer.config.options.items()
        return Shape(
            is_double=model.flat_N.dtype == torch.float64,
            depth=model.depth,
            rows=ROWS,
            shared=self.steps.shared,
            activation=model.activation,
            task=self.task.name,
            bias=model.has_bias,
            masked=False,
            drops=False,
            smoothed=bool(self.label_smoothing and any(self.label_smoothing)),
            optimizer=optimizer.config.name,
            options=tuple(sorted((name, tuple(one) if isinstance(one, list) else one) for name, one in options)),
            decay=("decoupled" if optimizer.is_decoupled else "coupled") if is_decayed else "",
            clip="" if optimizer.clip is None else optimizer.clip.algorithm,
        )

    def _for_each_block(self, train: Callable[[int], None]) -> None:
        """Blocks do not wait for one another; a kernel does not hold Python's lock."""
        numbers, threads = range(self._blocks.count), min(torch.get_num_threads(), self._blocks.count)
        if threads == 1:
            for number in numbers:
                train(number)
            return
        with ThreadPoolExecutor(threads) as pool, _one_thread():
            list(pool.map(train, numbers))

    def _pack(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, gradient and optimizer states in blocks: ``(N, P, L)``, the states ``(N, states, P, L)``."""
        if self._packed is None:
            blocks, flat_N = self._blocks, self.model.flat_N.detach()
            weights_NPL = flat_N.new_empty(blocks.count, blocks.size, blocks.lanes)
            states_NQPL = flat_N.new_empty(blocks.count, len(self._states), blocks.size, blocks.lanes)
            # What lies behind the widths of a block is never written.
            self._packed = weights_NPL, torch.zeros_like(weights_NPL), states_NQPL
            blocks.pack(flat_N, weights_NPL)
            for number, name in enumerate(self._states):
                blocks.pack(self.optimizer.state[name], states_NQPL[:, number])
        return self._packed

    def _unpack(self) -> None:
        if self._packed is None:
            return
        (weights_NPL, gradient_NPL, states_NQPL), self._packed = self._packed, None
        self._blocks.unpack(weights_NPL, self.model.flat_N.detach())
        self._blocks.unpack(gradient_NPL, self.optimizer.gradient_N)
        for number, name in enumerate(self._states):
            self._blocks.unpack(states_NQPL[:, number], self.optimizer.state[name])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Threads of ours, and not of torch in each of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
