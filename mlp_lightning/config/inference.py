"""Options of the commands that use a trained model: evaluate, explain, predict, export and report."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Union

from mlp_lightning.config import names
from mlp_lightning.config.rules import (
    Rule,
    at_least,
    between,
    between_exclusive,
    dotted_names,
    not_empty,
    one_of,
    option,
)
from mlp_lightning.config.schema import CsvConfig
from mlp_lightning.errors import Fault


@dataclasses.dataclass(frozen=True)
class CsvAsTrained:
    """How text files are read; null means as in the training."""

    delimiter: Union[str, None] = option(None, one_of(names.DELIMITERS), meaning="between two columns")
    decimal: Union[str, None] = option(None, one_of(("auto", ".", ",")), meaning="decimal mark")
    thousands: Union[str, None] = option(None, one_of(names.THOUSANDS), meaning="between groups of digits")
    encoding: Union[str, None] = option(None, not_empty(), meaning="of the characters, for example latin-1")
    null_values: Union[list[str], None] = option(None, meaning="texts that mean a missing value")

    def over(self, trained: CsvConfig) -> CsvConfig:
        """The given options, the rest as in the training."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(trained, **{name: one for name, one in given.items() if one is not None})


def idle_options(options: Any, explicit: Collection[str]) -> list[Fault]:
    """Options that were set and have no effect beside the others.

    Args:
        options: of a command.
        explicit: dotted keys that the user set.
    """
    faults = []
    data = getattr(options, "data", None)
    if isinstance(options, EvaluateConfig):
        faults += evaluation_faults(options, explicit)
    has_split = isinstance(options, (EvaluateConfig, ExplainConfig))
    if has_split and options.data.path is not None and "split" in explicit:
        faults.append(Fault("split", options.split, "has no effect with data.path", "leave one of them out"))
    if isinstance(options, ExplainConfig) and not options.shapley_rows and "shapley_samples" in explicit:
        rule = "has no effect without Shapley values (shapley_rows=0)"
        faults.append(Fault("shapley_samples", options.shapley_samples, rule, "leave one of them out"))
    if data is not None and data.path is None:
        given = {key: getattr(data.csv, key.rpartition(".")[2]) for key in explicit if key.startswith("data.csv.")}
        faults += [Fault(key, one, "has no effect without data.path", "leave it out") for key, one in given.items()]
    return faults


def evaluation_faults(options: EvaluateConfig, explicit: Collection[str]) -> list[Fault]:
    """What contradicts in an evaluation, or has no effect.

    Args:
        options: of the evaluation.
        explicit: dotted keys that the user set.
    """
    faults = []
    if options.resamples == 0:
        rule, hint = "has no effect without resamples", "leave it out, or resamples=0"
        faults += [Fault(key, getattr(options, key), rule, hint) for key in ("confidence", "seed") if key in explicit]
    given = options.threshold.wished
    costs = [f"{kind}_cost" for kind in ("false_positive", "false_negative")]
    if any(one in given for one in costs):
        faults += [
            Fault(f"threshold.{one}", None, "is missing beside the other cost", "give both")
            for one in costs
            if one not in given
        ]
        if all(given.get(one) == 0 for one in costs):
            faults.append(Fault("threshold.false_positive_cost", 0, "is 0 like the other cost", "give one above 0"))
    first, *others = [one for one in given if one != costs[1] or costs[0] not in given] or [""]
    faults += [
        Fault(f"threshold.{one}", given[one], f"contradicts threshold.{first}", "leave one of them out")
        for one in others
    ]
    return faults


@dataclasses.dataclass(frozen=True)
class RowsConfig:
    """The table that a model is used on."""

    path: Union[str, None] = option(
        None, not_empty(), meaning="a file, a folder of files, a pattern with *, an address, or - (standard input)"
    )
    csv: CsvAsTrained = dataclasses.field(default_factory=CsvAsTrained)


def _threshold() -> Rule:
    def holds(value: Any) -> bool:
        return bool(value.strip()) if isinstance(value, str) else 0 <= value <= 1

    return Rule("a number between 0 and 1, or the metrics.json of an evaluation", holds)


def _share() -> Rule:
    return Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)


