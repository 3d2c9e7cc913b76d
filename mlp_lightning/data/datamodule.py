"""The LightningDataModule that every data set of this package derives from."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray

from mlp_lightning.config import Config
from mlp_lightning.engines.rows import EvaluationBatches, Rows
from mlp_lightning.engines.steps import ExecutionLimits, ExecutionLoader, TrainingSteps
from mlp_lightning.errors import DataError
from mlp_lightning.tables.splits import random_split, stratified_split

if TYPE_CHECKING:
    from typing_extensions import Self


def auto_batch_size(rows: int) -> int:
    """Rows per batch that suit so many training rows: small ones where few rows make few steps."""
    for limit, batch_size in ((256, 32), (4_096, 64), (65_536, 256)):
        if rows < limit:
            return batch_size
    return 1_024


class TabularDataModule(pl.LightningDataModule, abc.ABC):
    """A table held in memory: whole batches are indexed at once, on the device that trains.

    A subclass says what its table is (:meth:`load`) and which ``task`` it poses. The split is
    stratified by class (random for a regression). Standardising statistics are taken from the training rows alone
    and handed to the model (:attr:`feature_mean_F`, :attr:`feature_scale_F`), which applies them itself, so
    the rows here stay raw.

    Args:
        batch_size: rows per batch; ``None`` for all training rows at once, ``auto`` to choose by their number.
        val_fraction: share of all rows kept for validation.
        test_fraction: share of all rows kept for the test.
        standardize: whether the model scales features to mean 0 and deviation 1.
        shuffle: whether to draw a new order in every epoch.
        seed: decides the split and the order.
        accumulate_grad_batches: batches whose gradients make one optimizer step.
        steps_per_execution: most optimizer steps inside one ``training_step``.
        steps_between_checkpoints: executions also end at every multiple of it.
        dtype: floating point type of the rows on the device.
    """

    task: str
    class_names: tuple[str, ...] = ()
    #: What the columns would be called in a table.
    feature_names: tuple[str, ...] = ()
    target_name: str = "target"
    #: What a model of these rows needs to take raw rows of a table, as plain data; ``None`` without a table.
    preprocessing: dict[str, Any] | None = None
    #: How many of the first features are numbers that can be embedded.
    numeric_features: int = 0
    #: Number of codes of each of the last features, which are categories to embed.
    cardinalities: Sequence[int] = ()

    def __init__(
        self,
        batch_size: int | Literal["auto"] | None = None,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        standardize: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        accumulate_grad_batches: int = 1,
        steps_per_execution: int = 1,
        steps_between_checkpoints: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.standardize = standardize
        self.shuffle = shuffle
        self.seed = seed
        self.accumulate_grad_batches = accumulate_grad_batches
        self.steps_per_execution = steps_per_execution
        self.steps_between_checkpoints = steps_between_checkpoints
        self.dtype = dtype
        self.splits: dict[str, Rows] = {}
        self._on_device: dict[str, Rows] = {}

    @classmethod
    def from_config(cls, config: Config, **further: Any) -> Self:
        """The data module that a configuration asks for, not yet set up.

        Args:
            config: of the run.
            further: arguments of a subclass.
        """
        options, checkpoint = config.data, config.callbacks.checkpoint
        return cls(
            batch_size=options.batch_size,
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            standardize=options.standardize,
            shuffle=options.shuffle,
            seed=config.seed,
            accumulate_grad_batches=config.trainer.accumulate_grad_batches,
            steps_between_checkpoints=checkpoint.every_n_steps if checkpoint is not None else None,
            dtype=torch.float64 if config.trainer.precision == "64" else torch.float32,
            **further,
        )

    @abc.abstractmethod
    def load(self) -> tuple[NDArray[np.float32], NDArray[np.int64] | NDArray[np.float32]]:
        """All rows: features ``(B, F)`` and targets as :class:`~mlp_lightning.engines.rows.Rows` has them."""

    def describe_predictions(self, predictions_BC: NDArray[np.float32]) -> str:
        """What to print about the final predictions of all training rows; nothing by default."""
        return ""

    def setup(self, stage: str | None = None) -> None:
        """Load and split the rows; a second call does nothing."""
        if self.splits:
            return
        features_BF, targets = self.load()
        if self.task == "regression":
            parts = random_split(len(targets), self.val_fraction, self.test_fraction, self.seed)
        else:
            parts = stratified_split(targets.reshape(len(targets)), self.val_fraction, self.test_fraction, self.seed)
        rows = Rows(torch.from_numpy(features_BF), torch.from_numpy(targets))
        self.splits = {
            name: rows[torch.from_numpy(part)]
            for name, part in zip(("train", "val", "test"), parts, strict=True)
            if len(part)
        }
        if "train" not in self.splits:
            raise DataError(f"No training rows are left of {len(rows)}: lower data.val_fraction or data.test_fraction.")

    @property
    def in_features(self) -> int:
        return self.splits["train"].features_BF.shape[1]

    @property
    def out_features(self) -> int:
        """Number of logits that a model of these rows returns."""
        if self.task == "multiclass":
            return len(self.class_names)
        return self.splits["train"].targets.shape[1]

    @property
    def feature_mean_F(self) -> torch.Tensor:
        """What the model subtracts from each feature."""
        features_BF = self.splits["train"].features_BF.double()
        return features_BF.mean(0).float() if self.standardize else torch.zeros(self.in_features)

    @property
    def feature_scale_F(self) -> torch.Tensor:
        """What the model then divides each feature by: the deviation, 1 for a constant feature."""
        if not self.standardize:
            return torch.ones(self.in_features)
        deviation_F = self.splits["train"].features_BF.double().std(0, correction=0)
        return torch.where(deviation_F > 0, deviation_F, 1.0).float()

    def prepared(self, features_BF: torch.Tensor) -> torch.Tensor:
        """The rows of a split as the network takes them."""
        if self.preprocessing is not None:
            return features_BF  # the rows of a table are kept prepared: raw ones take more memory
        return (features_BF - self.feature_mean_F.to(features_BF)) / self.feature_scale_F.to(features_BF)

    def preprocessor_state(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The buffers of the part of a model that prepares raw rows."""
        return {"mean_F": self.feature_mean_F.to(dtype), "scale_F": self.feature_scale_F.to(dtype)}

    def describe(self) -> list[str]:
        """Lines on what the data are, for the user; nothing by default."""
        return []

    @property
    def target_statistics(self) -> dict[str, Sequence[float]]:
        """Arguments of :func:`~mlp_lightning.networks.make_task` on how targets are standardised; none by default."""
        return {}

    @property
    def training_steps(self) -> TrainingSteps:
        """Which training rows each optimizer step sees."""
        return TrainingSteps(
            self.rows_on_device("train"), self._batch_rows, self.accumulate_grad_batches, self.shuffle, self.seed
        )

    @property
    def steps_per_epoch(self) -> int:
        return TrainingSteps(self.splits["train"], self._batch_rows, self.accumulate_grad_batches).steps_per_epoch

    @property
    def _batch_rows(self) -> int | None:
        wanted = self.batch_size
        return auto_batch_size(len(self.splits["train"])) if isinstance(wanted, str) else wanted

    def rows_on_device(self, split: str) -> Rows:
        """The rows of a split on the device of the Trainer (the CPU without one); moved there once."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        moved = self._on_device.get(split)
        if moved is None or moved.features_BF.device != device:
            moved = self._on_device[split] = self.splits[split].to(device, self.dtype)
        return moved

    def train_dataloader(self) -> ExecutionLoader:
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("train_dataloader() needs a Trainer: it follows the Trainer's step count.")
        return ExecutionLoader(self.training_steps, lambda: self.limits(trainer), lambda: trainer.global_step)

    def val_dataloader(self) -> EvaluationBatches | list[EvaluationBatches]:
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> EvaluationBatches | list[EvaluationBatches]:
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> EvaluationBatches | list[EvaluationBatches]:
        """All rows of a split, once; an empty list for a split without rows."""
        return EvaluationBatches(self.rows_on_device(split)) if split in self.splits else []

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:
        """Nothing to do: the rows are on the device already."""
        return batch

    def limits(self, trainer: pl.Trainer) -> ExecutionLimits:
        """Where executions and spans have to end, by the Trainer's settings."""
        ends = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            ends.append(trainer.max_epochs * self.steps_per_epoch)
        return ExecutionLimits(
            self.steps_per_execution,
            trainer.check_val_every_n_epoch if "val" in self.splits else None,
            self.steps_between_checkpoints,
            min(ends, default=None),
        )
