"""The schema of the configuration: one frozen dataclass per section, one line of meaning per option.

The one source of defaults, meanings and rules: the files in ``conf/`` hold only what differs. The combinations of
values that contradict each other are in :mod:`mlp_lightning.config.contradictions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Union

from mlp_lightning.config import names
from mlp_lightning.config.ensembles import EnsembleConfig, PresetConfig
from mlp_lightning.config.optimizers import OptimizerConfig, OwnOptimizerConfig
from mlp_lightning.config.plain import plain
from mlp_lightning.config.rules import (
    above,
    at_least,
    between,
    dotted_names,
    folder_name,
    moment_format,
    not_empty,
    one_of,
    option,
)
from mlp_lightning.config.schedules import ConstantSchedule, ScheduleConfig
from mlp_lightning.config.search import SearchConfig
from mlp_lightning.config.shared import SECTIONS, Remembered

Auto = Literal["auto"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and parts of the MLP."""

    hidden_units: Union[int, list[int], None] = option(
        10, at_least(1), meaning="width of every hidden layer, or a list with one width per hidden layer"
    )
    depth: Union[int, None] = option(
        None,
        between(0, 10_000, high_included=True),
        meaning="number of hidden layers; null: 1 for a width, the length of a list",
    )
    activation: str = option(
        "relu", one_of(names.activations, or_path_of="torch.nn.Module"), meaning="after every hidden layer"
    )
    dropout: float = option(0.0, between(0, 1), meaning="probability of zeroing a hidden unit in training, to 2^-16")
    norm: str = option("none", one_of(names.NORMS), meaning="normalisation before every activation")
    bias: bool = option(True, meaning="whether the linear layers have a bias")
    init: str = option("default", one_of(names.INITS), meaning="initial weights; default: torch.nn.Linear's")
    residual: bool = option(
        False, meaning="blocks of two linear layers that add to their input, as many as hidden layers, equally wide"
    )
    numeric_embedding: str = option(
        "none", one_of(names.NUMERIC_EMBEDDINGS), meaning="how each number of a table enters the network"
    )
    embedding_size: int = option(
        8, between(1, 10_000, high_included=True), meaning="numbers that a category or an embedded number becomes"
    )
    embedding_frequencies: int = option(
        16, between(1, 10_000, high_included=True), meaning="frequencies of periodic, most bins of piecewise_linear"
    )
    embedding_sigma: float = option(0.1, above(0), meaning="deviation of the initial frequencies of periodic")

    @property
    def layer_widths(self) -> list[int]:
        """Widths of the hidden layers, first to last; empty for a linear model."""
        if isinstance(self.hidden_units, list):
            return list(self.hidden_units)
        if self.hidden_units is None:
            return []
        return [self.hidden_units] * (1 if self.depth is None else self.depth)


@dataclasses.dataclass(frozen=True)
class OwnModelConfig(ModelConfig):
    """A network of the user's own in the place of the MLP; every further key is an argument of its class."""

    hidden_units: Union[int, list[int], None] = None
    depth: Union[int, None] = 0
    _target_: str = option("", meaning="import path of a torch.nn.Module, made with in_features and out_features")
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ColumnConfig:
    """What a column of a table is, where the inferred kind is wrong."""

    kind: str = option("auto", one_of(names.COLUMN_KINDS), meaning="what the column holds")
    format: Union[str, None] = option(
        None, moment_format(), meaning="how dates or times are written, such as %d/%m/%Y; null: from all values"
    )


@dataclasses.dataclass(frozen=True)
class CsvConfig:
    """How text files are read."""

    delimiter: str = option("auto", one_of(names.DELIMITERS), meaning="between two columns; auto: from the first lines")
    decimal: str = option("auto", one_of(("auto", ".", ",")), meaning="decimal mark; auto: from the values")
    thousands: str = option("auto", one_of(names.THOUSANDS), meaning="between groups of digits; auto: from the values")
    encoding: str = option("utf-8", not_empty(), meaning="of the characters, for example latin-1")
    null_values: Union[list[str], Auto] = option(
        "auto",
        meaning="texts that mean a missing value; auto: empty, and among numbers and dates NA, null and the like",
    )


