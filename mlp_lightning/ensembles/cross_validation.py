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
from rich.console import Console
from rich.table import Table

from mlp_lightning.config import Config
from mlp_lightning.ensembles.ensemble import finish, mean_predictions, parts_of, refuse_objects, write_ensemble
from mlp_lightning.ensembles.training import PartOfRun, Trainings, claimed
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.evaluation.table import below_baseline
from mlp_lightning.inference.labelled_rows import source_of_split
from mlp_lightning.runs.calibration import Calibration, calibration, uses_of_validation
from mlp_lightning.runs.card import Facts, Measured, write_card
from mlp_lightning.runs.console import RunConsole, short_path
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.fit import parsed_with_rows
from mlp_lightning.runs.folder_names import fold_folder
from mlp_lightning.runs.run_folder import RunFolder, claim, surroundings
from mlp_lightning.sweeps.folds import means_of_folds, of_fold, of_member

if TYPE_CHECKING:
    from mlp_lightning.data import TabularDataModule
    from mlp_lightning.inference.loading import TrainedModel
    from mlp_lightning.networks.tasks import Task
    from mlp_lightning.networks.tasks.base import Floats, Metrics
    from mlp_lightning.tables.reading.sources import TableSource

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
        test: the metrics of the model of all folds on test rows, which no fold has seen; ``None`` without such rows.
        test_baseline: the same of predictions that do not look at the features.
        wall_time_s: seconds from start to end.
    """

    status: str
    run_dir: Path
    folds: list[Metrics]
    metrics: dict[str, dict[str, float]]
    baseline: dict[str, dict[str, float]]
    out_of_fold: Path | None
    wall_time_s: float
    test: Metrics | None = None
    test_baseline: Metrics | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of ``result.json`` as plain data, without the facts about the environment."""
        plain = dataclasses.asdict(self)
        return {**plain, "run_dir": str(self.run_dir), "out_of_fold": self.out_of_fold and str(self.out_of_fold)}


