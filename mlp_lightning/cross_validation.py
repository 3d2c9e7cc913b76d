"""Cross-validation: trains all folds, as one stack where possible; each predicts the rows that it held out.

Shapes: ``B`` rows, ``C`` classes, ``T`` targets.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mlp_lightning.config import Config
from mlp_lightning.errors import ConfigError, Fault, TrainingError
from mlp_lightning.inference.evaluation.table import below_baseline
from mlp_lightning.runs.console import RunConsole, print_error, short_path
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.fit import parsed_with_rows
from mlp_lightning.runs.run_folder import claim, surroundings
from mlp_lightning.sweeps.folds import means_of_folds, of_fold
from mlp_lightning.sweeps.grouping import group_runs
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.progress import SweepProgress
from mlp_lightning.sweeps.records import fold_folder
from mlp_lightning.sweeps.sizes import SizesOf
from mlp_lightning.sweeps.worker import Outcome, train_part

if TYPE_CHECKING:
    from mlp_lightning.data import TabularDataModule
    from mlp_lightning.inference.loading import TrainedModel
    from mlp_lightning.networks.tasks.base import Metrics
    from mlp_lightning.tables.reading.sources import TableSource

_SHARE_OF_MEMORY = 0.5
_Folds = Sequence["Metrics"]
# The metrics to print, where they exist; result.json has all of them.
_PRINTED_METRICS = ("log_loss", "accuracy", "balanced_accuracy", "roc_auc", "r2", "rmse", "mae")


@dataclasses.dataclass(frozen=True)
class CrossValidationResult:
    """How a cross-validation ended.

    Attributes:
        status: ``finished`` or ``interrupted``.
        run_dir: its folder; that of fold ``i`` is ``fold-i`` in it.
        folds: for each fold the metrics of the rows that it held out.
        metrics: for each metric ``mean`` and ``sd`` (with ``n - 1``) over the folds.
        baseline: the same of predictions that do not look at the features: each fold's are taken from its training
            rows and measured on the rows that it held out.
        out_of_fold: file with the prediction of every row by the fold that held it out.
        wall_time_s: seconds from start to end.
    """

    status: str
    run_dir: Path
    folds: list[Metrics]
    metrics: dict[str, dict[str, float]]
    baseline: dict[str, dict[str, float]]
    out_of_fold: Path | None
    wall_time_s: float

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json`` as plain data, without the facts about the environment."""
        plain = dataclasses.asdict(self)
        return {**plain, "run_dir": str(self.run_dir), "out_of_fold": self.out_of_fold and str(self.out_of_fold)}


def cross_validate(
    config: Config | Mapping[str, Any], run_dir: str | Path, console: Console | None = None, frame: Any = None
) -> CrossValidationResult:
    """Train ``config.data.cv.folds`` folds and evaluate each on the rows that it held out.

    Folds are stratified by class or by several labels, made of whole groups (``data.group_column``) or of later rows
    (``data.time_column``). Each fold splits its own validation rows off its training rows.

    Args:
        config: as for :func:`mlp_lightning.train`. ``data._target_`` may be the function itself; other parts of your
            own are imported, by their import path.
        run_dir: folder of the cross-validation, claimed exclusively.
        console: where to print; standard output if ``None``.
        frame: the table, instead of a file: a data frame of pandas, polars or pyarrow.

    Raises:
        ConfigError: the configuration is wrong, ``data.cv.folds`` is not set, or a class itself stands where the folds
            need its import path.
        DataError: the table cannot be used, or cannot be split into these folds.
        TrainingError: a fold failed; its folder says why.
    """
    parsed, objects, source = parsed_with_rows(config, frame)
    if parsed.data.cv.folds is None:
        raise ConfigError([Fault("data.cv.folds", None, "is missing", "for example 5")])
    rule, hint = "is imported for every fold", "give its import path, and its package in allow_targets"
    if faults := [Fault(key, f"{one}", rule, hint) for key, one in objects.items() if key != "data._target_"]:
        raise ConfigError(faults)
    run_console = RunConsole(parsed.verbosity, console)
    return _CrossValidation(parsed, Path(run_dir).absolute(), run_console, source).execute()


