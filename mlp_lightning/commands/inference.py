"""The commands ``mlp-evaluate``, ``mlp-explain``, ``mlp-predict`` and ``mlp-export`` (``scripts/evaluate.py``, …).

Hydra composes their options; all their faults are reported together, before torch is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig

from mlp_lightning.commands.resources import missing_device, missing_tables, parse_with
from mlp_lightning.commands.train import EXIT_INTERRUPTED, OUTPUT_FOLDER, report_error
from mlp_lightning.config import conf_dir
from mlp_lightning.config.hydra_arguments import is_question, options_given, parse_arguments, run_hydra
from mlp_lightning.config.inference import (
    EvaluateConfig,
    ExplainConfig,
    ExportConfig,
    PredictConfig,
    ReportConfig,
    idle_options,
)
from mlp_lightning.config.overrides import check_overrides
from mlp_lightning.config.parsing import parse_section
from mlp_lightning.errors import ConfigError, Fault, MLPLightningError, counted
from mlp_lightning.runs.checkpoint_files import why_no_file
from mlp_lightning.runs.libraries import import_libraries
from mlp_lightning.runs.packed.resolving import unpacked
from mlp_lightning.runs.run_folder import is_finished, newest_checkpoint, newest_first
from mlp_lightning.runs.stop import raise_lost_interrupt, remember_interrupts

_Options = TypeVar("_Options", EvaluateConfig, ExplainConfig, PredictConfig, ExportConfig, ReportConfig)
_WHICH_MODEL = "name a .ckpt file, a run folder, or best for the newest run"


def evaluate() -> None:
    """Evaluate a trained model; ends the process with its exit code."""
    run_command("evaluate", EvaluateConfig, {"ckpt_path": _WHICH_MODEL}, _evaluate)


def explain() -> None:
    """Explain a trained model; ends the process with its exit code."""
    run_command("explain", ExplainConfig, {"ckpt_path": _WHICH_MODEL}, _explain)


def predict() -> None:
    """Predict the rows of a table; ends the process with its exit code."""
    required = {
        "ckpt_path": _WHICH_MODEL,
        "data.path": "name the table: a file, a folder or a pattern",
        "output": "name the file for the predictions, for example predictions.csv",
    }
    run_command("predict", PredictConfig, required, _predict)


def export() -> None:
    """Export a trained model; ends the process with its exit code."""
    run_command("export", ExportConfig, {"ckpt_path": _WHICH_MODEL}, _export)


def run_command(
    name: str,
    cls: type[_Options],
    required: Mapping[str, str],
    work: Callable[[_Options, Path], None],
    find: Callable[[str], Path] | None = None,
) -> None:
    """Check the options of this process's command line and call ``work``.

    Args:
        name: of the command, and of its file in ``conf/``.
        cls: its options.
        required: what to do about options that are missing; the first names what ``find`` looks for.
        work: takes the options and what was found.
        find: raises a ConfigError for what is not there; ``None``: looks for a checkpoint.
    """
    find, key = find or checkpoint_of, next(iter(required))
    remember_interrupts()
    arguments = parse_arguments()

    def task(composed: DictConfig) -> None:
        """Does nothing: here Hydra only shows help and the like."""

    def parse(plain: Mapping[str, Any], explicit: Collection[str]) -> _Options:
        options = parse_section(cls, {key: one for key, one in plain.items() if key != "hydra"}, required)
        faults = idle_options(options, explicit)
        if faults:
            raise ConfigError(faults)
        return options

    try:
        if is_question(arguments):
            run_hydra(task, conf_dir(), name, arguments.overrides, options_given(arguments))
            return
        if arguments.multirun:
            raise ConfigError([Fault("--multirun", True, "is only for training", "give one command for each")])
        parse_all = parse_with(parse, lambda plain: _missing(plain, key, find))
        options = check_overrides(arguments.overrides, config_name=arguments.config_name or name, parse=parse_all)
        found = find(str(getattr(options, key)))
        import_libraries("mlp_lightning.inference.loading")
        work(options, found)
    except (OSError, MLPLightningError) as error:
        sys.exit(report_error(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _missing(plain: Mapping[str, Any], key: str, find: Callable[[str], Path]) -> list[Fault]:
    """What the options name and is not there."""
    faults = [*missing_tables(plain), *missing_device("accelerator", plain.get("accelerator"))]
    try:
        find(str(plain.get(key) or "last"))
    except ConfigError as error:
        faults += error.faults if plain.get(key) else []
    if plain.get("compare") is not None:
        try:
            checkpoint_of(str(plain["compare"]), "compare")
        except ConfigError as error:
            faults += error.faults
    return faults


def checkpoint_of(wanted: str, key: str = "ckpt_path") -> Path:
    """The checkpoint that ``ckpt_path``, or another key, names."""
    if wanted in ("last", "best"):
        found = newest_checkpoint(OUTPUT_FOLDER.glob("*"), wanted, prefers_finished=True)
        best = newest_checkpoint(OUTPUT_FOLDER.glob("*"), "best", prefers_finished=True)
        if best is not None and best != found and not best.with_name(f"{wanted}.ckpt").is_file():
            newer = newest_first(OUTPUT_FOLDER.glob("*"), prefers_finished=True)
            if found is None or newer.index(best.parents[1]) < newer.index(found.parents[1]):
                rule = f"is of a single training, and the newest run, {best.parents[1]}, is an ensemble without one"
                raise ConfigError([Fault(key, wanted, rule, f"choose {key}=best, or name a checkpoint")])
        if found is None:
            rule = f"names a checkpoint of the newest run in {OUTPUT_FOLDER}, and no run there has one"
            raise ConfigError([Fault(key, wanted, rule, "train one first, or give the path of a checkpoint")])
        return found
    path = unpacked(Path(wanted).expanduser())
    if path.is_dir():
        if (path / "fold-0").is_dir() and not (path / "checkpoints").is_dir():
            hint = f"name one of its folds, for example {path / 'fold-0'}"
            raise ConfigError([Fault(key, wanted, "is a cross-validation without a model of all folds", hint)])
        path = path / "checkpoints" / "best.ckpt"
    if reason := why_no_file(path):
        raise ConfigError([Fault(key, wanted, reason, _WHICH_MODEL)])
    return path


def _model_line(wanted: str | None, checkpoint: Path) -> str:
    """Which model it is, and why it is this one if you named no file."""
    if wanted not in ("last", "best"):
        return f"Model: {checkpoint}"
    which = (
        "the newest finished run" if is_finished(checkpoint.parents[1]) else "the newest run, which has not finished"
    )
    return f"Model: {checkpoint} (ckpt_path={wanted}: of {which})"


def _device(accelerator: str) -> str:
    """The name of torch's device for an accelerator."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = {"auto": ["cuda", "mps", "cpu"], "gpu": ["cuda", "mps"]}.get(accelerator, [accelerator])
    return next(name for name in wanted if available[name])