@dataclasses.dataclass(frozen=True)
class CrossValidationConfig:
    """Cross-validation: every row is a validation row once."""

    folds: Union[int, None] = option(None, at_least(2), meaning="number of folds; null: no cross-validation")
    fold: Union[int, None] = option(None, at_least(0), meaning="train this fold alone, from 0; null: all of them")
    held_out_as: str = option(
        "test", one_of(("test", "val")), meaning="what a fold holds out: test rows, or (bagging) its validation rows"
    )

    @property
    def trains_all(self) -> bool:
        """Whether all folds are trained, and not one of them alone."""
        return self.folds is not None and self.fold is None

    @property
    def validates(self) -> bool:
        """Whether each fold validates with the rows that it holds out, and test rows are split off before."""
        return self.folds is not None and self.held_out_as == "val"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, its split and its batches."""

    name: str = option("xor", one_of(names.data_names), meaning="which data set; frame: a data frame, from Python only")
    batch_size: Union[int, Auto, None] = option(
        None, at_least(1), meaning="rows per batch; null: all training rows at once (full batch); auto: by their number"
    )
    val_fraction: float = option(0.0, between(0, 1), meaning="share of all rows kept for validation")
    test_fraction: float = option(0.0, between(0, 1), meaning="share of all rows kept for the test")
    split_seed: Union[int, None] = option(
        None,
        between(0, 2**63),
        meaning="decides the split and the folds; null: seed does, and 0 for all runs of a sweep over seeds",
    )
    shuffle: bool = option(True, meaning="draw a new order of the training rows in every epoch")
    suggested_lr: dict[str, float] = option(
        {}, above(0), meaning="learning rates that suit this data set, by name of the optimizer group"
    )
    path: Union[str, None] = option(None, not_empty(), meaning="table: file, folder, pattern, address or - (stdin)")
    val_path: Union[str, None] = option(None, not_empty(), meaning="table of the validation rows")
    test_path: Union[str, None] = option(None, not_empty(), meaning="table of the test rows")
    target: Union[str, list[str], None] = option(None, not_empty(), meaning="column to predict, or a list of several")
    columns: dict[str, ColumnConfig] = option({}, meaning="by column name: what it holds, where inferred wrongly")
    scaling: str = option("standard", one_of(names.SCALINGS), meaning="how numeric columns are scaled")
    max_one_hot: int = option(
        9, at_least(0), meaning="most categories of a column that are one-hot encoded; more get a learned embedding"
    )
    max_categories: int = option(
        1000, at_least(1), meaning="most categories of a column; the rarest of more, and unknown ones, are one category"
    )
    weight_column: Union[str, None] = option(None, not_empty(), meaning="column with the weight of each row")
    class_weight: str = option(
        "none", one_of(("none", "balanced")), meaning="balanced: every class counts the same in the training loss"
    )
    group_column: Union[str, None] = option(
        None, not_empty(), meaning="rows with the same value here stay in one split"
    )
    time_column: Union[str, None] = option(
        None, not_empty(), meaning="split by time: the last rows by this column are validation and test rows"
    )
    split_column: Union[str, None] = option(
        None, not_empty(), meaning="column that says train, val or test (or nothing: row is left out)"
    )
    csv: CsvConfig = dataclasses.field(default_factory=CsvConfig)
    cv: CrossValidationConfig = dataclasses.field(default_factory=CrossValidationConfig)
    samples: int = option(1000, at_least(2), meaning="rows of a synthetic data set")
    noise: float = option(0.1, at_least(0), meaning="noise of a synthetic data set")
    bits: int = option(4, between(1, 16, high_included=True), meaning="bits of the data set parity")
    sample_seed: int = option(0, between(0, 2**32), meaning="decides the rows of a synthetic data set")

    @property
    def title(self) -> str:
        """What messages call the rows."""
        return self.path or self.name

    @property
    def draws_split(self) -> bool:
        """Whether it is drawn which rows are split off the training rows, or are in which fold."""
        if self.split_column is not None or self.time_column is not None:
            return False
        # A split with its own file takes no fraction of these rows.
        val = self.val_path is None and self.val_fraction > 0
        return val or (self.test_path is None and self.test_fraction > 0) or self.cv.folds is not None

    @property
    def split_follows_seed(self) -> bool:
        """Whether ``seed`` decides the split."""
        return self.draws_split and self.split_seed is None


@dataclasses.dataclass(frozen=True)
class OwnDataConfig(DataConfig):
    """A table that a function of the user's own returns; every key that is no option here is an argument of it."""

    _target_: str = option("", meaning="import path of a function that returns a data frame; instead of data.path")
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        return self._target_


