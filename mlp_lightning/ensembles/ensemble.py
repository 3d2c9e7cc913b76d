"""Ensembles: members that differ in their seeds, trained as one stack where possible and kept as one model.

Shapes: ``K`` members, ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.ensembles.training import PartOfRun, Trainings, claimed
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.runs.assessment import assess, describe_baseline
from mlp_lightning.runs.calibration import Calibration, calibration, residuals, uses_of_validation
from mlp_lightning.runs.card import facts_of, write_card
from mlp_lightning.runs.checkpoint_content import CALIBRATION_KEY, ENSEMBLE_KEY
from mlp_lightning.runs.checkpoints import CONFIG_KEY, FINGERPRINT_KEY, write_checkpoint
from mlp_lightning.runs.console import RunConsole
from mlp_lightning.runs.ensembles import combined
from mlp_lightning.runs.fit import parsed_with_rows
from mlp_lightning.runs.folder_names import MEMBERS
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.report import network_name, report
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder, surroundings
from mlp_lightning.sweeps.folds import of_member
from mlp_lightning.sweeps.worker import Outcome

if TYPE_CHECKING:
    from mlp_lightning.data import TabularDataModule
    from mlp_lightning.engines.rows import Rows
    from mlp_lightning.tables.reading.sources import TableSource

_ROWS_AT_ONCE = 65_536


def train_ensemble(
    config: Config | Mapping[str, Any],
    run_dir: str | Path,
    console: Console | None = None,
    frame: Any = None,
    continues: bool = False,
) -> TrainingResult:
    """Train ``config.ensemble.members`` networks that differ in their seeds, and keep them as one model.

    All have the same split. The run folder is that of a run, with ``checkpoints/best.ckpt`` as the model: its
    predictions are the means of the members'. The run of member ``k`` is in ``members/k``.

    Args:
        config: as for :func:`mlp_lightning.train`. ``data._target_`` may be the function itself; other parts of your
            own are imported, by their import path.
        run_dir: folder of the ensemble, claimed exclusively.
        console: where to print; standard output if ``None``.
        frame: the table, instead of a file: a data frame of pandas, polars or pyarrow.
        continues: whether to continue what an earlier process left unfinished in ``run_dir``: what has finished there
            is kept, and stacks continue from their last saved state.

    Returns:
        The result of the ensemble; ``members`` of it has those of the members.

    Raises:
        ConfigError: the configuration is wrong, ``ensemble.members`` is not set, or a class itself stands where the
            members need its import path.
        DataError: the table cannot be used.
        TrainingError: a member failed; its folder says why.
    """
    parsed, objects, source = parsed_with_rows(config, frame)
    if parsed.ensemble.members is None:
        raise ConfigError([Fault("ensemble.members", None, "is missing", "for example 8")])
    refuse_objects(objects, "member")
    run = PartOfRun("ensemble", parsed, Path(run_dir).absolute())
    return _trained(run, RunConsole(parsed.verbosity, console), source, continues)


def refuse_objects(objects: Mapping[str, Any], what: str) -> None:
    """Refuse classes themselves where each of several trainings imports them.

    Raises:
        ConfigError: naming them.
    """
    rule, hint = f"is imported for every {what}", "give its import path, and its package in allow_targets"
    if faults := [Fault(key, f"{one}", rule, hint) for key, one in objects.items() if key != "data._target_"]:
        raise ConfigError(faults)


def parts_of(run: PartOfRun) -> list[PartOfRun]:
    """The members of a run that is an ensemble; else the run itself."""
    members = run.config.ensemble.members
    if members is None:
        return [run]
    prefix = "" if run.name == "ensemble" else f"{run.name}, "
    return [
        PartOfRun(f"{prefix}member {one}", of_member(run.config, one), run.folder / MEMBERS / str(one))
        for one in range(members)
    ]


def _trained(run: PartOfRun, console: RunConsole, given: TableSource | None, continues: bool) -> TrainingResult:
    from mlp_lightning.data.reading import Given, open_source
    from mlp_lightning.runs.build import build_data
    from mlp_lightning.tables.reading.memory import KeptSource

    started, started_at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    source = KeptSource(given or open_source(run.config.data, run.config.allow_targets))
    parts = parts_of(run)
    trainings = Trainings(
        parts, source, "members", run.folder
    )  # raises faults of the table before any folder is created
    data = build_data(parts[0].config, Given(source))
    with claimed(run.folder, run.config, continues) as folder, console.logging_to(folder.log):
        for line in trainings.describe():
            console.line(line)
        if trainings.train(console, data.fingerprint):
            outcomes = [trainings.outcomes[number] for number in range(len(parts))]
            result = finish(run, trainings.models(), outcomes, data, (started, started_at), has_card=True)
            report(result, console, "")
        else:
            seconds, where = time.monotonic() - started, devices(trainings.outcomes.values())
            result = TrainingResult("interrupted", run.folder, {}, "best", 0, 0, seconds, 0.0, where)
            folder.write_result({**result.to_json(), **surroundings(run.config, started_at, data.fingerprint)})
            console.line("Stopped as asked. To continue, give the same command with auto_resume=true")
    return result


def finish(
    run: PartOfRun,
    models: Sequence[TrainedModel],
    outcomes: Sequence[Outcome],
    data: TabularDataModule,
    started: tuple[float, datetime.datetime],
    has_card: bool = False,
) -> TrainingResult:
    """Keep trained members as one model, measure it on every split, and write ``result.json``.

    Args:
        run: the ensemble; its folder is claimed.
        models: its members.
        outcomes: of the same.
        data: of the same.
        started: when the training began, by the monotonic clock and by the calendar.
        has_card: whether it leaves a ``model_card.md``.
    """
    kept = _calibration_of_split(run.config, models, outcomes, data)
    write_ensemble(run.folder, run.config, models, data.fingerprint, kept=kept)
    metrics = {split: split_metrics(models, rows) for split, rows in data.splits.items()}
    steps = sum(one.steps for one in outcomes)
    weight = 1 / len(models)
    members = [
        {"folder": f"{MEMBERS}/{number}", "seed": run.config.seed + number, "weight": weight, "metrics": one.metrics}
        for number, one in enumerate(outcomes)
    ]
    baseline = data.baseline_metrics
    result = TrainingResult(
        status="finished",
        run_dir=run.folder,
        metrics=metrics,
        weights="best",
        steps=steps,
        epochs=steps // data.steps_per_epoch,
        wall_time_s=time.monotonic() - started[0],
        fit_time_s=sum(one.wall_time_s for one in outcomes) / len(outcomes),
        device=devices(outcomes),
        baseline={"predicts": describe_baseline(data), "metrics": baseline},
        warnings=assess(run.config, data, metrics, baseline, steps, None),
        members=members,
    )
    if has_card:
        network = network_name(parts_of(run)[0].config, data)
        model = f"The mean of the predictions of {len(models)} networks ({network}) that differ in their seeds"
        write_card(
            RunFolder(run.folder), run.config, data, facts_of(model, result, _is_chosen(run.config, outcomes, data))
        )
    RunFolder(run.folder).write_result({**result.to_json(), **surroundings(run.config, started[1], data.fingerprint)})
    return result


def devices(outcomes: Iterable[Outcome]) -> str:
    """Where networks were trained: one device, or several with commas between them."""
    return ", ".join(sorted({one.device for one in outcomes if one.device}))


def _calibration_of_split(
    config: Config, models: Sequence[TrainedModel], outcomes: Sequence[Outcome], data: TabularDataModule
) -> Calibration | None:
    if data.task != "regression" or "val" not in data.splits:
        return None
    rows = data.splits["val"]
    of_rows_NT = residuals(models[0].task, mean_predictions(models, rows).numpy(), rows)
    return calibration(of_rows_NT, config.seed, uses_of_validation(config, _is_chosen(config, outcomes, data)))


def _is_chosen(config: Config, outcomes: Sequence[Outcome], data: TabularDataModule) -> bool:
    """Whether a metric of the validation rows chose the weights of a member."""
    checkpoint = config.callbacks.checkpoint
    by_validation = "val" in data.splits and checkpoint is not None and checkpoint.monitor != "loss/train"
    return by_validation and any(one.weights == "best" for one in outcomes)


def write_ensemble(
    path: Path,
    config: Config,
    models: Sequence[TrainedModel],
    fingerprint: Mapping[str, Any],
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
    kept: Calibration | None = None,
) -> Path:
    """Write ``checkpoints/best.ckpt`` of a run folder: the ensemble of these models, by default all of one weight."""
    modules = [one.module for one in models if isinstance(one.module, MLPModule)]
    ensemble = combined(modules, weights or [1.0] * len(models), temperature)
    file = RunFolder(path).best_checkpoint
    file.parent.mkdir(exist_ok=True)
    content = {
        "state_dict": ensemble.state_dict(),
        ENSEMBLE_KEY: dict(ensemble.hparams),
        CONFIG_KEY: config.sections(),
        FINGERPRINT_KEY: dict(fingerprint),
        **({} if kept is None else {CALIBRATION_KEY: kept.content()}),
    }
    write_checkpoint(file, content)
    return file


@torch.no_grad()
def mean_predictions(models: Sequence[TrainedModel], rows: Rows) -> Tensor:
    """The mean of what models of one preprocessing predict of prepared rows, ``(B, C)`` in double precision."""
    total: Tensor | float = 0.0
    for one in models:
        assert isinstance(one.module, MLPModule)
        parts = [one.module.mlp(part).double() for part in rows.features_BF.split(_ROWS_AT_ONCE)]
        total = total + torch.cat([one.task.predictions(part) for part in parts])
    return torch.as_tensor(total) / len(models)


def split_metrics(models: Sequence[TrainedModel], rows: Rows) -> dict[str, float]:
    """Loss and metric of the mean prediction of models on prepared rows."""
    task = models[0].task
    logits_BC = task.logits(mean_predictions(models, rows))
    targets = rows.targets.double() if rows.targets.is_floating_point() else rows.targets
    return {
        "loss": task.loss(logits_BC, targets).item(),
        task.metric_name: task.metric(logits_BC, targets).item(),
    }
