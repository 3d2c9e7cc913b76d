"""Combinations of values that are valid alone and contradict each other.

One small function per contradiction; each yields the fault to report, under the key that is easiest to
change.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from mlp_lightning.config import schedules, schema
from mlp_lightning.config.idle import has_validation_rows, idle_options
from mlp_lightning.config.names import DATA_SETS_WITHOUT_SPLIT, SYNTHETIC_SETS
from mlp_lightning.config.search_rules import search_faults
from mlp_lightning.errors import Fault


def contradictions(config: schema.Config, explicit: Collection[str] = ()) -> list[Fault]:
    """All contradictions of a configuration whose single values are valid.

    Args:
        config: the configuration.
        explicit: dotted keys that the user set; only those can contradict a list of widths, or have no effect.
    """
    faults = [fault for check in _CHECKS for fault in check(config)]
    faults += [*_own_data(config.data, explicit), *idle_options(config, explicit)]
    faults += search_faults(config, has_validation_rows(config.data), explicit)
    return [*faults, *_depth_and_widths(config, explicit), *_idle_fractions(config, explicit)]


def _own_data(data: schema.DataConfig, explicit: Collection[str]) -> Iterator[Fault]:
    """Options beside a function of the user's own, which it is not given and which would have no effect."""
    if not isinstance(data, schema.OwnDataConfig):
        return
    if data.name != "table":
        hint = "choose data=table, or leave out data._target_"
        yield Fault("data._target_", data._target_, f"contradicts data.name = {data.name!r}", hint)
    if data.path is not None:
        rule, hint = "contradicts data._target_, whose function returns the rows", "leave one of them out"
        yield Fault("data.path", data.path, rule, hint)
    idle = schema.DataConfig()
    for key in ("samples", "noise", "bits", "sample_seed"):
        value = getattr(data, key)
        if value != getattr(idle, key) or f"data.{key}" in explicit:
            rule = "is an option of our synthetic data sets, and not an argument of data._target_"
            yield Fault(f"data.{key}", value, rule, "call the argument otherwise, or leave it out")


def _depth_and_widths(config: schema.Config, explicit: Collection[str]) -> Iterator[Fault]:
    model = config.model
    if isinstance(model.hidden_units, list):
        if "model.depth" in explicit and model.depth is not None and model.depth != len(model.hidden_units):
            yield Fault(
                "model.depth",
                model.depth,
                f"contradicts model.hidden_units = {model.hidden_units}, which lists {len(model.hidden_units)}",
                "leave model.depth out when you list the widths",
            )
    elif model.depth == 0 and model.hidden_units is not None:
        yield Fault(
            "model.hidden_units",
            model.hidden_units,
            "contradicts model.depth = 0: a linear model has no hidden layer",
            "choose another model, or set model.depth to 1 or more",
        )
    elif model.depth != 0 and model.hidden_units is None:
        yield Fault("model.hidden_units", None, "must be given unless model.depth is 0", "for example 10")


def _idle_fractions(config: schema.Config, explicit: Collection[str]) -> Iterator[Fault]:
    """Fractions that the user set, of rows that something else decides; those of ``conf/`` give way."""
    data = config.data
    deciding = {
        "val_fraction": {
            "data.val_path": data.val_path,
            "data.split_column": data.split_column,
            "data.cv.held_out_as": data.cv.validates or None,
        },
        "test_fraction": {
            "data.test_path": data.test_path,
            "data.split_column": data.split_column,
            "data.cv.folds": None if data.cv.validates else data.cv.folds,
        },
    }
    for key, others in deciding.items():
        value, by = getattr(data, key), [other for other, given in others.items() if given is not None]
        if f"data.{key}" in explicit and value > 0 and by:
            yield Fault(f"data.{key}", value, f"has no effect: {by[0]} decides these rows", "leave one of them out")


def _parts_of_hidden_layers(config: schema.Config) -> Iterator[Fault]:
    if config.model.layer_widths:
        return
    model = config.model
    idle_values = (("dropout", model.dropout, 0.0), ("norm", model.norm, "none"), ("residual", model.residual, False))
    for key, value, idle in idle_values:
        if value != idle:
            yield Fault(f"model.{key}", value, "has no effect without hidden layers", f"set it to {str(idle).lower()}")


def _equal_widths_of_blocks(config: schema.Config) -> Iterator[Fault]:
    widths = config.model.layer_widths
    if config.model.residual and len(set(widths)) > 1:
        rule = "contradicts model.residual = True: what a block adds is as wide as its input"
        hint = f"give every layer the same width, for example {[widths[0]] * len(widths)}"
        yield Fault("model.hidden_units", widths, rule, hint)


