"""The LightningModule: an MLP with its preprocessing, task, optimizer and schedule.

Shapes: ``B`` rows, ``F`` input features, ``C`` outputs (logits).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from mlp_lightning.config import ModelConfig, OptimizerConfig, ScheduleConfig
from mlp_lightning.data.datamodule import TabularDataModule
from mlp_lightning.data.own_trainer import trainer_faults
from mlp_lightning.engines.autograd.loop import StepLoop
from mlp_lightning.engines.steps import Execution
from mlp_lightning.engines.trace import StepTrace
from mlp_lightning.errors import CheckpointError, ConfigError, Fault, shown_error
from mlp_lightning.networks.optimizers import Schedule, build_optimizer, build_schedule
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import make_task
from mlp_lightning.runs.checkpoint_content import MODULE, OF_ANOTHER, read_content
from mlp_lightning.runs.module_config import ModuleConfig
from mlp_lightning.runs.network import build_mlp, refuse_misfit
from mlp_lightning.runs.step_count import count_steps, set_epoch, set_steps
from mlp_lightning.tables.targets import Target


class MLPModule(pl.LightningModule):
    """Trains an :class:`~mlp_lightning.networks.mlp.MLP` on a :class:`~mlp_lightning.data.TabularDataModule`.

    One ``training_step`` runs all optimizer steps of one
    :class:`~mlp_lightning.engines.steps.Execution`, with torch's own optimizer (Lightning's manual
    optimization). ``forward`` takes raw rows: preprocessing is part of the model, taken from the data module that it
    is trained on. Before, rows go to the network as they are.

    All arguments are plain data, or dataclasses of plain data, and are kept as the module's hyperparameters,
    so ``MLPModule.load_from_checkpoint(path)`` needs nothing else.

    Args:
        in_features: F.
        out_features: C.
        task: one of :data:`~mlp_lightning.networks.tasks.TASKS`.
        model: shape of the MLP; a :class:`~mlp_lightning.config.ModelConfig` or its fields.
        optimizer: which optimizer; likewise.
        scheduler: how its learning rate changes; likewise.
        seed: the weights are those that ``torch.manual_seed(seed)`` draws in layer order.
        network: makes a network of your own in the place of the MLP, given ``in_features``, ``out_features`` and
            ``model.options``; needed where ``model`` has a ``_target_``, which is never imported from here.
        optimizer_class: likewise makes the optimizer.
        activation_class: likewise makes the activations, without arguments, where ``model.activation`` is an import
            path.
        further: other fields of :class:`~mlp_lightning.runs.module_config.ModuleConfig`, such as
            ``gradient_clip_val=1.0`` or ``label_smoothing=0.1``.
    """

    preprocessor: Preprocessor | nn.Identity
    target: Target | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        task: str,
        model: ModelConfig | Mapping[str, Any] | None = None,
        optimizer: OptimizerConfig | Mapping[str, Any] | None = None,
        scheduler: ScheduleConfig | Mapping[str, Any] | None = None,
        seed: int = 0,
        network: Callable[..., nn.Module] | None = None,
        optimizer_class: Callable[..., Optimizer] | None = None,
        activation_class: Callable[[], nn.Module] | None = None,
        **further: Any,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        sections: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self._configure(ModuleConfig(in_features, out_features, task, **sections, seed=seed, **further))
        with torch.random.fork_rng(devices=[]):
            # What torch.manual_seed does for the CPU; for the other devices it would keep a stack trace of every call.
            torch.default_generator.manual_seed(seed)
            self.mlp = build_mlp(self.config, self.preprocessor, network, activation_class)
        #: Of the user's own; with the hyperparameters they make the module again.
        self.own_parts: dict[str, Any] = {"network": network, "activation_class": activation_class}
        self._optimizer_class = optimizer_class
        self.stop_requested = False
        self._schedule: Schedule | None = None
        self._loop: StepLoop | None = None
        self._restored_epoch_loss = 0.0
        # Not registered as submodules: they hold no part of the model.
        self._meters: dict[str, tuple[MeanMetric, MeanMetric]] = {}
        self._measured: set[str] = set()

    def _configure(self, config: ModuleConfig) -> None:
        """Everything but the network, whose weights are kept."""
        self.config = config
        self.save_hyperparameters(config.to_dict(), logger=False)
        self.preprocessor, self.target = nn.Identity(), None
        if config.preprocessing is not None:
            self.preprocessor = Preprocessor.from_dict(config.preprocessing)
            self.target = Target.from_dict(config.preprocessing["target"])
        statistics = (self.target.mean, self.target.scale) if self.target is not None else ()
        self.task = make_task(config.task, config.out_features, *statistics)

    def forward(self, raw_BF: Tensor) -> Tensor:
        """Logits ``(B, C)`` of raw columns ``(B, F)``, which :mod:`mlp_lightning.tables.encoding` describes."""
        parameter = next(self.mlp.parameters())
        return self.mlp(self.preprocessor(raw_BF).to(parameter.device, parameter.dtype))

    def predict(self, raw_BF: Tensor) -> Tensor:
        """What :meth:`Task.predictions` makes of raw columns ``(B, F)``: probabilities, or values in their own units.

        In double precision, so that the probabilities of many classes add up to 1.
        """
        logits_BC = self(raw_BF)
        return self.task.predictions(logits_BC.double() if logits_BC.device.type != "mps" else logits_BC)

    def take_statistics(self, datamodule: TabularDataModule) -> None:
        """Let the model prepare raw rows as ``datamodule`` prepared the rows that it trains on.

        Raises:
            ValueError: they have other features, or another task.
        """
        config, sizes = self.config, (datamodule.in_features, datamodule.out_features, datamodule.task)
        if sizes != (config.in_features, config.out_features, config.task):
            raise ValueError(
                f"The module is MLPModule{config.in_features, config.out_features, config.task}, and the rows of the"
                f" data module need MLPModule{sizes}: features, outputs and task."
            )
        numbers = datamodule.preprocessor.numeric_features
        embeds_some = config.model.numeric_embedding != "none" and numbers != datamodule.in_features
        if config.preprocessing is None and (datamodule.cardinalities or embeds_some):
            raise ValueError(
                "The network was made without knowing which features are numbers and which are categories to embed."
                " Make it with MLPModule(…, preprocessing=datamodule.preprocessing), after datamodule.setup()."
            )
        if config.preprocessing != datamodule.preprocessing:
            self._configure(dataclasses.replace(config, preprocessing=datamodule.preprocessing))
        self.preprocessor.load_state_dict(datamodule.preprocessor.state_dict())
        embedding = getattr(self.mlp, "embedding", None)  # a network of your own has none
        if embedding is not None:
            embedding.take_statistics(datamodule.splits["train"].features_BF)

    def release(self) -> None:
        """Let go of the Trainer, the rows and all else that only training needs: what is left can be pickled."""
        self._trainer = None
        self._schedule = self._loop = None
        self._meters, self._measured = {}, set()

    def configure_callbacks(self) -> list[pl.Callback]:
        """No callbacks: it is the first hook, and refuses what the Trainer cannot have before Lightning does.

        Raises:
            ConfigError: with all that the Trainer asks for and would not get.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        steps = datamodule.steps_per_execution if isinstance(datamodule, TabularDataModule) else 1
        if faults := [*trainer_faults(self.trainer, datamodule, steps)]:
            raise ConfigError(faults)
        return []

    def setup(self, stage: str) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit":
            self.take_statistics(self._datamodule)
        elif self.config.preprocessing is None and isinstance(datamodule, TabularDataModule):
            self.take_statistics(datamodule)  # a checkpoint that is loaded next has the statistics of its rows

    # ---- training ----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.parameters(), self.config.optimizer, self._optimizer_class)
        has_validation = "val" in self._datamodule.splits
        self._schedule = build_schedule(optimizer, self.config.scheduler, self._total_steps(), has_validation)
        if self._schedule is None:
            return optimizer
        # Lightning saves and restores the scheduler; stepping it is up to the step loop.
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._schedule.scheduler}}

    def on_fit_start(self) -> None:
        """Give the loggers the hyperparameters: of the module without its preprocessing, and of the rows."""
        kept = self.config.to_dict()
        del kept["preprocessing"]
        data = self._datamodule
        of_rows = {**dataclasses.asdict(data.options), "seed": data.seed}
        of_rows["accumulate_grad_batches"] = data.accumulate_grad_batches
        for logger in self.trainer.loggers:
            logger.log_hyperparams({**kept, "data": of_rows})

    def on_train_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        if self._schedule is None and self.trainer.lr_scheduler_configs:
            # From LightningCLI, or a subclass: Lightning steps no schedule of a module that makes its own steps.
            name = type(self.trainer.lr_scheduler_configs[0].scheduler).__name__
            hint = 'give the module its own, such as scheduler={"name": "cosine"}'
            raise ConfigError([Fault("lr_scheduler", name, "is never stepped", hint)])
        self._loop = StepLoop(
            self.mlp,
            self.task,
            optimizer,
            self._schedule,
            self.trainer.log_every_n_steps or None,  # type: ignore[attr-defined]  # set by a connector of the Trainer
            self.config.histograms_every_n_steps,
            self.config.gradient_clip_val,
            self.config.gradient_clip_algorithm,
            lambda: self.stop_requested,
            self._restored_epoch_loss,
            self.config.label_smoothing,
            self.config.seed,
        )
        self._restored_epoch_loss = 0.0

    def training_step(self, execution: Execution, batch_idx: int) -> dict[str, StepTrace]:
        """Make all optimizer steps of an execution; the trace of them goes to the callbacks."""
        assert self._loop is not None
        trace = self._loop.run(execution)
        if trace.steps:
            self._log_training(trace)
        count_steps(self.trainer, trace.steps)
        if trace.steps:
            set_epoch(self.trainer, (trace.next_step - 1) // execution.training_steps.steps_per_epoch)
        if self.stop_requested:
            self.trainer.should_stop = True
        return {"trace": trace}

    def _log_training(self, trace: StepTrace) -> None:
        """Give the loggers the logged steps, at their true numbers, and the callbacks the newest loss."""
        # With self.log alone, an execution of many steps would have one point.
        self.log("loss/train", trace.losses[-1], prog_bar=True, logger=False)
        for logger in self.trainer.loggers if trace.logged else ():
            for one in trace.logged:
                metrics = {
                    "loss/train": one.loss,
                    f"{self.task.metric_name}/train": one.metric,
                    "learning_rate": one.lr,
                }
                logger.log_metrics(metrics, one.step)
            logger.save()

    @property
    def _datamodule(self) -> Any:
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None:
            raise RuntimeError("MLPModule trains on a TabularDataModule: Trainer.fit(module, datamodule=…)")
        return datamodule

    def _total_steps(self) -> int | None:
        """Length of the whole run in optimizer steps; ``None`` for a run without a limit."""
        limits = [self.trainer.max_steps] if self.trainer.max_steps >= 0 else []
        if self.trainer.max_epochs is not None and self.trainer.max_epochs >= 0:
            limits.append(self.trainer.max_epochs * self._datamodule.steps_per_epoch)
        return min(limits, default=None)

    # ---- checkpoints -------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning declares it by a descriptor
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: Any = None,
        **further: Any,
    ) -> MLPModule:
        """The module of a checkpoint, as Lightning loads it, after the file was checked; no code of it is run.

        Raises:
            CheckpointError: there is no such file, it is damaged, or it is not a checkpoint of an ``MLPModule``.
        """
        if isinstance(checkpoint_path, (str, Path)):
            path = Path(checkpoint_path)
            content = read_content(path, MODULE, "a checkpoint of an MLPModule")
            asked = {**content["hyper_parameters"], **further}
            known = {one.name for one in dataclasses.fields(ModuleConfig)}
            if cls is MLPModule:  # a subclass may have other arguments
                known |= {name for name in content["hyper_parameters"] if not name.startswith("_")}
            try:
                if hparams_file is None:
                    refuse_misfit({name: one for name, one in asked.items() if name in known}, content["state_dict"])
            except Exception as error:  # whatever is made of the content of a file
                raise CheckpointError(f"{path} {OF_ANOTHER} ({shown_error(error)}).") from error
            del content
        kept = map_location, hparams_file, strict
        return super().load_from_checkpoint(checkpoint_path, *kept, **{**further, "weights_only": True})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._loop is not None:
            checkpoint["epoch_loss"] = self._loop.epoch_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from the checkpoint's step count alone.

        Lightning would restore where its own loops were, in executions and spans, and those may be cut
        otherwise in the run that continues. Everything else follows from the number of steps made.
        """
        self._restored_epoch_loss = checkpoint.get("epoch_loss", 0.0)
        if self._trainer is not None and self.trainer.training:
            checkpoint.pop("loops", None)
            step = checkpoint["global_step"]
            set_steps(self.trainer, step)
            set_epoch(self.trainer, step // self._datamodule.steps_per_epoch)

    # ---- validation and test -----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._start_meters()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure("val", *batch)

    def on_validation_epoch_end(self) -> None:
        metrics = self._metrics()["val"]
        if self._is_fitting:
            self.log("step", float(self.trainer.global_step))  # Lightning's name for the x-axis of what is logged
        for name, value in metrics.items():
            self._log(f"{name}/val", value)
        if self._schedule is not None and self._schedule.moment == "validation" and self._is_fitting:
            self._schedule.scheduler.step(float(metrics["loss"]))  # type: ignore[arg-type]  # a plateau scheduler takes the loss

    def on_test_epoch_start(self) -> None:
        self._start_meters()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._measure(self.test_splits[dataloader_idx], *batch)

    def on_test_epoch_end(self) -> None:
        for split, metrics in self._metrics().items():
            for name, value in metrics.items():
                self._log(f"{name}/{split}", value)

    def _log(self, name: str, value: Tensor) -> None:
        # None means yes, but without Lightning's warning when the Trainer has no logger.
        self.log(name, value, logger=None)

    @property
    def _is_fitting(self) -> bool:
        """Whether this validation is one of a training run (during which ``trainer.training`` is off)."""
        return self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    @property
    def test_splits(self) -> tuple[str, ...]:
        """Which split each test data loader holds, in order."""
        loaders = self.trainer.test_dataloaders
        return tuple(loaders) if isinstance(loaders, Mapping) else ("test",)

    def _start_meters(self) -> None:
        """Forget what was measured before; the meters themselves are kept, as making them takes long."""
        self._measured.clear()
        for loss_meter, metric_meter in self._meters.values():
            loss_meter.reset()
            metric_meter.reset()

    def _measure(self, split: str, features_BF: Tensor, targets: Tensor) -> None:
        logits_BC = self.mlp(features_BF)
        if split not in self._meters:
            # A loss of NaN stays one, to be seen. ("disable" would do the same, but torchmetrics 1.9 then
            # forgets the weights.)
            self._meters[split] = (MeanMetric(nan_strategy=math.nan), MeanMetric(nan_strategy=math.nan))
        self._measured.add(split)
        loss_meter, metric_meter = (meter.to(self.device) for meter in self._meters[split])
        loss_meter.update(self.task.loss(logits_BC, targets), weight=features_BF.shape[0])
        metric_meter.update(self.task.metric(logits_BC, targets), weight=features_BF.shape[0])

    def _metrics(self) -> dict[str, dict[str, Tensor]]:
        """Loss and metric of every split that was measured."""
        return {
            split: {"loss": loss.compute(), self.task.metric_name: metric.compute()}
            for split, (loss, metric) in self._meters.items()
            if split in self._measured
        }
