"""The counters that are written to, checked against the installed Lightning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from mlp_lightning.runs.step_count import count_steps, set_epoch, set_steps

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


class Spans:
    """A loader without a length, as the one of executions is; asks for its numbers at the start of each pass."""

    def __init__(self, next_span: Callable[[], list[int]]) -> None:
        self.next_span = next_span

    def __iter__(self) -> Iterator[int]:
        return iter(self.next_span())


class ByHand(pl.LightningModule):
    """Pretends to make as many steps as a batch says and reports them to the Trainer afterwards.

    Args:
        spans: for each pass over the training loader, the numbers of steps of its batches.
        epoch_of_step: the epoch that a step belongs to; None leaves the count of epochs to Lightning.
    """

    def __init__(self, spans: list[list[int]], epoch_of_step: Callable[[int], int] | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spans = {sum(map(sum, spans[:number])): span for number, span in enumerate(spans)}
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epoch_of_step = epoch_of_step
        self.seen: list[tuple[int, int]] = []
        self.epochs_begun: list[int] = []
        self.epochs_ended: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Spans:
        return Spans(lambda: self.spans[self.trainer.global_step])

    def training_step(self, batch: int, batch_idx: int) -> None:
        count_steps(self.trainer, batch)
        if self.epoch_of_step is not None:
            set_epoch(self.trainer, self.epoch_of_step(self.trainer.global_step - 1))
        self.seen.append((self.trainer.global_step, self.trainer.current_epoch))

    def on_train_epoch_start(self) -> None:
        self.epochs_begun.append(self.trainer.current_epoch)

    def on_train_epoch_end(self) -> None:
        self.epochs_ended.append(self.trainer.current_epoch)


class Ordinary(pl.LightningModule):
    """Lets Lightning optimize, one step per batch."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps_per_epoch = steps_per_epoch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> list[int]:
        return [0] * self.steps_per_epoch

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        return (self.weight - 1) ** 2


MakeTrainer = Callable[..., pl.Trainer]


def fitted(make_trainer: MakeTrainer, module: pl.LightningModule, **limits: Any) -> pl.Trainer:
    trainer = make_trainer(**limits)
    trainer.fit(module)
    return trainer


def test_a_fresh_trainer_stands_at_zero(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=1)
    assert (trainer.global_step, trainer.current_epoch) == (0, 0)


def test_steps_are_added_to_global_step(make_trainer: MakeTrainer) -> None:
    module = ByHand([[3, 1, 5]])
    trainer = fitted(make_trainer, module, max_epochs=1)
    assert [step for step, _ in module.seen] == [3, 4, 9]
    assert trainer.global_step == 9


def test_max_steps_ends_the_run_at_the_counted_step(make_trainer: MakeTrainer) -> None:
    module = ByHand([[4, 4, 4, 4]])
    trainer = fitted(make_trainer, module, max_steps=12)
    assert [step for step, _ in module.seen] == [4, 8, 12]
    assert trainer.global_step == 12


def test_counting_no_steps_changes_nothing(make_trainer: MakeTrainer) -> None:
    module = ByHand([[2, 0, 0]])
    trainer = fitted(make_trainer, module, max_epochs=1)
    assert trainer.global_step == 2


def test_the_run_can_be_put_to_any_step(make_trainer: MakeTrainer) -> None:
    module = ByHand([[5]])
    trainer = fitted(make_trainer, module, max_epochs=1)
    for step in (17, 17, 3, 0):
        set_steps(trainer, step)
        assert trainer.global_step == step


def test_max_epochs_ends_the_run_at_the_counted_epoch(make_trainer: MakeTrainer) -> None:
    # Each span is two epochs of two steps; the last is one epoch.
    module = ByHand([[4], [4], [2]], lambda step: step // 2)
    trainer = fitted(make_trainer, module, max_epochs=5)
    assert module.seen == [(4, 1), (8, 3), (10, 4)]
    assert module.epochs_begun == [0, 2, 4]
    assert module.epochs_ended == [1, 3, 4]
    assert (trainer.current_epoch, trainer.global_step) == (5, 10)


@pytest.mark.parametrize("epoch", [0, 1, 7, 1000])
def test_the_epoch_can_be_put_anywhere_before_or_between_runs(make_trainer: MakeTrainer, epoch: int) -> None:
    trainer = make_trainer(max_steps=1)
    set_epoch(trainer, epoch)
    assert trainer.current_epoch == epoch
    set_epoch(trainer, epoch)
    assert trainer.current_epoch == epoch


def test_the_counters_of_a_finished_epoch_agree_as_lightning_leaves_them(make_trainer: MakeTrainer) -> None:
    ordinary = fitted(make_trainer, Ordinary(2), max_epochs=5)
    counted = fitted(make_trainer, ByHand([[4], [4], [2]], lambda step: step // 2), max_epochs=5)
    for trainer in (ordinary, counted):
        progress = trainer.fit_loop.epoch_progress
        assert progress.current.ready == progress.current.started == 5
        assert progress.current.processed == progress.current.completed == 5
    assert ordinary.global_step == counted.global_step == 10


@pytest.mark.parametrize("max_steps", [1, 3, 4, 5, 8])
def test_after_max_steps_the_epoch_is_what_lightning_would_say(make_trainer: MakeTrainer, max_steps: int) -> None:
    ordinary = fitted(make_trainer, Ordinary(4), max_steps=max_steps)
    spans = [[min(4, max_steps)], [max_steps - 4]]
    counted = fitted(make_trainer, ByHand(spans, lambda step: step // 4), max_steps=max_steps)
    assert counted.global_step == ordinary.global_step == max_steps
    assert counted.current_epoch == ordinary.current_epoch


def test_validation_comes_at_multiples_of_the_counted_epochs(make_trainer: MakeTrainer) -> None:
    class Validated(ByHand):
        validated_at: ClassVar[list[int]] = []

        def val_dataloader(self) -> list[int]:
            return [0]

        def validation_step(self, batch: int, batch_idx: int) -> None:
            self.validated_at.append(self.trainer.global_step)

    module = Validated([[4], [2], [6], [2], [4]], lambda step: step // 2)
    fitted(make_trainer, module, max_epochs=9, check_val_every_n_epoch=3, num_sanity_val_steps=0)
    assert module.validated_at == [6, 12, 18]