def _evaluate(options: EvaluateConfig, checkpoint: Path) -> None:
    from mlp_lightning.inference.evaluation.evaluate import evaluate as evaluate_model
    from mlp_lightning.inference.loading import run_dir_of
    from mlp_lightning.runs.console import RunConsole

    raise_lost_interrupt()
    # With a prefix, because a table may have the name of a split.
    rows = options.split if options.data.path is None else f"table-{Path(options.data.path).stem}"
    folder = run_dir_of(checkpoint) / "evaluation" / rows if options.output is None else Path(options.output)
    device = _device(options.accelerator)
    which = (
        options.data.path,
        options.data.csv if options.data.path is not None else None,
        options.split,
        options.weight_column,
    )
    report = evaluate_model(
        checkpoint,
        folder,
        *which,
        device,
        options.allow_targets,
        group_column=options.group_column,
        resamples=options.resamples,
        confidence=options.confidence,
        seed=options.seed,
        compare=None if options.compare is None else checkpoint_of(options.compare, "compare"),
        threshold=options.threshold,
    )
    console = RunConsole(options.verbosity)
    console.line(_model_line(options.ckpt_path, checkpoint))
    if console.is_terminal:
        for table in report.tables():
            console.line(in_terminal=table)
    else:
        console.line("\n".join(report.lines()))
    for line in report.facts():
        console.line(line)


def _explain(options: ExplainConfig, checkpoint: Path) -> None:
    from mlp_lightning.inference.explanation.explain import explain as explain_model
    from mlp_lightning.runs.console import RunConsole

    raise_lost_interrupt()
    report = explain_model(
        checkpoint,
        options.output,
        options.data.path,
        options.data.csv if options.data.path is not None else None,
        options.split,
        options.weight_column,
        _device(options.accelerator),
        options.allow_targets,
        repeats=options.repeats,
        top=options.top,
        rows=options.rows,
        seed=options.seed,
        shapley_rows=options.shapley_rows,
        shapley_samples=options.shapley_samples,
    )
    console = RunConsole(options.verbosity)
    console.line(_model_line(options.ckpt_path, checkpoint))
    if console.is_terminal:
        console.line(in_terminal=report.table())
    else:
        console.line("\n".join(report.lines()))
    for line in report.facts():
        console.line(line)


def _predict(options: PredictConfig, checkpoint: Path) -> None:
    from mlp_lightning.inference.predict import predict as predict_rows
    from mlp_lightning.runs.console import RunConsole

    raise_lost_interrupt()
    columns = [options.id_columns] if isinstance(options.id_columns, str) else options.id_columns or []
    report = predict_rows(
        checkpoint,
        str(options.data.path),
        str(options.output),
        options.data.csv,
        columns,
        _device(options.accelerator),
        overwrite=options.overwrite,
        allow_targets=options.allow_targets,
        interval=options.interval,
        member_quantiles=options.member_quantiles,
        threshold=options.threshold,
    )
    console = RunConsole(options.verbosity)
    console.line(_model_line(options.ckpt_path, checkpoint))
    for line in [*report.surprises, *report.notes]:
        console.line(line)
    console.line(f"{counted(report.rows, 'row')} predicted in {report.seconds:.1f} s: {report.path}")


def _export(options: ExportConfig, checkpoint: Path) -> None:
    from mlp_lightning.inference.export.formats import export_model
    from mlp_lightning.runs.console import RunConsole

    raise_lost_interrupt()
    output = None if options.output is None else Path(options.output)
    report = export_model(checkpoint, options.format, output, options.allow_targets)
    console = RunConsole(options.verbosity)
    console.line(_model_line(options.ckpt_path, checkpoint))
    for file in report.files:
        console.line(f"Written: {file}")
    console.line(
        f"Predicts as the checkpoint does: {report.checked_rows:,} rows compared, largest difference"
        f" {report.largest_difference:.2g}"
    )
    if report.not_exported:
        console.line(f"Not exported: {report.not_exported}")


__all__ = ["checkpoint_of", "evaluate", "explain", "export", "predict", "run_command"]