def cross_validate(
    config: Config | Mapping[str, Any],
    run_dir: str | Path,
    console: Console | None = None,
    frame: Any = None,
    continues: bool = False,
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
        continues: whether to continue what an earlier process left unfinished in ``run_dir``: what has finished there
            is kept, and stacks continue from their last saved state.

    Raises:
        ConfigError: the configuration is wrong, ``data.cv.folds`` is not set, or a class itself stands where the folds
            need its import path.
        DataError: the table cannot be used, or cannot be split into these folds.
        TrainingError: a fold failed; its folder says why.
    """
    parsed, objects, source = parsed_with_rows(config, frame)
    if parsed.data.cv.folds is None:
        raise ConfigError([Fault("data.cv.folds", None, "is missing", "for example 5")])
    refuse_objects(objects, "fold")
    run_console = RunConsole(parsed.verbosity, console)
    return _CrossValidation(parsed, Path(run_dir).absolute(), run_console, source).execute(continues)


class _CrossValidation:
    """One cross-validation, from its configuration to its result."""

    def __init__(self, config: Config, folder: Path, console: RunConsole, source: TableSource | None) -> None:
        self.config = config
        self._given = source
        self.path = folder
        self.console = console
        self.started, self.started_at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        folds = range(config.data.cv.folds or 0)
        self._folds = [PartOfRun(f"fold {one}", of_fold(config, one), folder / fold_folder(one)) for one in folds]

    def execute(self, continues: bool) -> CrossValidationResult:
        from mlp_lightning.data.reading import open_source
        from mlp_lightning.tables.reading.memory import KeptSource

        self._source = KeptSource(self._given or open_source(self.config.data, self.config.allow_targets))
        of_folds = [parts_of(one) for one in self._folds]
        # Raises faults of the table before any folder is created.
        self._trainings = Trainings([part for parts in of_folds for part in parts], self._source, "folds", self.path)
        with claimed(self.path, self.config, continues) as folder, self.console.logging_to(folder.log):
            data = self._data(0)
            for line in self._trainings.describe():
                self.console.line(line)
            finished = self._trainings.train(self.console, data.fingerprint)
            result = self._evaluated(data.fingerprint) if finished else self._summary("interrupted")
            if finished:
                self._write_card(result)
            facts = surroundings(self.config, self.started_at, data.fingerprint)
            folder.write_result({**result.to_json(), **facts})
            self._report(result)
        return result

    def _data(self, fold: int) -> TabularDataModule:
        from mlp_lightning.data.reading import Given
        from mlp_lightning.runs.build import build_data

        return build_data(of_member(self._folds[fold].config, 0), Given(self._source))

    @staticmethod
    def _truths(model: TrainedModel, source: TableSource) -> Floats:
        """The targets of all rows of a table as it has them ``(B, T)``: class numbers, or values, which are exact."""
        from mlp_lightning.tables.batches import encoded_batches
        from mlp_lightning.tables.encoding import Surprises

        batches = encoded_batches(source, (), model.target, Surprises(), trained=model.number_forms)
        return np.concatenate([one.targets_BT for one in batches])

    # ---- predictions -------------------------------------------------------------------------------------

    def _evaluated(self, fingerprint: Mapping[str, Any]) -> CrossValidationResult:
        """Predict the held-out rows of every fold, compute their metrics, and keep the model of all folds."""
        tables, metrics, baselines, of_test, residuals_of_folds = [], [], [], [], []
        held_out = "val" if self.config.data.cv.validates else "test"
        models = self._trainings.models()
        members, truths_BT = len(models) // len(self._folds), self._truths(models[0], self._source)
        for fold, run in enumerate(self._folds):
            data, of_fold = self._data(fold), models[fold * members : (fold + 1) * members]
            predictions_BC = mean_predictions(of_fold, data.splits[held_out]).numpy()
            true_BT = truths_BT[data.row_numbers[held_out]]
            found = _measured(data, of_fold[0].task, true_BT, predictions_BC)
            residuals_of_folds.append(np.abs(true_BT - predictions_BC) if data.task == "regression" else None)
            metrics.append(found[0])
            baselines.append(found[1])
            rows = data.row_numbers[held_out] + 1
            tables.append(_out_of_fold(fold, rows, of_fold[0], true_BT, predictions_BC))
            if held_out == "val" and "test" in data.splits:
                of_test.append(mean_predictions(of_fold, data.splits["test"]).numpy())
            if run.config.ensemble.members is not None:
                if not RunFolder(run.folder).config.is_file():  # of an earlier process
                    claim(run.folder, run.config)
                outcomes = [self._trainings.outcomes[fold * members + one] for one in range(members)]
                finish(run, of_fold, outcomes, data, (self.started, self.started_at))
        kept = self._calibration(residuals_of_folds, members)
        write_ensemble(self.path, self.config, models, fingerprint, kept=kept)
        result = self._summary("finished", metrics, baselines, self._write_out_of_fold(tables))
        if not of_test:
            return result
        # All folds have the same test rows; their baseline is that of the first fold.
        data = self._data(0)
        true_BT = self._truths(models[0], source_of_split(data, "test", self._source))[data.row_numbers["test"]]
        test, baseline = _measured(data, models[0].task, true_BT, np.mean(of_test, axis=0))
        return dataclasses.replace(result, test=test, test_baseline=baseline)

    def _calibration(self, residuals_of_folds: Sequence[Floats | None], members: int) -> Calibration | None:
        """For the model of all folds; each has so many members."""
        known = [one for one in residuals_of_folds if one is not None]
        if not known:
            return None
        fold_N = np.repeat(np.arange(len(known)), [len(one) for one in known])
        reports_best = any(one.weights == "best" for one in self._trainings.outcomes.values())
        used_for = uses_of_validation(self.config, reports_best) if self.config.data.cv.validates else []
        fold_of_member = np.repeat(np.arange(len(known)), members).tolist()
        return calibration(np.concatenate(known), self.config.seed, used_for, fold_N, fold_of_member)

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

    def _write_card(self, result: CrossValidationResult) -> None:
        means = [
            {name: f"{one['mean']:.6g} ± {one['sd']:.2g}" for name, one in of.items() if name in _PRINTED_METRICS}
            for of in (result.metrics, result.baseline)
        ]
        measured = [Measured(f"rows that a fold held out, mean and deviation of {len(result.folds)} folds", *means)]
        if result.test is not None:
            of_test = [
                {name: f"{one:.6g}" for name, one in (of or {}).items() if name in _PRINTED_METRICS and one is not None}
                for of in (result.test, result.test_baseline)
            ]
            measured.append(Measured("test rows", *of_test))
        limits = ["The metrics of held-out rows are those of single folds, and not of the mean of all of them."]
        if self.config.data.cv.validates and any(one.weights == "best" for one in self._trainings.outcomes.values()):
            limits.append("The held-out rows chose the weights, so their metrics are a little too good.")
        model = f"The mean of the predictions of the networks of {len(self._folds)} folds"
        facts = Facts(model, measured, limits, "best")
        write_card(RunFolder(self.path), self.config, self._data(0), facts)

    def _report(self, result: CrossValidationResult) -> None:
        if result.status == "interrupted":
            self.console.line("Stopped as asked. To continue, give the same command with auto_resume=true")
            return
        names = [name for name in _PRINTED_METRICS if name in result.metrics]
        title = f"{len(result.folds)} folds: metrics of the held-out rows"
        if self.config.data.cv.validates:
            title += ", which each fold has validated with"
        table = Table("", *names, title=title, title_justify="left")
        base = {name: one["mean"] for name, one in result.baseline.items()}
        of_rows: dict[str, Metrics | None] = {f"fold {fold}": one for fold, one in enumerate(result.folds)}
        of_rows |= {which: {name: one[which] for name, one in result.metrics.items()} for which in ("mean", "sd")}
        of_rows |= {"baseline": dict(base), "all folds, test": result.test, "baseline, test": result.test_baseline}
        rows = [
            [title, *(_number(one.get(name)) for name in names)] for title, one in of_rows.items() if one is not None
        ]
        for row in rows:
            table.add_row(*row)
        plain = [f"  {first:<15}" + "".join(f"{cell:>19}" for cell in cells) for first, *cells in [["", *names], *rows]]
        self.console.line("\n".join([str(table.title), *plain]), in_terminal=table)
        for name in names[:2]:
            one = result.metrics[name]
            self.console.line(f"{name}: {one['mean']:.4g} ± {one['sd']:.2g}")
        # Where rows are weighted, these metrics are not what is learned.
        if self.config.data.weight_column is None and self.config.data.class_weight == "none":
            means = {name: one["mean"] for name, one in result.metrics.items()}
            compared = (means, base) if result.test is None else (result.test, result.test_baseline)
            for line in below_baseline(*compared):
                self.console.line(line)
        self.console.line(f"Out-of-fold predictions: {short_path(self.path / 'out_of_fold.csv')}")
        model = RunFolder(self.path).best_checkpoint
        self.console.line(f"Model of all folds (the mean of their predictions): {short_path(model)}")
        self.console.line(f"Folder: {short_path(self.path)} ({result.wall_time_s:.1f} s)")


def _measured(data: TabularDataModule, task: Task, true_BT: Floats, predictions_BC: Floats) -> tuple[Metrics, Metrics]:
    """The metrics of predictions, and those of the baseline."""
    metrics = task.evaluation(data.target, true_BT, predictions_BC).metrics
    return metrics, data.baseline.evaluation(task, data.target, true_BT, None)


def _out_of_fold(fold: int, rows: Any, model: TrainedModel, true_BT: Floats, predictions_BC: Floats) -> Any:
    """One row of the table for each held-out row; ``row`` counts the rows of the source from 1.

    A target that is called like another column of this table is called ``true_<target>`` here.
    """
    import pyarrow as pa

    from mlp_lightning.inference.predict import output_columns, output_names

    columns: dict[str, Any] = {"row": rows, "fold": np.full(len(rows), fold)}
    taken = {*columns, *output_names(model.target)}
    for one, values_B in zip(model.target.columns, true_BT.T, strict=True):
        name = one.name
        while name in taken:
            name = f"true_{name}"
        taken.add(name)
        columns[name] = one.values(values_B) if one.classes else values_B
    return pa.table({**columns, **output_columns(model, predictions_BC)})


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