class _CrossValidation:
    """One cross-validation, from its configuration to its result."""

    def __init__(self, config: Config, folder: Path, console: RunConsole, source: TableSource | None) -> None:
        self.config = config
        self._given = source
        self.path = folder
        self.console = console
        self.started, self.started_at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        self.configs = [of_fold(config, fold) for fold in range(config.data.cv.folds or 0)]
        self.outcomes: dict[int, Outcome] = {}

    def execute(self) -> CrossValidationResult:
        from mlp_lightning.data.reading import open_source
        from mlp_lightning.tables.reading.memory import KeptSource

        opened = self._given or open_source(self.config.data, self.config.allow_targets)
        self._source = KeptSource(opened)  # all folds have its rows
        sizes = SizesOf(self._source)
        for one in self.configs:
            sizes(one)  # raises faults of the table before any folder is created
        folder = claim(self.path, self.config)
        with self.console.logging_to(folder.log):
            self._train(sizes)
            interrupted = any(one.status == "interrupted" for one in self.outcomes.values())
            result = self._summary("interrupted") if interrupted else self._evaluated()
            folder.write_result({**result.to_json(), **surroundings(self.config, self.started_at, self._fingerprint)})
            self._report(result)
        return result

    def _train(self, sizes: SizesOf) -> None:
        memory = int(available_memory() * _SHARE_OF_MEMORY)
        grouping = group_runs(self.configs, sizes, memory)
        steps = sum(map(sizes.steps, self.configs))
        self._announce(sum(map(len, grouping.stacks)), {reason for _, reason in grouping.alone})
        with SweepProgress(self.console, len(self.configs), steps) as progress:
            for folds in [*grouping.stacks, *([fold] for fold, _ in grouping.alone)]:
                part_progress = _PartProgress(self, folds, progress)
                of_part = [self.configs[one] for one in folds], [self._folder(one) for one in folds]
                train_part(*of_part, part_progress, source=self._source, rows=self._fingerprint)
                if any(one.status == "interrupted" for one in self.outcomes.values()):
                    break
        failed = {fold: one.error for fold, one in self.outcomes.items() if one.status == "failed"}
        if failed:
            fold, error = next(iter(failed.items()))
            raise TrainingError(f"Fold {fold} failed ({len(failed)} of {len(self.configs)} did): {error}")

    def _announce(self, stacked: int, reasons: set[str]) -> None:
        data = self._data(0)
        self._fingerprint = data.fingerprint
        for line in data.describe():
            self.console.line(line)
        how = "as one stack" if stacked == len(self.configs) else "one after another"
        if stacked and stacked < len(self.configs):
            how = f"{stacked} in a stack"
        why = f" ({'; '.join(sorted(reasons))})" if reasons else ""
        self.console.line(f"Training {len(self.configs)} folds {how}{why}")

    def _folder(self, fold: int) -> Path:
        return self.path / fold_folder(fold)

    def _data(self, fold: int) -> TabularDataModule:
        from mlp_lightning.data.reading import Given
        from mlp_lightning.runs.build import build_data

        return build_data(self.configs[fold], Given(self._source))

    # ---- predictions -------------------------------------------------------------------------------------

    def _evaluated(self) -> CrossValidationResult:
        """Predict the held-out rows of every fold and compute their metrics."""
        parts, metrics, baselines = [], [], []
        for fold in range(len(self.configs)):
            data = self._data(fold)
            model, predictions_BC = self._predictions(fold, data)
            truths_BT = model.task.truths(data.splits["test"].targets.double()).numpy()
            metrics.append(model.task.evaluation(data.target, truths_BT, predictions_BC).metrics)
            baselines.append(data.baseline.evaluation(model.task, data.target, truths_BT, None))
            parts.append(_out_of_fold(fold, data, model, truths_BT, predictions_BC))
        return self._summary("finished", metrics, baselines, self._write_out_of_fold(parts))

    def _predictions(self, fold: int, data: TabularDataModule) -> tuple[TrainedModel, NDArray[np.float64]]:
        """The model of a fold, and what it predicts for the rows that the fold held out."""
        import torch

        from mlp_lightning.inference.loading import load_model

        path = self._folder(fold) / "checkpoints" / f"{self.outcomes[fold].weights}.ckpt"
        model = load_model(path, allow_targets=self.config.allow_targets)
        with torch.no_grad():
            batches = data.splits["test"].features_BF.split(65_536)
            return model, torch.cat([model.task.predictions(model.module.mlp(one).double()) for one in batches]).numpy()

    def _write_out_of_fold(self, parts: list[Any]) -> Path:
        import pyarrow as pa
        import pyarrow.csv

        table = pa.concat_tables(parts).sort_by("row")
        path = self.path / "out_of_fold.csv"
        with atomic_write(path) as file:
            pyarrow.csv.write_csv(table, file)
        return path

    # ---- result and report -------------------------------------------------------------------------------

    def _summary(
        self, status: str, folds: _Folds = (), baselines: _Folds = (), out_of_fold: Path | None = None
    ) -> CrossValidationResult:
        means, of_baselines = means_of_folds(folds), means_of_folds(baselines)
        seconds = time.monotonic() - self.started
        return CrossValidationResult(status, self.path, list(folds), means, of_baselines, out_of_fold, seconds)

    def _report(self, result: CrossValidationResult) -> None:
        if result.status == "interrupted":
            self.console.line("Stopped as asked. The folders of the finished folds are kept.")
            return
        names = [name for name in _PRINTED_METRICS if name in result.metrics]
        title = f"{len(result.folds)} folds: metrics of the held-out rows"
        table = Table("", *names, title=title, title_justify="left")
        rows = [[f"fold {fold}", *(_number(one[name]) for name in names)] for fold, one in enumerate(result.folds)]
        rows.append(["mean", *(_number(result.metrics[name]["mean"]) for name in names)])
        rows.append(["sd", *(_number(result.metrics[name]["sd"]) for name in names)])
        base = {name: one["mean"] for name, one in result.baseline.items()}
        rows.append(["baseline", *(_number(base.get(name)) for name in names)])
        for row in rows:
            table.add_row(*row)
        plain = [f"  {first:<9}" + "".join(f"{cell:>19}" for cell in cells) for first, *cells in [["", *names], *rows]]
        self.console.line("\n".join([str(table.title), *plain]), in_terminal=table)
        for name in names[:2]:
            one = result.metrics[name]
            self.console.line(f"{name}: {one['mean']:.4g} ± {one['sd']:.2g}")
        # Where rows are weighted, these metrics are not what is learned.
        if self.config.data.weight_column is None and self.config.data.class_weight == "none":
            for line in below_baseline({name: one["mean"] for name, one in result.metrics.items()}, base):
                self.console.line(line)
        self.console.line(f"Out-of-fold predictions: {short_path(self.path / 'out_of_fold.csv')}")
        self.console.line(f"Folder: {short_path(self.path)} ({result.wall_time_s:.1f} s)")


