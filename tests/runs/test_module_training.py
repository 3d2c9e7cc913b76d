"""The LightningModule under an ordinary Trainer, against a loop written by hand from the same weights."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from support.module_training import (
    EXECUTIONS,
    MakeTrainer,
    Traces,
    fitted,
    hand_written,
    module_for,
)
from support.tolerances import assert_close, assert_same_bits, assert_same_state, assert_same_weights
from torch import Tensor, nn

from mlp_lightning.config import ModelConfig, OptimizerConfig
from mlp_lightning.config.schedules import CosineSchedule, PlateauSchedule, StepSchedule
from mlp_lightning.data import IrisDataModule
from mlp_lightning.engines.rows import EvaluationBatches

pytestmark = pytest.mark.usefixtures("one_thread")  # a second thread slows down matrices this small


def trained_by_hand(data: IrisDataModule, steps: int, batch_size: int, lr: float) -> tuple[nn.Sequential, list[float]]:
    """Plain mini-batch SGD with momentum on prepared features."""
    model = hand_written()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    rows = data.splits["train"]
    features_BF = rows.features_BF
    losses: list[float] = []
    epoch = 0
    while True:
        order = data.training_steps.order(epoch)
        for start in range(0, len(rows), batch_size):
            if len(losses) == steps:
                return model, losses
            here = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(features_BF[here]), rows.targets[here])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
def test_training_is_that_of_a_plain_loop(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    data = IrisDataModule(
        batch_size=32, scaling="standard", val_fraction=0.2, seed=5, steps_per_execution=steps_per_execution
    )
    module = module_for(data, optimizer=OptimizerConfig("SGD", 0.05, {"momentum": 0.9}))
    traces = Traces()
    trainer = fitted(make_trainer, data, module, max_steps=50, callbacks=[traces])
    assert data.steps_per_epoch == 4
    reference, losses = trained_by_hand(data, 50, 32, 0.05)
    assert_same_bits(torch.stack(traces.losses), torch.tensor(losses))
    assert_same_weights(module, reference)
    assert trainer.global_step == 50
    assert losses[-1] < 0.5 * losses[0]


def test_masks_of_dropout_follow_from_the_seed_alone(make_trainer: MakeTrainer) -> None:
    """Whatever state torch's generator is in; afterwards, the layers draw from it."""
    model = ModelConfig(hidden_units=[8, 5], activation="tanh", dropout=0.3)
    found = []
    for number, seed in enumerate((3, 3, 4)):
        data = IrisDataModule(batch_size=32, val_fraction=0.2, seed=5, steps_per_execution=4)
        module = module_for(data, model=model, seed=seed)
        module.mlp.load_state_dict(module_for(data, model=model).mlp.state_dict())
        torch.manual_seed(number)
        fitted(make_trainer, data, module, max_steps=10)
        found.append(module)
    assert_same_state(found[0].mlp.state_dict(), found[1].mlp.state_dict())
    states = [one.mlp.state_dict() for one in found]
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0])
    features_BF = torch.randn(9, 4)
    assert not torch.equal(*(found[0].mlp.train()(features_BF) for _ in range(2)))


