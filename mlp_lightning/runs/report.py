"""What is said of a run at its beginning and at its end, for a person to read."""

from __future__ import annotations

import shlex
import statistics

from rich.table import Table

from mlp_lightning.config import Config, OwnDataConfig, OwnModelConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.errors import counted
from mlp_lightning.runs.console import SPLIT_NAMES, WARNING, RunConsole, short_path
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder

# A validation loss that ends so many times above its lowest has risen by more than it wavers.
_OVERFITTED = 1.1


def announcement(config: Config, data: TabularDataModule, parameters: int, last_step: int) -> str:
    """What is about to be trained."""
    data_name = config.data.title if isinstance(config.data, OwnDataConfig) else config.data.name
    rows = ", ".join(f"{len(part)} {name}" for name, part in data.splits.items())
    return (
        f"Training {network_name(config, data)} ({parameters} parameters) on {data_name} ({rows} rows) with"
        f" {config.optimizer.name}, learning rate {config.optimizer.lr:g}, {last_step} steps"
    )


def network_name(config: Config, data: TabularDataModule) -> str:
    """Widths and activation of the network, or the class of the user's own."""
    widths = "-".join(str(one) for one in [data.in_features, *config.model.layer_widths, data.out_features])
    if isinstance(config.model, OwnModelConfig):
        widths = config.model._target_
    activation = f" {config.model.activation}" if config.model.layer_widths else ""
    return f"{widths}{' residual' if config.model.residual else ''}{activation}"


def how_to_continue(config: Config, folder: RunFolder) -> str:
    """What to do with a run that was interrupted."""
    if config.callbacks.checkpoint is None:
        return "Stopped as asked. Nothing was saved, since callbacks.checkpoint is null."
    return f"Stopped as asked. To continue, give the same command with ckpt_path={folder.last_checkpoint}"


def report(
    result: TrainingResult, console: RunConsole, details: str, is_kept: bool = True, has_events: bool = True
) -> None:
    """Show the metrics of every split, the run's facts, the run folder and how to look at it.

    Args:
        result: of the run.
        console: where to show it.
        details: what the data set has to say about the predictions, possibly empty.
        is_kept: whether the run folder stays.
        has_events: whether TensorBoard can show it.
    """
    if result.metrics:
        names, rows = _metrics(result)
        table = Table("", *names, title=_title(result), title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.line("\n".join(_metric_lines(result)), in_terminal=table)
    for line in _facts(result, details, has_events, is_kept):
        console.line(line)


def report_lines(result: TrainingResult, details: str, has_events: bool = True) -> list[str]:
    """The same as plain lines."""
    lines = _metric_lines(result) if result.metrics else []
    return [line for text in [*lines, *_facts(result, details, has_events)] for line in text.splitlines()]


def _facts(result: TrainingResult, details: str, has_events: bool, is_kept: bool = True) -> list[str]:
    stopped = f"; stopped early: {result.stopped_by}" if result.stopped_by else ""
    epochs = counted(result.epochs, "epoch", "")
    if result.members:
        epochs = f"{counted(len(result.members), 'member')}, {epochs}"
    steps = counted(result.steps, "step", "")
    facts = [f"{steps} ({epochs}) in {result.wall_time_s:.1f} s on {result.device}{stopped}"]
    facts += _overfitting(result)
    if result.baseline is not None:
        facts.append(f"Baseline: {result.baseline['predicts']}")
    if details:
        facts.append(details)
    if not is_kept:  # who trained without a folder has no command line to follow the advice of a warning
        return facts
    facts += [f"{WARNING}{one}" for one in result.warnings]
    folder = short_path(result.run_dir)
    facts.append(f"Run folder:  {folder}")
    if has_events:
        facts.append(f"TensorBoard: tensorboard --logdir {shlex.quote(folder.as_posix())}")
    return facts


def _overfitting(result: TrainingResult) -> list[str]:
    """What to say of a validation loss that has risen again."""
    if result.validation is None:
        return []
    best, last = result.validation["best"], result.validation["last"]
    if last["step"] <= best["step"] or last["loss"] <= _OVERFITTED * best["loss"]:
        return []
    steps = counted(int(best["step"]), "step", "")
    line = f"Overfitting: the validation loss was {best['loss']:.4g} after {steps} and ends at"
    return [
        f"{line} {last['loss']:.4g}" + ("" if result.stopped_by else "; callbacks=early_stopping ends a run sooner")
    ]


def _title(result: TrainingResult) -> str:
    if result.members:
        return f"Final metrics (mean prediction of {len(result.members)} members)"
    if result.weights == "last" or result.validation is None:
        return f"Final metrics ({result.weights} weights)"
    return f"Final metrics (best weights, of step {result.validation['best']['step']})"


def _metrics(result: TrainingResult) -> tuple[list[str], list[list[str]]]:
    """The metrics of every split, and those of the validation rows by the weights that are not reported."""
    named = {SPLIT_NAMES[split]: values for split, values in result.metrics.items()}
    if result.validation is not None and result.validation["best"]["step"] != result.validation["last"]["step"]:
        other = "last" if result.weights == "best" else "best"
        values = result.validation[other]
        named[f"validation, {other} weights (step {values['step']})"] = values
    names = list(next(iter(result.metrics.values())))
    if result.members:
        for split in result.metrics:
            of_members = [one["metrics"][split] for one in result.members]
            means = {name: statistics.fmean(one[name] for one in of_members) for name in names}
            named[f"{SPLIT_NAMES[split]}, mean of the members"] = means
    if result.baseline is None:
        return names, [[title, *(f"{values[name]:.6g}" for name in names)] for title, values in named.items()]
    # That of the weights that are not reported is the same.
    base = {SPLIT_NAMES[split]: values for split, values in result.baseline["metrics"].items()}
    columns = [title for name in names for title in (name, "baseline")]
    return columns, [
        [title, *(f"{one[name]:.6g}" for name in names for one in (values, base[title.partition(",")[0]]))]
        for title, values in named.items()
    ]


def _metric_lines(result: TrainingResult) -> list[str]:
    names, rows = _metrics(result)
    width = max(len(name) for name, *_ in rows)
    lines = [f"  {name:<{width}}" + "".join(f"{cell:>14}" for cell in cells) for name, *cells in [["", *names], *rows]]
    return [_title(result), *lines]