def _batch_norm_of_one_row(config: schema.Config) -> Iterator[Fault]:
    if config.model.norm == "batch" and config.data.batch_size == 1:
        yield Fault("data.batch_size", 1, "contradicts model.norm = 'batch', which needs 2 rows", "use 2 or more")


def _split(config: schema.Config) -> Iterator[Fault]:
    data = config.data
    for key in ("val_fraction", "test_fraction"):
        value = getattr(data, key)
        if value > 0 and data.name in DATA_SETS_WITHOUT_SPLIT:
            yield Fault(f"data.{key}", value, f"must be 0 for {data.name}, whose rows are all training rows")
    if data.val_fraction + data.test_fraction >= 1:
        yield Fault(
            "data.val_fraction",
            data.val_fraction,
            f"and data.test_fraction = {data.test_fraction} leave no training rows",
            "their sum must be less than 1",
        )


def _validation_metrics(config: schema.Config) -> Iterator[Fault]:
    """Nothing can watch a validation metric when there are no validation rows."""
    if has_validation_rows(config.data):
        return
    hint = "set data.val_fraction above 0"
    watchers = [
        (f"callbacks.{name}.monitor", getattr(getattr(config.callbacks, name), "monitor", ""))
        for name in ("early_stopping", "checkpoint")
    ]
    if isinstance(config.scheduler, schedules.PlateauSchedule):
        watchers.append(("scheduler.monitor", config.scheduler.monitor))
    for key, monitor in watchers:
        if monitor.endswith("/val"):
            yield Fault(key, monitor, "needs validation rows and there are none", f"{hint}, or watch loss/train")


def _options_of_text_files(config: schema.Config) -> Iterator[Fault]:
    data = config.data
    has_files = data.name == "table" and not isinstance(data, schema.OwnDataConfig)
    if data.csv != schema.CsvConfig() and not has_files and data.val_path is None and data.test_path is None:
        given = {key: value for key, value in vars(data.csv).items() if value != getattr(schema.CsvConfig(), key)}
        which = "_target_" if isinstance(data, schema.OwnDataConfig) else "name"
        rule = f"has no effect: data.{which} = {getattr(data, which)!r} brings its own rows"
        yield from (Fault(f"data.csv.{key}", value, rule, "leave it out") for key, value in given.items())


def _two_meanings_of_a_mark(config: schema.Config) -> Iterator[Fault]:
    csv = config.data.csv
    if csv.decimal == csv.thousands != "auto":
        rule = f"contradicts data.csv.decimal = {csv.decimal!r}: one mark cannot be both"
        yield Fault("data.csv.thousands", csv.thousands, rule, "set one of the two")


def _options_of_synthetic_sets(config: schema.Config) -> Iterator[Fault]:
    data, idle = config.data, schema.DataConfig()
    if isinstance(data, schema.OwnDataConfig):
        return
    drawn = tuple(name for name in SYNTHETIC_SETS if name != "parity")
    for names, keys in ((drawn, ("samples", "noise", "sample_seed")), (("parity",), ("bits",))):
        for key in keys:
            value = getattr(data, key)
            if data.name not in names and value != getattr(idle, key):
                rule = f"is for {', '.join(names)}, and data.name = {data.name!r}"
                yield Fault(f"data.{key}", value, rule, f"choose data={names[0]}, or leave it out")


def _path_and_target(config: schema.Config) -> Iterator[Fault]:
    data = config.data
    is_own = isinstance(data, schema.OwnDataConfig)
    if data.name == "table" and data.path is None and not is_own:
        yield Fault("data.path", None, "is missing", "name a CSV, TSV, Parquet or Feather file, a folder or a pattern")
    if data.name in ("table", "frame") and data.target is None:
        yield Fault("data.target", None, "is missing", "name the column to predict")
    if data.name != "table" and data.path is not None and not is_own:
        rule = f"contradicts data.name = {data.name!r}, which brings its own rows"
        yield Fault("data.path", data.path, rule, "choose data=table")


def _ways_to_split(config: schema.Config) -> Iterator[Fault]:
    data = config.data
    ways = {key: getattr(data, key) for key in ("split_column", "group_column", "time_column")}
    chosen = [f"data.{key}" for key, value in ways.items() if value is not None]
    if len(chosen) > 1:
        yield Fault(chosen[0], ways[chosen[0].partition(".")[2]], f"contradicts {chosen[1]}", "split in one way")
    drawn = (
        data.cv.folds
        or (data.val_path is None and data.val_fraction)
        or (data.test_path is None and data.test_fraction)
    )
    for key in ("group_column", "time_column"):
        if ways[key] is not None and not drawn:
            rule = "has no effect: no rows are split off"
            yield Fault(f"data.{key}", ways[key], rule, "set data.val_fraction or data.test_fraction, or leave it out")
    if data.split_column is not None:
        for key in ("val_path", "test_path"):
            if getattr(data, key) is not None:
                yield Fault(f"data.{key}", getattr(data, key), "contradicts data.split_column", "leave one of them out")