@dataclasses.dataclass(frozen=True)
class ThresholdConfig:
    """From which probability on a row is decided to be of the second class: one of these, or both costs."""

    value: Union[float, str, None] = option(
        None, _threshold(), meaning="measure this one: a number, or the metrics.json of an evaluation that chose it"
    )
    precision: Union[float, None] = option(None, _share(), meaning="choose the highest recall with this precision")
    recall: Union[float, None] = option(None, _share(), meaning="choose the highest precision with this recall")
    false_positive_cost: Union[float, None] = option(
        None, at_least(0), meaning="choose the lowest cost: of a row of the first class that is decided wrongly"
    )
    false_negative_cost: Union[float, None] = option(None, at_least(0), meaning="likewise of a row of the second class")

    @property
    def wished(self) -> dict[str, Any]:
        """What is given, by its key."""
        return {name: one for name, one in vars(self).items() if one is not None}

    @property
    def costs(self) -> dict[str, float] | None:
        """Of the two kinds of wrong decisions; ``None`` if they are not given."""
        if self.false_positive_cost is None or self.false_negative_cost is None:
            return None
        return {"false_positive": self.false_positive_cost, "false_negative": self.false_negative_cost}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Options of ``scripts/evaluate.py``."""

    ckpt_path: Union[str, None] = option(
        None, not_empty(), meaning="the model: a .ckpt file, a run folder, or best or last of the newest run"
    )
    data: RowsConfig = dataclasses.field(default_factory=RowsConfig)
    split: str = option(
        "test", one_of(("train", "val", "test")), meaning="rows of the run's own data, without data.path"
    )
    weight_column: Union[str, None] = option(
        None, not_empty(), meaning="column with the weight of each row; null: that of the training"
    )
    group_column: Union[str, None] = option(
        None, not_empty(), meaning="column with the group of each row, drawn as a whole; null: that of the training"
    )
    resamples: Union[int, None] = option(
        None,
        at_least(0),
        meaning="bootstrap resamples of the confidence intervals; 0: no intervals; null: 1,000, fewer of many rows",
    )
    confidence: float = option(0.95, between_exclusive(0, 1), meaning="of the intervals")
    seed: int = option(0, at_least(0), meaning="of the resamples")
    compare: Union[str, None] = option(
        None, not_empty(), meaning="another model on the same rows: a .ckpt file or a run folder"
    )
    threshold: ThresholdConfig = dataclasses.field(default_factory=ThresholdConfig)
    output: Union[str, None] = option(
        None, not_empty(), meaning="folder for the metrics; null: one in the run's folder"
    )
    accelerator: str = option("cpu", one_of(names.ACCELERATORS), meaning="auto: GPU, else MPS, else CPU")
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages of your own that the network or the data set may be imported from"
    )
    verbosity: int = option(1, meaning="0: errors only, 1: the metrics")


@dataclasses.dataclass(frozen=True)
class ExplainConfig:
    """Options of ``scripts/explain.py``."""

    ckpt_path: Union[str, None] = option(
        None, not_empty(), meaning="the model: a .ckpt file, a run folder, or best or last of the newest run"
    )
    data: RowsConfig = dataclasses.field(default_factory=RowsConfig)
    split: Union[str, None] = option(
        None,
        one_of(("train", "val", "test")),
        meaning="rows of the run's own data, without data.path; null: test, without test rows val",
    )
    weight_column: Union[str, None] = option(
        None, not_empty(), meaning="column with the weight of each row; null: that of the training"
    )
    repeats: int = option(10, at_least(2), meaning="how often each column is permuted")
    top: int = option(6, at_least(1), meaning="most important columns, of which the partial dependence is worked out")
    shapley_rows: Union[list[int], int] = option(
        200,
        at_least(0),
        meaning="how many of the rows get Shapley values, 0: none; or which: [3,17], numbered from 1 as in the table",
    )
    shapley_samples: int = option(
        50, at_least(2), meaning="rows to compare each with, with an order of the columns and its reverse for each"
    )
    rows: int = option(2_000, at_least(1), meaning="most rows to use; of more, so many are drawn")
    seed: int = option(0, at_least(0), meaning="of the permutations, and of the rows that are drawn")
    output: Union[str, None] = option(
        None, not_empty(), meaning="folder for the explanation; null: one in the run's folder"
    )
    accelerator: str = option("cpu", one_of(names.ACCELERATORS), meaning="auto: GPU, else MPS, else CPU")
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages of your own that the network or the data set may be imported from"
    )
    verbosity: int = option(1, meaning="0: errors only, 1: the importances")


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Options of ``scripts/predict.py``."""

    ckpt_path: Union[str, None] = option(
        None, not_empty(), meaning="the model: a .ckpt file, a run folder, or best or last of the newest run"
    )
    data: RowsConfig = dataclasses.field(default_factory=RowsConfig)
    output: Union[str, None] = option(
        None, not_empty(), meaning="file for the predictions: .csv, .tsv, .parquet or .feather"
    )
    id_columns: Union[list[str], str, None] = option(
        None, not_empty(), meaning="columns of the table that are copied into the predictions"
    )
    interval: Union[float, None] = option(
        None, between_exclusive(0, 1), meaning="share of new rows that lower_ and upper_<target> enclose, for numbers"
    )
    member_quantiles: Union[list[float], None] = option(
        None,
        between(0, 1, high_included=True),
        meaning="of what the members of an ensemble predict: their agreement, and no interval for the value",
    )
    threshold: Union[float, str, None] = option(
        None,
        _threshold(),
        meaning="from which probability on a row is of the second class; null: the most probable class",
    )
    overwrite: bool = option(False, meaning="replace an existing output")
    accelerator: str = option("cpu", one_of(names.ACCELERATORS), meaning="auto: GPU, else MPS, else CPU")
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages of your own that the network of the model may be imported from"
    )
    verbosity: int = option(1, meaning="0: errors only, 1: what was done")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Options of ``scripts/export.py``."""

    ckpt_path: Union[str, None] = option(
        None, not_empty(), meaning="the model: a .ckpt file, a run folder, or best or last of the newest run"
    )
    format: str = option("safetensors", one_of(names.EXPORT_FORMATS), meaning="what is written")
    output: Union[str, None] = option(None, not_empty(), meaning="file; null: model.* in the run's folder")
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages of your own that the network of the model may be imported from"
    )
    verbosity: int = option(1, meaning="0: errors only, 1: what was done")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Options of ``scripts/report.py``."""

    path: Union[str, None] = option(
        None, not_empty(), meaning="a run folder, a folder of runs, a .ckpt file, or best or last of the newest run"
    )
    output: str = option("report.html", not_empty(), meaning="the page; an earlier one is replaced")
    lang: str = option("en", one_of(names.LANGUAGES), meaning="language of the page")
    rows: int = option(300, at_least(0), meaning="most rows of the table of each split that the page holds; 0: none")
    seed: int = option(0, at_least(0), meaning="of the permutations, and of the rows that are drawn")
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages of your own that the network or the data set may be imported from"
    )
    verbosity: int = option(1, meaning="0: errors only, 1: what was written")
