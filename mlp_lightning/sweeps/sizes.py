"""Computes the sizes of runs, which decide whether they fit into one stack."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlp_lightning.config import Config, OwnDataConfig
from mlp_lightning.config.schema import CrossValidationConfig, plain
from mlp_lightning.config.shared import Remembered
from mlp_lightning.errors import MLPLightningError
from mlp_lightning.sweeps.grouping import Sizes

if TYPE_CHECKING:
    from mlp_lightning.data import TabularDataModule
    from mlp_lightning.tables.reading.sources import TableSource

# Options of ``data`` that say what is made of the rows that were read.
_OF_READ_ROWS = frozenset(
    {"val_fraction", "test_fraction", "split_seed", "cv", "batch_size", "shuffle", "suggested_lr"}
    | {"scaling", "max_one_hot", "class_weight"}
)


class SizesOf:
    """Computes the sizes of runs; data that several runs share is read once.

    Args:
        source: of the rows of all runs, instead of what their configurations name.
    """

    def __init__(self, source: TableSource | None = None) -> None:
        self._source = source
        self._sources: dict[str, TableSource] = {}
        self._known: dict[str, Sizes | MLPLightningError] = {}
        self._fingerprints: dict[str, Mapping[str, Any]] = {}

    def __call__(self, config: Config) -> Sizes:
        """The sizes of a run.

        Raises:
            MLPLightningError: the data cannot be used.
        """
        trainer = config.trainer
        length = [trainer.max_steps, trainer.max_epochs, trainer.accumulate_grad_batches]
        # The training rows decide which features there are, and a seed which rows these are. Whether labels can be
        # smoothed depends on the target, and whether something can be embedded on the columns.
        smooths, data = trainer.label_smoothing not in (0, "auto"), config.data
        seed = config.seed if data.split_follows_seed else None
        model = [config.model.norm, config.model.numeric_embedding, config.model.embedding_size]
        key = _text(config.sections()["data"]) + json.dumps([*length, seed, config.task, smooths, *model])
        if key not in self._known:
            try:
                built = self._built(config)
                self._known[key] = sizes_of_data(config, built)
                self._fingerprints.setdefault(_rows_key(config), built.fingerprint)
            except MLPLightningError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, MLPLightningError):
            raise known
        return known

    def fingerprint(self, config: Config) -> Mapping[str, Any]:
        """The fingerprint of the rows of a run, as they were when they were read first.

        Raises:
            MLPLightningError: the data cannot be used.
        """
        key = _rows_key(config)
        if key not in self._fingerprints:
            self._fingerprints[key] = self._built(config).fingerprint
        return self._fingerprints[key]

    def _built(self, config: Config) -> TabularDataModule:
        from mlp_lightning.data.reading import Given
        from mlp_lightning.runs.build import build_data

        return build_data(config, Given(self._source or self._source_of(config)))

    def _source_of(self, config: Config) -> TableSource | None:
        """The rows of a data set that needs no file, made once for all seeds; a file may have too many to keep."""
        from mlp_lightning.data.reading import open_source

        data = dataclasses.replace(config.data, cv=CrossValidationConfig())
        if data.name in ("table", "frame") and not isinstance(data, OwnDataConfig):
            return None
        key = json.dumps(plain(data))
        if key not in self._sources:
            self._sources[key] = open_source(data, config.allow_targets)
        return self._sources[key]

    def steps(self, config: Config) -> int:
        """Steps of a run; 0 if its data cannot be used."""
        try:
            return self(config).steps
        except MLPLightningError:
            return 0


def _rows_key(config: Config) -> str:
    """What decides which rows are read, and whether they have several labels, whatever is made of them."""
    return f"{config.task} {_text_of_rows(config.sections()['data'])}"


_text = Remembered(json.dumps)
_text_of_rows = Remembered(
    lambda section: json.dumps({name: value for name, value in section.items() if name not in _OF_READ_ROWS})
)


def sizes_of_data(config: Config, data: TabularDataModule) -> Sizes:
    """The sizes of a run whose data are set up."""
    from mlp_lightning.runs.build import run_length

    return Sizes(
        data.in_features,
        data.out_features,
        data.training_steps.rows_per_step,
        sum(len(one) for one in data.splits.values()),
        run_length(config, data.steps_per_epoch),
        data.steps_per_epoch,
        (data.preprocessor.numeric_features, len(data.cardinalities)),
    )