@pytest.mark.parametrize("limits", [{"max_steps": 100}, {"max_epochs": 7}, {"max_steps": 100, "max_epochs": 9}])
@pytest.mark.parametrize(
    "options", [{"batch_size": 32}, {"batch_size": 10, "accumulate_grad_batches": 3, "val_fraction": 0.2}, {}]
)
def test_steps_per_execution_changes_no_bit(
    make_trainer: MakeTrainer, options: dict[str, Any], limits: dict[str, Any]
) -> None:
    runs = []
    for steps_per_execution in EXECUTIONS:
        data = IrisDataModule(**options, steps_per_execution=steps_per_execution)
        module = module_for(data, optimizer=OptimizerConfig("Adam", 0.01), scheduler=CosineSchedule())
        traces = Traces()
        trainer = fitted(make_trainer, data, module, callbacks=[traces], log_every_n_steps=3, **limits)
        optimizer_state = trainer.optimizers[0].state_dict()
        runs.append((module, traces, optimizer_state, trainer.global_step, trainer.current_epoch))
    module, traces, optimizer_state, step, epoch = runs[0]
    for other_module, other_traces, other_state, other_step, other_epoch in runs[1:]:
        assert_same_state(other_module.state_dict(), module.state_dict())
        assert_same_bits(torch.stack(other_traces.losses), torch.stack(traces.losses))
        assert other_traces.logged == traces.logged
        assert (other_step, other_epoch) == (step, epoch)
        assert other_state["param_groups"] == optimizer_state["param_groups"]
        for number, moments in optimizer_state["state"].items():
            assert_same_state(other_state["state"][number], moments)


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        ({"max_steps": 1}, 1, 1),
        ({"max_steps": 20}, 20, 4),
        # Lightning counts an epoch that max_steps cut short as one.
        ({"max_steps": 22}, 22, 5),
        ({"max_epochs": 3}, 15, 3),
        ({"max_epochs": 3, "max_steps": 22}, 15, 3),
        ({"max_epochs": 30, "max_steps": 22}, 22, 5),
    ],
)
@pytest.mark.parametrize("val_fraction", [0.0, 0.02])
def test_the_trainer_counts_steps_and_epochs(
    make_trainer: MakeTrainer,
    limits: dict[str, int],
    steps: int,
    epochs: int,
    steps_per_execution: int,
    val_fraction: float,
) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=val_fraction, steps_per_execution=steps_per_execution)
    traces = Traces()
    trainer = fitted(make_trainer, data, module_for(data), callbacks=[traces], **limits)
    assert data.steps_per_epoch == 5
    assert (trainer.global_step, trainer.current_epoch) == (steps, epochs)
    assert len(traces.losses) == steps
    # After each execution the epoch is that of its last step.
    assert [epoch for _, epoch in traces.counters] == [(step - 1) // 5 for step, _ in traces.counters]
    assert max(b - a for (a, _), (b, _) in zip([(0, 0), *traces.counters], traces.counters, strict=False)) <= max(
        steps_per_execution, 1
    )


def test_the_counters_are_those_of_an_ordinary_lightning_module(make_trainer: MakeTrainer) -> None:
    class Ordinary(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = hand_written()
            self.epochs: list[int] = []

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            self.epochs.append(self.trainer.current_epoch)
            return F.cross_entropy(self.network(batch[0]), batch[1])

    for limits in ({"max_steps": 12}, {"max_epochs": 3}):
        data = IrisDataModule(batch_size=30, shuffle=False, steps_per_execution=1)
        module, traces, ordinary = module_for(data, optimizer=OptimizerConfig("SGD", 0.1)), Traces(), Ordinary()
        trainer = fitted(make_trainer, data, module, callbacks=[traces], **limits)
        rows = data.splits["train"]
        batches = EvaluationBatches(rows, 30)
        other = make_trainer(**limits, callbacks=[])
        other.fit(ordinary, train_dataloaders=batches)
        assert (trainer.global_step, trainer.current_epoch) == (other.global_step, other.current_epoch)
        assert [epoch for _, epoch in traces.counters] == ordinary.epochs
        assert_same_weights(module, ordinary)


def test_executions_end_at_checkpoints_and_validations(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, steps_per_execution=1000, steps_between_checkpoints=6)
    traces = Traces()
    fitted(make_trainer, data, module_for(data), max_epochs=6, check_val_every_n_epoch=2, callbacks=[traces])
    # Four steps per epoch: a validation after every eighth.
    assert [step for step, _ in traces.counters] == [6, 8, 12, 16, 18, 24]


def test_gradients_are_clipped_as_asked(make_trainer: MakeTrainer) -> None:
    for algorithm, order in (("norm", 2.0), ("value", math.inf)):
        data = IrisDataModule()
        module = module_for(data, gradient_clip_val=0.001, gradient_clip_algorithm=algorithm)
        fitted(make_trainer, data, module, max_steps=1)
        gradient = torch.cat([one.grad.flatten() for one in module.parameters() if one.grad is not None])
        assert float(gradient.norm(order)) == pytest.approx(0.001, rel=1e-3)


def test_logging_follows_the_interval_of_the_trainer(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(batch_size=30, steps_per_execution=7)
    traces = Traces()
    module = module_for(data, scheduler=StepSchedule(step_size=2, gamma=0.5))
    fitted(make_trainer, data, module, max_steps=31, log_every_n_steps=5, callbacks=[traces])
    assert [one.step for one in traces.logged] == [0, 5, 10, 15, 20, 25, 30]
    assert [one.loss for one in traces.logged] == [float(loss) for loss in traces.losses[::5]]
    assert [one.lr for one in traces.logged] == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125]


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
def test_a_requested_stop_ends_the_run_after_the_step(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    data = IrisDataModule(batch_size=30, steps_per_execution=steps_per_execution)
    module = module_for(data)
    asked = 0

    class Impatient(nn.Module):
        """Asks for a stop while the twelfth step is being made."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, features_BF: Tensor) -> Tensor:
            nonlocal asked
            asked += 1
            if asked == 12:
                module.stop_requested = True
            return self.network(features_BF)

    module.mlp = Impatient(module.mlp)
    trainer = fitted(make_trainer, data, module, max_steps=100)
    assert trainer.global_step == asked == 12
    unhurried = module_for(data)
    fitted(make_trainer, IrisDataModule(batch_size=30), unhurried, max_steps=12)
    assert_same_weights(module, unhurried)


def test_a_run_without_a_limit_trains_until_it_is_stopped(make_trainer: MakeTrainer) -> None:
    class StopAtTwelve(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
            trainer.should_stop = trainer.global_step >= 12

    data = IrisDataModule(batch_size=30, steps_per_execution=4)
    trainer = fitted(make_trainer, data, module_for(data), max_epochs=-1, callbacks=[StopAtTwelve()])
    assert 12 <= trainer.global_step <= 15


def test_training_needs_a_data_module(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule()
    module = module_for(data)
    loader = data.evaluation_dataloader("train")
    with pytest.raises(RuntimeError, match="TabularDataModule"):
        make_trainer(max_steps=1).fit(module, train_dataloaders=loader, val_dataloaders=loader)


# ---- precision ---------------------------------------------------------------------------------------------


def test_double_precision_is_that_of_a_plain_loop(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(dtype=torch.float64, steps_per_execution=7)
    module = module_for(data, optimizer=OptimizerConfig("SGD", 0.1))
    traces = Traces()
    fitted(make_trainer, data, module, max_steps=20, precision="64-true", callbacks=[traces])
    reference = hand_written().double()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    rows, losses = data.splits["train"], []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(reference(rows.features_BF.double()), rows.targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert_same_bits(torch.stack(traces.losses), torch.stack(losses))
    assert_same_weights(module, reference)


def test_mixed_precision_sees_every_update_with_any_execution(make_trainer: MakeTrainer) -> None:
    modules, losses = [], []
    for steps_per_execution in (1, 20):
        data, traces = IrisDataModule(batch_size=50, steps_per_execution=steps_per_execution), Traces()
        modules.append(module_for(data))
        fitted(make_trainer, data, modules[-1], max_steps=20, precision="bf16-mixed", callbacks=[traces])
        losses.append(torch.stack(traces.losses))
    assert_same_bits(losses[0], losses[1])
    assert_same_weights(*modules)
    exact_data, exact = IrisDataModule(batch_size=50), Traces()
    fitted(make_trainer, exact_data, module_for(exact_data), max_steps=20, callbacks=[exact])
    assert not torch.equal(losses[0], torch.stack(exact.losses))
    assert_close(losses[0], torch.stack(exact.losses), atol=0.05)


# ---- schedules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
def test_cosine_lasts_as_long_as_the_run(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    for limits in ({"max_steps": 20}, {"max_epochs": 4}, {"max_epochs": 4, "max_steps": 1000}):
        data, traces = IrisDataModule(batch_size=30, steps_per_execution=steps_per_execution), Traces()
        module = module_for(data, scheduler=CosineSchedule(eta_min=0.02))
        trainer = fitted(make_trainer, data, module, callbacks=[traces], log_every_n_steps=1, **limits)
        expected = [0.02 + 0.04 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
        assert_close([one.lr for one in traces.logged], expected)
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.02)


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
@pytest.mark.parametrize("every_n_epochs", [1, 2])
def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate_after_validations(
    make_trainer: MakeTrainer, steps_per_execution: int, every_n_epochs: int
) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, steps_per_execution=steps_per_execution)
    # No improvement can be as large as this threshold: every validation halves the learning rate.
    plateau = PlateauSchedule(factor=0.5, patience=0, threshold=10.0)
    module, traces = module_for(data, scheduler=plateau), Traces()
    trainer = fitted(
        make_trainer,
        data,
        module,
        max_epochs=8,
        check_val_every_n_epoch=every_n_epochs,
        log_every_n_steps=4,
        callbacks=[traces],
    )
    assert [one.lr for one in traces.logged] == [0.1 * 0.5 ** (epoch // every_n_epochs) for epoch in range(8)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1 * 0.5 ** (8 // every_n_epochs)


def test_only_validations_of_the_training_step_a_plateau(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2)
    plateau = PlateauSchedule(factor=0.5, patience=0, threshold=10.0)
    module = module_for(data, scheduler=plateau)
    # The check before training (Lightning's default) and one after it do not count.
    trainer = fitted(make_trainer, data, module, max_epochs=3, num_sanity_val_steps=2)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    trainer.validate(module, datamodule=data, verbose=False)
    assert rate == 0.1 * 0.5**3
    assert module._schedule is not None
    assert module._schedule.scheduler.last_epoch == 3