def _one_table_for_two_splits(config: schema.Config) -> Iterator[Fault]:
    """Metrics of rows that were trained on, or that chose the weights, say nothing of new rows."""
    data = config.data
    paths = {key: value for key in ("path", "val_path", "test_path") if (value := getattr(data, key)) is not None}
    for (key, value), (other, same) in itertools.combinations(reversed(paths.items()), 2):
        if posixpath.normpath(value) == posixpath.normpath(same):
            rule = f"is the table of data.{other}, too: the same rows would be in both splits"
            share = key.replace("path", "fraction")
            yield Fault(f"data.{key}", value, rule, f"name other rows, or leave it out and set data.{share}")


def target_kinds(columns: Mapping[str, schema.ColumnConfig], targets: Sequence[str], task: str) -> Iterator[Fault]:
    """What the kinds of target columns contradict: they decide the task."""
    kinds = {name: columns.get(name, schema.ColumnConfig()).kind for name in targets}
    number = next((name for name, kind in kinds.items() if kind == "numeric"), None)
    for name, kind in kinds.items():
        given = f"data.columns.{name}.kind"
        if kind in ("ignored", "datetime"):
            yield Fault(given, kind, "contradicts data.target, which names this column", "leave it out, or categorical")
        elif kind == "numeric" and task not in ("auto", "regression"):
            yield Fault(given, kind, f"is a regression, and contradicts task = {task!r}", "leave one of them out")
        elif kind in ("categorical", "boolean") and task == "regression":
            yield Fault(given, kind, "are classes, and contradicts task = 'regression'", "leave one of them out")
        elif kind in ("categorical", "boolean") and number is not None and task == "auto":
            rule = f"contradicts data.columns.{number}.kind = 'numeric': several targets are all numbers or all classes"
            yield Fault(given, kind, rule, "set one kind for both")


def _kinds_of_targets(config: schema.Config) -> Iterator[Fault]:
    target = config.data.target
    yield from target_kinds(config.data.columns, [target] if isinstance(target, str) else target or [], config.task)


def _formats_of_columns(config: schema.Config) -> Iterator[Fault]:
    data = config.data
    targets = [data.target] if isinstance(data.target, str) else data.target or []
    for name, column in data.columns.items():
        key = f"data.columns.{name}.format"
        if column.format is None or name == data.time_column:
            continue
        idle = [
            f"data.{one}" for one in ("weight_column", "group_column", "split_column") if getattr(data, one) == name
        ]
        if column.kind not in ("auto", "datetime"):
            rule = f"has no effect with data.columns.{name}.kind = {column.kind!r}"
            yield Fault(key, column.format, rule, "leave one of them out")
        elif name in targets or (idle and column.kind == "auto"):
            rule = f"has no effect on the column of {(idle or ['data.target'])[0]}"
            yield Fault(key, column.format, rule, "leave it out")


def _seed_of_the_split(config: schema.Config) -> Iterator[Fault]:
    seed = config.data.split_seed
    if seed is not None and not config.data.draws_split:
        rule = "has no effect: nothing is drawn to split these rows"
        yield Fault("data.split_seed", seed, rule, "leave it out, or set data.val_fraction or data.test_fraction")


def _folds(config: schema.Config) -> Iterator[Fault]:
    data, cv = config.data, config.data.cv
    if cv.folds is None:
        if cv.fold is not None:
            yield Fault("data.cv.fold", cv.fold, "needs data.cv.folds, the number of folds", "for example 5")
        if cv.held_out_as != "test":
            yield Fault(
                "data.cv.held_out_as", cv.held_out_as, "needs data.cv.folds, the number of folds", "for example 8"
            )
        return
    if cv.fold is not None and cv.fold >= cv.folds:
        yield Fault("data.cv.fold", cv.fold, f"must be less than data.cv.folds = {cv.folds}", "folds count from 0")
    held_out, own_file = ("validation", "val_path") if cv.validates else ("test", "test_path")
    for key in ("split_column", own_file):
        if getattr(data, key) is not None:
            rule = f"contradicts data.cv.folds: each fold holds out its own {held_out} rows"
            yield Fault(f"data.{key}", getattr(data, key), rule, "leave one of them out")
    if cv.fold is None and config.callbacks.checkpoint is None:
        yield Fault("callbacks.checkpoint", None, "keeps no model to predict the rows of a fold with", "keep it")
    if config.ckpt_path is not None and cv.fold is None:
        yield Fault("ckpt_path", config.ckpt_path, "is one run, and data.cv.folds are several", "choose data.cv.fold")