#: Options of the MLP; to a network of the user's own they are arguments like any other.
OF_MLP = ("hidden_units", "depth", "activation", "dropout", "norm", "bias", "init", "residual")


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How long, where and how exactly to train."""

    accelerator: str = option("auto", one_of(names.ACCELERATORS), meaning="auto: GPU, else MPS, else CPU")
    precision: str = option("32", one_of(names.PRECISIONS), meaning="number format of weights and arithmetic")
    max_steps: Union[int, None] = option(None, at_least(1), meaning="optimizer steps; null: no limit")
    max_epochs: Union[int, None] = option(None, at_least(1), meaning="passes over the training rows")
    log_every_n_steps: int = option(10, at_least(1), meaning="steps between two logged training losses")
    print_every_n_steps: Union[int, Auto, None] = option(
        "auto", at_least(1), meaning="steps between two printed lines; auto: about 20, none beside a bar"
    )
    check_val_every_n_epoch: int = option(1, at_least(1), meaning="epochs between two validations")
    steps_per_execution: Union[int, Auto] = option(
        "auto", at_least(1), meaning="optimizer steps inside one call of the training loop's body"
    )
    gradient_clip_val: Union[float, None] = option(None, above(0), meaning="largest gradient; null: any")
    gradient_clip_algorithm: str = option(
        "norm", one_of(("norm", "value")), meaning="clip the norm of all gradients, or each value"
    )
    label_smoothing: Union[float, Auto] = option(
        0.0,
        between(0, 1),
        meaning="share of every label that the training loss spreads evenly over all classes; auto: 0.01 for classes",
    )
    accumulate_grad_batches: int = option(1, at_least(1), meaning="batches whose gradients make one step")
    threads: Union[int, Auto] = option(
        "auto", between(1, 1024, high_included=True), meaning="CPU threads; auto: by matrix size"
    )
    engine: str = option(
        "auto",
        one_of(names.ENGINES),
        meaning="what makes the steps; auto: by the configuration and the sizes, printed with the reason",
    )


@dataclasses.dataclass(frozen=True)
class EarlyStoppingConfig:
    """Stop when the monitored metric no longer improves.

    Metrics of validation rows are looked at after each validation, ``loss/train`` (the mean over an epoch) after each
    epoch.
    """

    monitor: str = option("loss/val", one_of(("loss/val", "accuracy/val", "loss/train")), meaning="which metric")
    patience: int = option(10, at_least(1), meaning="validations (or epochs) without improvement before the stop")
    min_delta: float = option(0.0, at_least(0), meaning="smallest change that counts as improvement")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When and by which metric checkpoints are kept."""

    monitor: str = option(
        "auto", one_of(("auto", *names.MONITORS)), meaning="metric of best.ckpt; auto: loss/val, else loss/train"
    )
    every_n_steps: Union[int, None] = option(
        None, at_least(1), meaning="also save at every multiple of this many steps"
    )
    every_n_seconds: Union[float, None] = option(
        30.0, at_least(0), meaning="also save last.ckpt when this long has passed; null: never"
    )


@dataclasses.dataclass(frozen=True)
class OwnCallbackConfig:
    """A callback of the user's own; every further key is an argument of its class."""

    _target_: str = option("", meaning="import path of a lightning.pytorch.Callback")
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CallbacksConfig:
    """The callbacks of a training."""

    checkpoint: Union[CheckpointConfig, None] = dataclasses.field(default_factory=CheckpointConfig)
    early_stopping: Union[EarlyStoppingConfig, None] = None
    lr_monitor: bool = option(True, meaning="log the learning rate")
    histograms_every_n_steps: Union[int, Auto, None] = option(
        None,
        at_least(1),
        meaning="steps between two histograms of weights and gradients; null: none, auto: at least 20 over a run",
    )
    snapshots: Union[int, None] = option(None, at_least(2), meaning="log-spaced steps whose weights last.ckpt keeps")
    extra: list[OwnCallbackConfig] = option([], meaning="callbacks of your own, each with its _target_ and arguments")


