"""The LightningModule under an ordinary Trainer, against a loop written by hand from the same weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from support.tolerances import assert_close, assert_same_bits, assert_same_state, assert_same_weights
from torch import Tensor, nn

from mlp_lightning.config import ModelConfig, OptimizerConfig
from mlp_lightning.config.schema import CosineSchedule, PlateauSchedule, StepSchedule
from mlp_lightning.data import TabularDataModule
from mlp_lightning.data.iris import IrisDataModule
from mlp_lightning.data.xor import XORDataModule
from mlp_lightning.engines.rows import EvaluationBatches
from mlp_lightning.networks import MLP
from mlp_lightning.runs.module import MLPModule

pytestmark = pytest.mark.usefixtures("one_thread")  # matrices as small as these lose by a second

MakeTrainer = Callable[..., pl.Trainer]
MODEL = ModelConfig(hidden_units=[8, 5], activation="tanh")
EXECUTIONS = [1, 7, 1000]


class Line(TabularDataModule):
    """``target_count`` linear functions of three features, with a little noise."""

    task = "regression"

    def __init__(self, target_count: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.target_count = target_count

    def load(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        draw = np.random.default_rng(0)
        features_BF = draw.normal(size=(50, 3))
        targets_BT = features_BF @ draw.normal(size=(3, self.target_count)) + 2.0
        return features_BF.astype(np.float32), (targets_BT + draw.normal(0, 0.01, targets_BT.shape)).astype(np.float32)


def module_for(data: TabularDataModule, **options: Any) -> MLPModule:
    data.setup()
    module = MLPModule(data.in_features, data.out_features, data.task, **{"model": MODEL, "seed": 3, **options})
    module.preprocessor.mean_F.copy_(data.feature_mean_F)
    module.preprocessor.scale_F.copy_(data.feature_scale_F)
    return module


def fitted(
    make_trainer: MakeTrainer,
    data: TabularDataModule,
    module: MLPModule,
    checkpoint: Path | None = None,
    **settings: Any,
) -> pl.Trainer:
    data.setup()
    if "val" not in data.splits:
        settings["limit_val_batches"] = 0
    trainer = make_trainer(**settings)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return trainer


class Traces(pl.Callback):
    """Keeps the losses and logged steps of all executions, and the Trainer's counters after each."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.logged: list[Any] = []
        self.counters: list[tuple[int, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *rest: Any) -> None:
        self.losses += outputs["trace"].losses
        self.logged += outputs["trace"].logged
        self.counters.append((trainer.global_step, trainer.current_epoch))


def hand_written(seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))


def trained_by_hand(data: IrisDataModule, steps: int, batch_size: int, lr: float) -> tuple[nn.Sequential, list[float]]:
    """Plain mini-batch SGD with momentum on standardised features."""
    model = hand_written()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    rows = data.splits["train"]
    features_BF = (rows.features_BF - data.feature_mean_F) / data.feature_scale_F
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


# ---- initial weights ---------------------------------------------------------------------------------------