def _members(config: schema.Config) -> Iterator[Fault]:
    members = config.ensemble.members
    if members is None:
        return
    if config.seed + members > 2**63:
        yield Fault("seed", config.seed, f"leaves no seeds for {members} members", "choose a smaller one")
    if config.callbacks.checkpoint is None:
        yield Fault("callbacks.checkpoint", None, "keeps no members to make an ensemble of", "keep it")
    if config.ckpt_path is not None:
        rule, hint = "is one run, and ensemble.members are several", "leave one of them out"
        yield Fault("ckpt_path", config.ckpt_path, rule, hint)


def _preset(config: schema.Config) -> Iterator[Fault]:
    preset = config.preset
    if preset.name == "default":
        default = schema.PresetConfig()
        for key in ("candidates", "time_limit_s", "fixed"):
            if getattr(preset, key) != getattr(default, key):
                yield Fault(f"preset.{key}", getattr(preset, key), "is of preset=best", "add it, or leave this out")
        return
    if preset.candidates is not None and preset.time_limit_s != schema.PresetConfig().time_limit_s:
        rule = f"has no effect: preset.candidates = {preset.candidates} are trained, however long that takes"
        yield Fault("preset.time_limit_s", preset.time_limit_s, rule, "leave one of them out")
    if not config.data.cv.validates or config.data.cv.fold is not None:
        rule = "needs all folds of data.cv.folds, with data.cv.held_out_as=val"
        yield Fault("preset.name", preset.name, rule, "choose it with preset=best, which sets both")
    if config.ensemble.members is not None:
        rule, hint = "contradicts preset=best, which makes an ensemble itself", "leave one of them out"
        yield Fault("ensemble.members", config.ensemble.members, rule, hint)
    if isinstance(config.model, schema.OwnModelConfig):
        rule, hint = "has no candidates that preset=best could draw", "use data.cv.folds without it"
        yield Fault("model._target_", config.model._target_, rule, hint)


def _length(config: schema.Config) -> Iterator[Fault]:
    if config.trainer.max_steps is None and config.trainer.max_epochs is None:
        yield Fault(
            "trainer.max_steps", None, "and trainer.max_epochs = None give the run no end", "set one of the two"
        )


def _nesterov(config: schema.Config) -> Iterator[Fault]:
    options = config.optimizer.options
    if options.get("nesterov") and not isinstance(config.optimizer, schema.OwnOptimizerConfig):
        if not options.get("momentum"):
            yield Fault("optimizer.nesterov", True, "needs optimizer.momentum above 0", "for example 0.9")
        if options.get("dampening"):
            yield Fault("optimizer.nesterov", True, "needs optimizer.dampening = 0")


def _best_without_checkpoint(config: schema.Config) -> Iterator[Fault]:
    if config.report_weights == "best" and config.callbacks.checkpoint is None:
        yield Fault("report_weights", "best", "needs callbacks.checkpoint, which is null", "use last")


def _histograms_without_tensorboard(config: schema.Config) -> Iterator[Fault]:
    interval = config.callbacks.histograms_every_n_steps
    if interval is not None and not config.logger.tensorboard:
        yield Fault(
            "callbacks.histograms_every_n_steps", interval, "needs logger.tensorboard, which is false", "use null"
        )


def _snapshots_without_checkpoint(config: schema.Config) -> Iterator[Fault]:
    if config.callbacks.snapshots is not None and config.callbacks.checkpoint is None:
        rule = "are kept in last.ckpt, and callbacks.checkpoint is null"
        yield Fault("callbacks.snapshots", config.callbacks.snapshots, rule, "use null")


def _resume_without_name(config: schema.Config) -> Iterator[Fault]:
    if config.sweep.resume and config.sweep.name is None:
        yield Fault("sweep.resume", True, "needs sweep.name, which says what to continue", "for example widths")


_CHECKS: tuple[Callable[[schema.Config], Iterator[Fault]], ...] = (
    _parts_of_hidden_layers,
    _equal_widths_of_blocks,
    _batch_norm_of_one_row,
    _split,
    _validation_metrics,
    _options_of_text_files,
    _two_meanings_of_a_mark,
    _options_of_synthetic_sets,
    _path_and_target,
    _ways_to_split,
    _one_table_for_two_splits,
    _kinds_of_targets,
    _formats_of_columns,
    _seed_of_the_split,
    _folds,
    _members,
    _preset,
    _length,
    _nesterov,
    _best_without_checkpoint,
    _histograms_without_tensorboard,
    _snapshots_without_checkpoint,
    _resume_without_name,
)