@dataclasses.dataclass(frozen=True)
class LoggerConfig:
    """Where metrics are written, inside the run folder."""

    tensorboard: bool = option(True, meaning="event files for TensorBoard")
    csv: bool = option(True, meaning="metrics.csv")
    graph: bool = option(True, meaning="the model graph, in TensorBoard")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """How the runs of a sweep (``--multirun``) belong together."""

    name: Union[str, None] = option(
        None, folder_name(), meaning="folder of the sweep inside lightning_logs/<name>; null: the time of its start"
    )
    resume: bool = option(False, meaning="continue the sweep of this name: make only the runs that are not done")
    fail_fast: bool = option(False, meaning="end at the first run that fails")
    store: str = option(
        "auto",
        one_of(names.STORES),
        meaning="a folder for every run, or the runs of stacks packed in a few files; auto: packed above 4,000 runs",
    )
    keys: list[str] = option(
        [], meaning="keys that name a run in TensorBoard; a sweep fills in those in which its runs differ"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    name: str = option("xor", folder_name(), meaning="folder of the run inside lightning_logs")
    seed: int = option(0, between(0, 2**63), meaning="decides weights, shuffling, dropout and (by default) split")
    task: str = option(
        "auto", one_of(lambda: ("auto", *names.tasks())), meaning="what to learn of a table; auto: from the target"
    )
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    scheduler: ScheduleConfig = dataclasses.field(default_factory=ConstantSchedule)
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = dataclasses.field(default_factory=CallbacksConfig)
    logger: LoggerConfig = dataclasses.field(default_factory=LoggerConfig)
    ensemble: EnsembleConfig = dataclasses.field(default_factory=EnsembleConfig)
    preset: PresetConfig = dataclasses.field(default_factory=PresetConfig)
    sweep: SweepConfig = dataclasses.field(default_factory=SweepConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    report_weights: str = option(
        "auto",
        one_of(("auto", "last", "best")),
        meaning="which weights the final metrics are measured with; auto: those of the best validation, else the last",
    )
    ckpt_path: Union[str, None] = option(
        None, not_empty(), meaning="continue from a checkpoint: last, best, or the path of a .ckpt file or a run folder"
    )
    auto_resume: bool = option(
        False, meaning="continue the newest unfinished run or sweep of this same command, or start it; not in Python"
    )
    verbosity: int = option(
        1, between(0, 2, high_included=True), meaning="0: errors only, 1: progress and result, 2: more"
    )
    allow_targets: list[str] = option(
        [], dotted_names(), meaning="packages and modules of your own that a _target_ may be imported from"
    )

    @property
    def trains_several(self) -> bool:
        """Whether it asks for several trainings in one run folder."""
        return self.data.cv.trains_all or self.ensemble.members is not None or self.preset.name != "default"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested plain dicts, in the shape that :func:`parse_config` takes."""
        # Who loads what a run left has to allow an import anew; how a command chooses a run says nothing of it.
        return {name: plain(one) for name, one in self.sections().items()}

    def sections(self) -> dict[str, Any]:
        """The same with sections that equal configurations share: to read only."""
        content = {name: one for name, one in self.__dict__.items() if name not in ("allow_targets", "auto_resume")}
        return {name: _shared(one) if name in SECTIONS else plain(one) for name, one in content.items()}


def _plain_section(section: Any) -> dict[str, Any]:
    content = plain(section)
    for name in {OwnModelConfig: OF_MLP, OwnOptimizerConfig: ("name",)}.get(type(section), ()):
        del content[name]
    for one in (content, *content.get("extra", ())):
        one.update(one.pop("options", {}))
    return content


_shared = Remembered(_plain_section)
