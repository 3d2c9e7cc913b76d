"""Computes the sizes of runs, which decide whether they fit into one stack, and describes their tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
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
# What is said of the tables and of the splits of many runs; the log of each run has all of its own.
_MOST_TABLES, _MOST_NOTES = 3, 10


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
        self._descriptions: dict[str, list[str]] = {}  # of the first run of each table
        self._notes: dict[str, list[str]] = {}  # of each split
        self._said: set[str] = set()

    def __call__(self, config: Config) -> Sizes:
        """The sizes of a run.

        Raises:
            MLPLightningError: the data cannot be used.
        """
        trainer = config.trainer
        length = [trainer.max_steps, trainer.max_epochs, trainer.accumulate_grad_batches]
        # Whether labels can be smoothed depends on the target, and whether something can be embedded on the columns.
        smooths = trainer.label_smoothing not in (0, "auto")
        model = [config.model.norm, config.model.numeric_embedding, config.model.embedding_size]
        key = _split_key(config) + json.dumps([*length, smooths, *model])
        if key not in self._known:
            try:
                built = self._built(config)
                self._known[key] = sizes_of_data(config, built)
                self._fingerprints.setdefault(_rows_key(config), built.fingerprint)
                self._keep_description(config, built)
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

    def new_lines(self, runs: Iterable[tuple[str, Config]]) -> list[str]:
        """What to tell the user of the tables of runs whose sizes are known, and what was not said before.

        Of a table that is what a run of it prints; of other splits of it only what is noted there.

        Args:
            runs: each with its name.
        """
        of_splits: dict[str, tuple[str, Config]] = {}
        tables: dict[str, Config] = {}
        for name, config in runs:
            of_splits.setdefault(_split_key(config), (name, config))
            tables.setdefault(_rows_key(config), config)
        lines = []
        for key, config in [*tables.items()][:_MOST_TABLES]:
            described = self._descriptions.get(key, []) if key not in self._said else []
            lines += [one if len(tables) == 1 else f"{config.data.title}: {one}" for one in described]
            self._said |= {key, *described}
        more = []
        for split, (name, _) in of_splits.items():
            notes = [one for one in self._notes.get(split, ()) if one not in self._said]
            more += [f"{name}: {one}" for one in notes]
            self._said |= {*notes}
        if len(more) > _MOST_NOTES:
            more[_MOST_NOTES:] = [f"… and {len(more) - _MOST_NOTES:,} more such lines, in the train.log of each run"]
        return lines + more

    def _keep_description(self, config: Config, data: TabularDataModule) -> None:
        table, split = _rows_key(config), _split_key(config)
        if table not in self._descriptions:
            self._descriptions[table] = data.describe()
        self._notes[split] = list(data.rows.notes)

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


def _split_key(config: Config) -> str:
    """What decides which rows train: these decide which features there are."""
    seed = config.seed if config.data.split_follows_seed else None
    return _text(config.sections()["data"]) + json.dumps([seed, config.task])


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
