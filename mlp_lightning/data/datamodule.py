"""The LightningDataModule of every table."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.config import Config, DataConfig
from mlp_lightning.data.description import describe
from mlp_lightning.data.own_trainer import batches_per_epoch, epochs_between_ends, overfit_batches, steps_between_ends
from mlp_lightning.data.preparation import Preparation
from mlp_lightning.data.reading import Given
from mlp_lightning.engines.rows import EvaluationBatches, Rows
from mlp_lightning.engines.steps import ExecutionLimits, ExecutionLoader, TrainingSteps
from mlp_lightning.errors import CheckpointError
from mlp_lightning.networks.baseline import Baseline
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import task_class
from mlp_lightning.tables.datasets import describer
from mlp_lightning.tables.fingerprint import differences
from mlp_lightning.tables.targets import Target

if TYPE_CHECKING:
    from typing_extensions import Self


def auto_batch_size(rows: int) -> int:
    """Rows per batch that suit so many training rows: small ones where few rows make few steps."""
    for limit, batch_size in ((256, 32), (4_096, 64), (65_536, 256)):
        if rows < limit:
            return batch_size
    return 1_024


class TabularDataModule(pl.LightningDataModule):
    """A table held in memory: whole batches are indexed at once, on the device that trains.

    XOR, iris and the other data sets are tables as files are. Kinds of columns, categories, scales and gaps are taken
    from the training rows alone. The rows of :attr:`splits` are prepared already; a model keeps the preparation as a
    part of itself and takes raw rows. The split is stratified by class, or by several labels; that of a
    regression is random.

    Args:
        options: which table, what its columns are, its split and batches. ``None``: all by default.
        task: ``auto``, or one of :data:`~mlp_lightning.networks.tasks.TASKS`.
        given: what is known of the rows beside, such as a table in memory.
        seed: decides the order, and the split unless ``options.split_seed`` does.
        accumulate_grad_batches: batches whose gradients make one optimizer step.
        steps_per_execution: most optimizer steps inside one ``training_step``.
        steps_between_checkpoints: executions also end at every multiple of it.
        dtype: floating point type of the prepared rows.
        further: single options of :class:`~mlp_lightning.config.DataConfig`, on top of ``options``.

    Example:
        >>> data = TabularDataModule(name="wine", val_fraction=0.2)
        >>> data.setup()
        >>> data.task, data.in_features, len(data.splits["val"])
        ('multiclass', 13, 36)
    """

    def __init__(
        self,
        options: DataConfig | None = None,
        task: str = "auto",
        given: Given | None = None,
        seed: int = 0,
        accumulate_grad_batches: int = 1,
        steps_per_execution: int = 1,
        steps_between_checkpoints: int | None = None,
        dtype: torch.dtype = torch.float32,
        **further: Any,
    ) -> None:
        super().__init__()
        if options is None:
            further.setdefault("name", "table")
            self.options = DataConfig(**further)  # like this, LightningCLI knows the single options
        else:
            changes = dict(further)
            self.options = dataclasses.replace(options, **changes)
        self.seed = seed
        self.accumulate_grad_batches = accumulate_grad_batches
        self.steps_per_execution = steps_per_execution
        self.steps_between_checkpoints = steps_between_checkpoints
        self.dtype = dtype
        self._task = task
        self._given = Given() if given is None else given
        self._rows: Preparation | None = None
        self._described: list[str] | None = None
        self._on_device: dict[str, Rows] = {}

    @classmethod
    def from_config(cls, config: Config, given: Given | None = None) -> Self:
        """The data module that a configuration asks for, not yet set up.

        Args:
            config: of the run.
            given: what is known of the rows beside.
        """
        checkpoint = config.callbacks.checkpoint
        return cls(
            config.data,
            config.task,
            dataclasses.replace(given or Given(), allow_targets=config.allow_targets),
            config.seed,
            config.trainer.accumulate_grad_batches,
            steps_between_checkpoints=checkpoint.every_n_steps if checkpoint is not None else None,
            dtype=torch.float64 if config.trainer.precision == "64" else torch.float32,
        )

    def setup(self, stage: str | None = None) -> None:
        """Read, split and prepare the rows; a second call does nothing."""
        if self._rows is None:
            self._rows = Preparation(self.options, self._task, self.seed, self.dtype, self._given)
            self._given = Given()  # a table in memory is needed no longer

    def with_seed(self, seed: int) -> Self:
        """The same rows in another order; only where the seed decides nothing else."""
        assert not self.options.split_follows_seed
        other = copy.copy(self)
        other.seed = seed
        return other

    # ---- what the rows say, once they are set up ---------------------------------------------------------

    @property
    def rows(self) -> Preparation:
        """What became of the table."""
        if self._rows is None:
            raise RuntimeError("Call setup() first: what the data are is known once they are read.")
        return self._rows

    @property
    def splits(self) -> dict[str, Rows]:
        """The prepared rows of each split; empty before they are set up."""
        return {} if self._rows is None else self._rows.splits

    @property
    def target(self) -> Target:
        return self.rows.target

    @property
    def preprocessor(self) -> Preprocessor:
        """What prepared the rows."""
        return self.rows.preprocessor

    @property
    def row_numbers(self) -> dict[str, NDArray[np.int64]]:
        """For each split the row numbers in its table, in the order of the split."""
        return self.rows.row_numbers

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of its tables, as :mod:`mlp_lightning.tables.fingerprint` describes it."""
        return self.rows.fingerprint

    @property
    def task(self) -> str:
        return self.target.task

    @property
    def in_features(self) -> int:
        return self.preprocessor.out_features

    @property
    def out_features(self) -> int:
        """Number of logits that a model of these rows returns."""
        return task_class(self.task).out_features(self.target)

    @property
    def cardinalities(self) -> Sequence[int]:
        """Number of codes of each of the last features, which are categories to embed."""
        return self.preprocessor.cardinalities

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a model of these rows needs to take raw rows, as plain data that other modules share."""
        return dict(self.rows.preprocessing)

    def changes_since(
        self, fingerprint: Mapping[str, Any] | None, preprocessing: Any, statistics: Mapping[str, Tensor]
    ) -> str:
        """How its rows differ from those that a model was trained on; empty if they do not.

        Args:
            fingerprint: of those rows; ``None`` for a model of a version that did not keep it.
            preprocessing: of the model, as :attr:`preprocessing`.
            statistics: state dict of the model's preprocessor.
        """
        changes = "" if fingerprint is None else differences(fingerprint, self.fingerprint)
        state = self.preprocessor.state_dict()
        same = all(torch.equal(value.cpu(), statistics[name].cpu()) for name, value in state.items())
        then, now = _without_quartiles(preprocessing), _without_quartiles(self.preprocessing)
        if changes or (same and then == now):
            return changes
        if same and _without_forms(then) == _without_forms(now):
            return "the same values, but numbers or dates are written in another way"
        return "its columns, categories, scales or targets differ"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a Trainer of your own keeps of the rows."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to continue a training on other rows; other rows may be validated and tested.

        Raises:
            CheckpointError: the rows have changed.
        """
        is_fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        changes = differences(state_dict["fingerprint"], self.fingerprint) if is_fitting else ""
        if changes:
            raise CheckpointError(
                f"ckpt_path: the checkpoint was trained on other rows than {self.table_name} has now: {changes}. Bring"
                " the table back as it was, or train anew on it (leave ckpt_path out)."
            )

    @property
    def table_name(self) -> str:
        """What messages call the table."""
        return self.options.title

    @property
    def baseline(self) -> Baseline:
        """What would be predicted without looking at the features."""
        return self.rows.baseline

    @property
    def shares(self) -> Sequence[float]:
        """The share of the training rows of each class, or of the second class of each of several targets."""
        return self.rows.shares

    @property
    def baseline_metrics(self) -> dict[str, dict[str, float]]:
        """Its loss and metric on the rows of every split."""
        return self.rows.baseline_metrics

    def describe(self) -> list[str]:
        """What was read, what is predicted, and what each column is."""
        if self._described is None:  # many members of a stack may share it
            self._described = describe(self.rows)
        return self._described

    @property
    def describes_predictions(self) -> bool:
        """Whether there is something to print about the final predictions of all training rows."""
        as_it_is = self.options.target is None and self._task == "auto"
        return as_it_is and describer(self.options.name) is not None

    def describe_predictions(self, predictions_BC: NDArray[np.float32]) -> str:
        """What to print about the final predictions of all training rows; nothing for most data sets."""
        describe_them = describer(self.options.name) if self.describes_predictions else None
        return "" if describe_them is None else describe_them(predictions_BC, self.splits["train"].targets.numpy())

    # ---- from rows to steps ------------------------------------------------------------------------------

    @property
    def training_steps(self) -> TrainingSteps:
        """Which training rows each optimizer step sees."""
        # Lightning too takes the same batches in every epoch when it is to overfit them.
        shuffle = self.options.shuffle and not (self.trainer is not None and overfit_batches(self.trainer))
        return self._steps(self.rows_on_device("train"), shuffle, self.seed)

    @property
    def steps_per_epoch(self) -> int:
        return self._steps(self.splits["train"]).steps_per_epoch

    def _steps(self, rows: Rows, shuffle: bool = True, seed: int = 0) -> TrainingSteps:
        limit = batches_per_epoch(self.trainer)
        return TrainingSteps(rows, self._batch_rows, self.accumulate_grad_batches, shuffle, seed, limit)

    @property
    def _batch_rows(self) -> int | None:
        wanted = self.options.batch_size
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
            epochs_between_ends(trainer, "val" in self.splits),
            steps_between_ends(trainer, self.steps_between_checkpoints),
            min(ends, default=None),
        )


class XORDataModule(TabularDataModule):
    """The four points of exclusive or, as they are: 2 features, 1 binary target."""

    def __init__(self, scaling: str = "none", **options: Any) -> None:
        super().__init__(name="xor", scaling=scaling, **options)


class IrisDataModule(TabularDataModule):
    """Fisher's iris as it is: four lengths in cm of 150 flowers, of three species."""

    def __init__(self, scaling: str = "none", **options: Any) -> None:
        super().__init__(name="iris", scaling=scaling, **options)


def _without_quartiles(preprocessing: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The preprocessing of a model without what earlier versions did not keep, and no prediction depends on."""
    return None if preprocessing is None else {key: one for key, one in preprocessing.items() if key != "quartiles"}


def _without_forms(preprocessing: Mapping[str, Any] | None) -> dict[str, Any]:
    """The preprocessing of a model without how the texts of its numbers and dates are written."""
    known = dict(preprocessing or {})
    columns = [{**one, "format": None} for one in known.get("columns", ())]
    return {**known, "columns": columns, "number_forms": None}