class _PartProgress:
    """Reports the progress of one part of the folds."""

    def __init__(self, parent: _CrossValidation, folds: list[int], progress: SweepProgress) -> None:
        self._parent = parent
        self._folds = folds
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        fold = self._folds[index]
        self._parent.outcomes[fold] = outcome
        self._progress.ended(outcome.status == "failed")
        if outcome.status == "failed":
            print_error(f"fold {fold} failed: {outcome.error}")
        return outcome.status == "finished"


def _out_of_fold(
    fold: int,
    data: TabularDataModule,
    model: TrainedModel,
    truths_BT: NDArray[np.float64],
    predictions_BC: NDArray[np.float64],
) -> Any:
    """One row of the table for each held-out row; ``row`` counts the rows of the source from 1.

    A target that is called like another column of this table is called ``true_<target>`` here.
    """
    import pyarrow as pa

    from mlp_lightning.inference.predict import output_columns, output_names

    rows = data.row_numbers["test"] + 1
    columns: dict[str, Any] = {"row": rows, "fold": np.full(len(rows), fold)}
    taken = {*columns, *output_names(data.target)}
    for one, values_B in zip(data.target.columns, truths_BT.T, strict=True):
        name = one.name
        while name in taken:
            name = f"true_{name}"
        taken.add(name)
        columns[name] = one.values(values_B) if one.classes else values_B
    return pa.table({**columns, **output_columns(model, predictions_BC)})


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