def test_the_seed_gives_the_weights_of_the_hand_written_network_and_moves_no_generator() -> None:
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    module = MLPModule(4, 3, "multiclass", MODEL, seed=3)
    assert_same_bits(torch.random.get_rng_state(), state)
    assert_same_weights(module, hand_written())


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
def test_training_is_that_of_a_plain_loop(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    data = IrisDataModule(
        batch_size=32, standardize=True, val_fraction=0.2, seed=5, steps_per_execution=steps_per_execution
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


def test_a_run_without_a_limit_goes_on_until_it_is_stopped(make_trainer: MakeTrainer) -> None:
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


def test_mixed_precision_sees_every_update_whatever_the_execution(make_trainer: MakeTrainer) -> None:
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
def test_a_plateau_of_the_validation_loss_lowers_the_rate_after_validations(
    make_trainer: MakeTrainer, steps_per_execution: int, every_n_epochs: int
) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, steps_per_execution=steps_per_execution)
    # No improvement can be as large as this threshold: every validation halves the rate.
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
    # The check before training (Lightning's own default) and one after it do not count.
    trainer = fitted(make_trainer, data, module, max_epochs=3, num_sanity_val_steps=2)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    trainer.validate(module, datamodule=data, verbose=False)
    assert rate == 0.1 * 0.5**3
    assert module._schedule is not None
    assert module._schedule.scheduler.last_epoch == 3


# ---- validation and test -----------------------------------------------------------------------------------


def figures(trainer: pl.Trainer, split: str, metric: str = "accuracy") -> tuple[float, float]:
    """Loss and metric that the Trainer has for a split."""
    return float(trainer.callback_metrics[f"loss/{split}"]), float(trainer.callback_metrics[f"{metric}/{split}"])


def figures_by_hand(module: MLPModule, data: TabularDataModule, split: str) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in double precision, row by row."""
    network = copy.deepcopy(module).double().eval()
    rows = data.splits[split]
    losses, hits = [], []
    with torch.no_grad():
        for features_F, label in zip(rows.features_BF.double(), rows.targets, strict=True):
            standardised_F = (features_F - data.feature_mean_F.double()) / data.feature_scale_F.double()
            logits_C = network.mlp(standardised_F.unsqueeze(0))[0]
            losses.append(float(logits_C.logsumexp(0) - logits_C[label]))
            hits.append(int(logits_C.argmax()) == int(label))
    return sum(losses) / len(losses), sum(hits) / len(hits)


@pytest.mark.parametrize("steps_per_execution", [1, 1000])
def test_validation_figures_by_hand(make_trainer: MakeTrainer, steps_per_execution: int) -> None:
    class AtValidation(pl.Callback):
        def __init__(self) -> None:
            self.found: list[tuple[float, float]] = []
            self.expected: list[tuple[float, float]] = []

        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.found.append(figures(trainer, "val"))
            assert isinstance(pl_module, MLPModule)
            self.expected.append(figures_by_hand(pl_module, data, "val"))

    data = IrisDataModule(batch_size=30, val_fraction=0.3, standardize=True, steps_per_execution=steps_per_execution)
    module, seen = module_for(data), AtValidation()
    fitted(
        make_trainer, data, module, max_epochs=6, check_val_every_n_epoch=2, num_sanity_val_steps=0, callbacks=[seen]
    )
    assert len(seen.found) == 3
    assert_close(torch.tensor(seen.found), torch.tensor(seen.expected), atol=1e-5)
    assert len(set(seen.found)) == 3


def test_test_figures_by_hand(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(batch_size=30, val_fraction=0.2, test_fraction=0.2, standardize=True)
    module = module_for(data)
    trainer = fitted(make_trainer, data, module, max_epochs=5)
    trainer.test(module, datamodule=data, verbose=False)
    assert_close(figures(trainer, "test"), figures_by_hand(module, data, "test"), atol=1e-5)
    loaders = {split: data.evaluation_dataloader(split) for split in data.splits}
    trainer.test(module, dataloaders=loaders, verbose=False)
    for split in ("train", "val", "test"):
        assert_close(figures(trainer, split), figures_by_hand(module, data, split), atol=1e-5)


def test_figures_do_not_depend_on_how_rows_are_batched(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.3)
    module = module_for(data)
    found = []
    for batch_size in (45, 7, 1):
        trainer = make_trainer()
        trainer.validate(module, EvaluationBatches(data.rows_on_device("val"), batch_size), verbose=False)
        found.append(figures(trainer, "val"))
    assert_close(torch.tensor(found[1:]), torch.tensor([found[0]] * 2))


def test_binary_figures_of_an_untrained_network(make_trainer: MakeTrainer) -> None:
    data = XORDataModule()
    module = module_for(data, model=ModelConfig(hidden_units=2, init="zeros"))
    trainer = make_trainer()
    trainer.test(module, dataloaders=data.evaluation_dataloader("train"), verbose=False)
    # All logits are 0: every probability is one half, which is class 0.
    assert_close(figures(trainer, "test"), [math.log(2), 0.5])


def test_validation_is_without_dropout_and_leaves_the_module_training(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2)
    module = module_for(data, model=ModelConfig(hidden_units=[8, 5], activation="tanh", dropout=0.5))
    trainer = fitted(make_trainer, data, module, max_epochs=2)
    assert_close(figures(trainer, "val"), figures_by_hand(module, data, "val"), atol=1e-5)
    assert module.mlp.training


def test_a_loss_that_is_no_number_is_said_to_be_none(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2)
    module = module_for(data)
    trainer = make_trainer()
    nn.init.constant_(module.mlp.layers[0].weight, math.nan)
    trainer.validate(module, EvaluationBatches(data.rows_on_device("val"), 7), verbose=False)
    assert math.isnan(trainer.callback_metrics["loss/val"])


# ---- raw rows and checkpoints ------------------------------------------------------------------------------


def test_forward_takes_raw_rows() -> None:
    data = IrisDataModule(standardize=True)
    module = module_for(data)
    rows = data.splits["train"]
    raw_BF = rows.features_BF.double().numpy()
    standardised_BF = torch.from_numpy((raw_BF - raw_BF.mean(0)) / raw_BF.std(0)).float()
    assert_close(module(rows.features_BF), hand_written()(standardised_BF), atol=1e-5)


def test_a_checkpoint_has_all_it_takes(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule(batch_size=30, standardize=True, val_fraction=0.2, steps_per_execution=7)
    module = module_for(
        data,
        model=ModelConfig(hidden_units=[8, 5], activation="gelu", norm="batch", dropout=0.2),
        optimizer=OptimizerConfig("AdamW", 0.01, {"betas": [0.8, 0.99]}),
        scheduler=CosineSchedule(eta_min=1e-4),
        gradient_clip_val=0.5,
        histograms_every_n_steps=10,
    )
    trainer = fitted(make_trainer, data, module, max_steps=20)
    path = tmp_path / "some.ckpt"
    trainer.save_checkpoint(path)
    loaded = MLPModule.load_from_checkpoint(path, weights_only=True)
    assert_same_state(loaded.state_dict(), module.state_dict())
    assert dict(loaded.hparams) == dict(module.hparams)
    assert (loaded.config.optimizer, loaded.config.scheduler) == (module.config.optimizer, module.config.scheduler)
    rows = data.splits["val"]
    with torch.no_grad():
        assert_same_bits(loaded.eval()(rows.features_BF), module.eval()(rows.features_BF))


def test_loading_does_not_depend_on_the_global_generator(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = IrisDataModule()
    module = module_for(data)
    fitted(make_trainer, data, module, max_steps=3).save_checkpoint(tmp_path / "some.ckpt")
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    MLPModule.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    assert_same_bits(torch.random.get_rng_state(), state)


def test_hyperparameters_are_plain_data() -> None:
    module = MLPModule(4, 3, "multiclass", MODEL, OptimizerConfig("Adam", 0.01), CosineSchedule(), seed=0)
    plain = {type(one) for one in module.hparams.values()}
    assert plain <= {int, str, dict, float, type(None)}
    again = MLPModule(**dict(module.hparams))
    assert_same_weights(again, module)
    assert again.config.optimizer == OptimizerConfig("Adam", 0.01)
    assert again.config.scheduler == CosineSchedule()


def test_all_but_the_sizes_and_the_task_has_a_default() -> None:
    module = MLPModule(4, 3, "multiclass")
    torch.manual_seed(0)
    assert_same_weights(module, MLP(4, 3, ModelConfig().layer_widths))
    assert module.config.optimizer == OptimizerConfig()


@pytest.mark.parametrize("steps_per_execution", EXECUTIONS)
@pytest.mark.parametrize("stopped_at", [3, 8, 17])
def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path, stopped_at: int, steps_per_execution: int
) -> None:
    def data() -> IrisDataModule:
        return IrisDataModule(batch_size=40, val_fraction=0.2, seed=2, steps_per_execution=steps_per_execution)

    options: dict[str, Any] = {
        "optimizer": OptimizerConfig("Adam", 0.01),
        "scheduler": PlateauSchedule(monitor="loss/train", factor=0.5, patience=0, threshold=0.05),
    }
    whole, part, resumed = (module_for(data(), **options) for _ in range(3))
    whole_trainer = fitted(make_trainer, data(), whole, max_steps=30)
    fitted(make_trainer, data(), part, max_steps=stopped_at).save_checkpoint(tmp_path / "part.ckpt")
    traces = Traces()
    trainer = fitted(make_trainer, data(), resumed, tmp_path / "part.ckpt", max_steps=30, callbacks=[traces])
    assert len(traces.losses) == 30 - stopped_at
    assert traces.counters[-1] == (30, 9)
    assert (trainer.global_step, trainer.current_epoch) == (whole_trainer.global_step, whole_trainer.current_epoch)
    assert_same_weights(resumed, whole)
    rates = [one.optimizers[0].param_groups[0]["lr"] for one in (trainer, whole_trainer)]
    assert rates[0] == rates[1] < 0.01


class SaveAt(pl.Callback):
    """Saves a checkpoint after the execution that ends at ``step``."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("after", EXECUTIONS)
@pytest.mark.parametrize("before", EXECUTIONS)
@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_a_run_may_go_on_cut_into_other_executions(
    make_trainer: MakeTrainer, tmp_path: Path, val_fraction: float, before: int, after: int
) -> None:
    def data(steps_per_execution: int, steps_between_checkpoints: int | None = None) -> IrisDataModule:
        return IrisDataModule(
            batch_size=10,
            val_fraction=val_fraction,
            steps_per_execution=steps_per_execution,
            steps_between_checkpoints=steps_between_checkpoints,
        )

    # In the middle of an epoch, and of what Lightning takes for one.
    path = tmp_path / "middle.ckpt"
    whole, resumed = module_for(data(before)), module_for(data(after))
    whole_trainer = fitted(make_trainer, data(before, 17), whole, max_epochs=5, callbacks=[SaveAt(17, path)])
    traces = Traces()
    trainer = fitted(make_trainer, data(after), resumed, path, max_epochs=5, callbacks=[traces])
    assert len(traces.losses) == whole_trainer.global_step - 17
    assert (trainer.global_step, trainer.current_epoch) == (whole_trainer.global_step, whole_trainer.current_epoch)
    assert_same_weights(resumed, whole)
    if val_fraction:
        assert figures(trainer, "val") == figures(whole_trainer, "val")


class SaveAtValidation(pl.Callback):
    """Saves a checkpoint at the end of the validation after ``step``; counts validations."""

    def __init__(self, step: int | None, path: Path) -> None:
        self.step = step
        self.path = path
        self.validated_at: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validated_at.append(trainer.global_step)
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("after", EXECUTIONS)
@pytest.mark.parametrize("before", EXECUTIONS)
def test_a_run_that_goes_on_after_a_validation_does_not_repeat_it(
    make_trainer: MakeTrainer, tmp_path: Path, before: int, after: int
) -> None:
    path = tmp_path / "validated.ckpt"

    def run(steps_per_execution: int, save_at: int | None) -> tuple[MLPModule, list[int], float]:
        data = IrisDataModule(batch_size=40, val_fraction=0.2, steps_per_execution=steps_per_execution)
        module = module_for(data, scheduler=PlateauSchedule(factor=0.5, patience=0, threshold=10.0))
        seen = SaveAtValidation(save_at, path)
        settings: dict[str, Any] = {"max_epochs": 8, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
        start = None if save_at is not None else path
        trainer = fitted(make_trainer, data, module, start, callbacks=[seen], **settings)
        return module, seen.validated_at, trainer.optimizers[0].param_groups[0]["lr"]

    whole, validated_at, rate = run(before, save_at=12)
    assert validated_at == [6, 12, 18, 24]
    resumed, validated_afterwards, rate_afterwards = run(after, save_at=None)
    assert validated_afterwards == [18, 24]
    assert rate_afterwards == rate
    assert_same_weights(resumed, whole)


# ---- regression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_count", [1, 2])
def test_a_regression_is_learned(make_trainer: MakeTrainer, target_count: int) -> None:
    data = Line(target_count, batch_size=10, standardize=True, steps_per_execution=100)
    module = module_for(data, model=ModelConfig(hidden_units=None), optimizer=OptimizerConfig("SGD", 0.1))
    trainer = fitted(make_trainer, data, module, max_epochs=40)
    rows = data.splits["train"]
    # The best linear model, from the normal equations.
    design_BF = np.column_stack([rows.features_BF.numpy(), np.ones(50)]).astype(np.float64)
    best, *_ = np.linalg.lstsq(design_BF, rows.targets.double().numpy(), rcond=None)
    with torch.no_grad():
        assert_close(module(rows.features_BF), design_BF @ best, atol=0.01)
    trainer.test(module, dataloaders=data.evaluation_dataloader("train"), verbose=False)
    with torch.no_grad():
        errors = (module(rows.features_BF) - rows.targets).double().numpy()
    assert_close(figures(trainer, "test", "mae"), [(errors**2).mean(), np.abs(errors).mean()])


# ---- a Trainer of one's own --------------------------------------------------------------------------------


def test_validate_and_test_return_their_figures(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(val_fraction=0.2, test_fraction=0.2)
    module = module_for(data)
    trainer = make_trainer()
    assert set(trainer.validate(module, datamodule=data, verbose=False)[0]) == {"loss/val", "accuracy/val"}
    assert set(trainer.test(module, datamodule=data, verbose=False)[0]) == {"loss/test", "accuracy/test"}


def test_features_are_standardised_as_the_data_module_says(make_trainer: MakeTrainer) -> None:
    data = IrisDataModule(standardize=True, val_fraction=0.2)
    module = MLPModule(4, 3, "multiclass")
    fitted(make_trainer, data, module, max_steps=1)
    assert_same_bits(module.preprocessor.mean_F, data.feature_mean_F)
    assert_same_bits(module.preprocessor.scale_F, data.feature_scale_F)
    # A module that has statistics keeps them: its weights were trained with them.
    other = IrisDataModule(standardize=True, seed=5, val_fraction=0.5)
    fitted(make_trainer, other, module, max_steps=1)
    assert_same_bits(module.preprocessor.mean_F, data.feature_mean_F)
