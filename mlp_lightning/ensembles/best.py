"""``preset=best``: many candidates in bagged folds, and an ensemble of those that predict best together.

Every network keeps the weights that are best on the rows that its fold holds out; these rows also compare and weight
the candidates. Test rows are split off before, and are predicted once, at the end.

Shapes: ``N`` candidates, ``B`` rows, ``C`` classes or outputs.
"""

from __future__ import annotations

import datetime
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.ensembles.candidate import Candidate
from mlp_lightning.ensembles.ensemble import devices, mean_predictions, refuse_objects, write_ensemble
from mlp_lightning.ensembles.selection import greedy_weights, loss_of
from mlp_lightning.ensembles.space import candidates, fixed_options
from mlp_lightning.ensembles.training import PartOfRun, Trainings, claimed
from mlp_lightning.errors import ConfigError, Fault, TrainingError
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.calibration import best_temperature
from mlp_lightning.runs.assessment import assess, describe_baseline
from mlp_lightning.runs.calibration import Calibration, calibration, uses_of_validation
from mlp_lightning.runs.card import facts_of, write_card
from mlp_lightning.runs.console import RunConsole, short_path
from mlp_lightning.runs.ensembles import SharedPreprocessing
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.fit import parsed_with_rows
from mlp_lightning.runs.folder_names import MEMBERS, fold_folder
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder, surroundings
from mlp_lightning.sweeps.folds import of_fold, of_member

if TYPE_CHECKING:
    from mlp_lightning.networks.tasks import Task
    from mlp_lightning.tables.reading.sources import TableSource

# All candidates train in so many folds; the better ones, this share of them, in all others too.
_FIRST_FOLDS, _SHARE_KEPT = 2, 1 / 3
# So many candidates train first, one or two of each structure; what they take says how many the time allows.
_FIRST_ROUND = 8
# A network of a candidate that is drawn takes about so many times as long as one of the default. A rough estimate: it
# was 2.8 and 3.1 in two runs on one table of 300 rows.
_COST_OF_DRAWN = 3.0
_MOST_CANDIDATES = 60
# The file that says how many train in each round and in all folds, for a process that continues.
_COUNT = "candidates.txt"
_SHOWN = 8


def train_best(
    config: Config | Mapping[str, Any],
    run_dir: str | Path,
    console: Console | None = None,
    frame: Any = None,
    continues: bool = False,
) -> TrainingResult:
    """Train candidates in bagged folds and keep an ensemble of those that predict best together, as one model.

    The first candidate is the configuration itself. All candidates train in two folds, the best third of them in the
    others too (a race, as in successive halving). Ensemble selection weights them by their predictions of the rows that
    folds held out, and the temperature is fitted to the same. With ``preset.candidates`` the result repeats to the same
    bits; without, their number follows from the time that the first one takes.

    Args:
        config: as for :func:`mlp_lightning.train`, with ``preset`` ``best``.
        run_dir: folder of the run, claimed exclusively.
        console: where to print; standard output if ``None``.
        frame: the table, instead of a file: a data frame of pandas, polars or pyarrow.
        continues: whether to continue what an earlier process left unfinished in ``run_dir``: what has finished there
            is kept, and stacks continue from their last saved state.

    Returns:
        The result: ``metrics`` of the test rows and, as ``val``, of the rows that folds held out; ``members`` are the
        candidates.

    Raises:
        ConfigError: the configuration is wrong, its preset is another one, or a class itself stands where the networks
            need its import path.
        DataError: the table cannot be used.
        TrainingError: no candidate could be trained.
    """
    parsed, objects, source = parsed_with_rows(config, frame)
    if parsed.preset.name != "best":
        raise ConfigError([Fault("preset", parsed.preset.name, "is not best", "use train() for one network")])
    refuse_objects(objects, "candidate")
    return _Best(parsed, Path(run_dir).absolute(), RunConsole(parsed.verbosity, console), source).execute(continues)


class _Best:
    """One selection, from its configuration to its result."""

    def __init__(self, config: Config, path: Path, console: RunConsole, given: TableSource | None) -> None:
        self.config, self.path, self.console = config, path, console
        self._given = given
        self._started, self._started_at = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
        self._folds = range(config.data.cv.folds or 0)
        self._steps_made, self._is_cut = 0, False

    def execute(self, continues: bool) -> TrainingResult:
        from mlp_lightning.data.reading import Given, open_source
        from mlp_lightning.runs.build import build_data
        from mlp_lightning.tables.reading.memory import KeptSource

        opened = self._given or open_source(self.config.data, self.config.allow_targets)
        self._source = KeptSource(opened)
        alone = of_member(self.config, 0)
        # Raises faults of the table before any folder is created.
        self._data = [build_data(of_fold(alone, fold), Given(self._source)) for fold in self._folds]
        with claimed(self.path, self.config, continues) as folder, self.console.logging_to(folder.log):
            found = self._candidates()
            if found is None:
                result = TrainingResult("interrupted", self.path, {}, "best", 0, 0, self._seconds, 0.0, "")
                more: dict[str, Any] = {}
                self.console.line("Stopped as asked. To continue, give the same command with auto_resume=true")
            else:
                result, more = self._selected(found)
                self._write_card(result)
                self._report(result, found, more)
            facts = surroundings(self.config, self._started_at, self._data[0].fingerprint)
            folder.write_result({**result.to_json(), **more, **facts})
        return result

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    # ---- candidates --------------------------------------------------------------------------------------

    def _candidates(self) -> list[Candidate] | None:
        """The candidates, of which some have trained in all folds; ``None`` if it was asked to stop."""
        data = self._data[0]
        task_has_classes = data.target.task != "regression"
        drawn = candidates(self.config, task_has_classes, data.preprocessor.numeric_features > 0)
        if fixed := sorted(fixed_options(self.config)):
            why = f"you set that, or {self.config.optimizer.name} decides it"
            self.console.line(f"No candidate differs in {', '.join(fixed)} ({why})")
        numbered = (Candidate(number, *one) for number, one in enumerate(drawn))
        first = next(numbered)
        early, late = list(self._folds[:_FIRST_FOLDS]), list(self._folds[_FIRST_FOLDS:])
        seconds = self._timed([first], self._folds)
        if seconds is None:
            return None
        network = _COST_OF_DRAWN * seconds
        limit = (self.config.preset.candidates or _MOST_CANDIDATES) - 1
        sizes, others = [min(limit, _FIRST_ROUND), limit - _FIRST_ROUND], list[Candidate]()
        for number, size in enumerate(sizes):  # the second by what those of the first took
            trained = len(others)
            count = self._decided(number, size, lambda n=network, k=trained: self._affordable(n, k))
            of_round = list(itertools.islice(numbered, max(0, count)))
            if not of_round:
                continue
            others += of_round
            seconds = self._timed(of_round, early)
            if seconds is None:
                return None
            network = seconds
        third = math.ceil(len(others) * _SHARE_KEPT)
        count = third if not late else self._decided(2, third, lambda: int(self._left / (network * len(late))))
        self._is_cut = count < third
        kept = sorted(others, key=lambda one: one.mean_loss(early))[:count]
        kept = sorted((one for one in kept if not one.failed), key=lambda one: one.number)
        return [first, *others] if self._train(kept, late) else None

    @property
    def _left(self) -> float:
        return self.config.preset.time_limit_s - self._seconds

    def _timed(self, of_round: Sequence[Candidate], folds: Sequence[int]) -> float | None:
        """Train candidates in folds, and return the seconds that a network takes; ``None`` if it was asked to stop."""
        started, before = time.monotonic(), self._steps_made
        if not self._train(of_round, folds):
            return None
        outcomes = [one.outcomes[fold] for one in of_round for fold in folds]
        seconds, made = time.monotonic() - started, self._steps_made - before
        # An earlier process may have done a part of it.
        seconds *= max(1.0, sum(one.steps for one in outcomes) / made) if made else 0.0
        least = 1e-3  # of one that failed before its first step
        return max(seconds, least if made else max(one.wall_time_s for one in outcomes), least) / len(outcomes)

    def _decided(self, number: int, most: int, affordable: Callable[[], int]) -> int:
        """How many candidates to train next: what an earlier process decided, or what the time allows.

        Args:
            number: of the decision.
            most: of them.
            affordable: how many the time allows.
        """
        if self.config.preset.candidates:
            return most
        file = self.path / _COUNT
        known = file.read_text(errors="replace").split() if file.is_file() else []
        if not (len(known) > number and known[number].isdecimal()):
            known = [*known[:number], str(max(0, min(most, affordable())))]
            with atomic_write(file) as opened:
                opened.write("\n".join(known).encode())
        return int(known[number])

    def _affordable(self, seconds: float, trained: int) -> int:
        """How many further candidates train in the time that is left, if a network takes so many seconds.

        The share that is kept trains in the other folds, of those that have trained before, too.
        """
        late = _SHARE_KEPT * (len(self._folds) - _FIRST_FOLDS)
        return int((self._left / seconds - late * trained) / (_FIRST_FOLDS + late))

    def _train(self, of_round: Sequence[Candidate], folds: Sequence[int]) -> bool:
        """Train candidates in folds. Returns whether all have ended."""
        pairs = [(one, fold) for one in of_round for fold in folds]
        if not pairs:
            return True
        parts = [
            PartOfRun(
                f"candidate {one.number}, fold {fold}",
                of_fold(one.config, fold),
                self.path / MEMBERS / str(one.number) / fold_folder(fold),
            )
            for one, fold in pairs
        ]
        what = f"networks ({len(of_round)} candidate{'s' * (len(of_round) > 1)} in {len(folds)} folds)"
        trainings = Trainings(parts, self._source, what, self.path)
        if of_round[0].number == 0:  # all candidates have the same rows
            for line in trainings.describe():
                self.console.line(line)
        if not trainings.train(self.console, self._data[0].fingerprint):
            return False
        self._steps_made += trainings.steps_made
        for number, (one, fold) in enumerate(pairs):
            outcome = one.outcomes[fold] = trainings.outcomes[number]
            if outcome.status == "finished":
                rows = self._data[fold].splits["val"]
                one.held_out[fold] = mean_predictions([parts[number].model(outcome)], rows)
                targets, weights_B = self._targets(fold, "val"), self._row_weights([fold])
                one.losses[fold] = loss_of(self._task(0), one.held_out[fold], targets, weights_B)
        return True

    # ---- selection ---------------------------------------------------------------------------------------

    def _task(self, fold: int) -> Task:
        from mlp_lightning.networks.tasks import make_task

        data = self._data[fold]
        return make_task(data.task, data.out_features, data.target.mean, data.target.scale)

    def _targets(self, fold: int, split: str) -> Tensor:
        """Those of a fold, which standardises by its own training rows, as the first fold learns them."""
        targets, task = self._data[fold].splits[split].targets, self._task(fold)
        if not task.has_classes:
            return self._task(0).logits(task.truths(targets.double()))
        return targets.double() if targets.is_floating_point() else targets

    def _row_weights(self, folds: Sequence[int]) -> Tensor | None:
        """How much the rows that folds held out count, as in the training; ``None`` if all count the same."""
        of_folds = [self._data[fold].rows.row_weights for fold in folds]
        return torch.from_numpy(np.concatenate([one["val"] for one in of_folds])) if of_folds[0] else None

    def _selected(self, found: Sequence[Candidate]) -> tuple[TrainingResult, dict[str, Any]]:
        """Weight the candidates, keep them as one model, and measure it."""
        whole = [one for one in found if len(one.held_out) == len(self._folds) and not one.failed]
        if not whole:
            reasons = {outcome.error for one in found for outcome in one.outcomes.values() if outcome.error}
            raise TrainingError(f"No candidate could be trained: {'; '.join(sorted(reasons))}")
        task, targets = self._task(0), torch.cat([self._targets(fold, "val") for fold in self._folds])
        predictions_NBC = torch.stack([torch.cat([one.held_out[fold] for fold in self._folds]) for one in whole])
        weights_B = self._row_weights(self._folds)
        for one, weight in zip(whole, greedy_weights(task, predictions_NBC, targets, weights_B), strict=True):
            one.weight = weight
        weights_N11 = torch.tensor([one.weight for one in whole], dtype=torch.float64)[:, None, None]
        mean_BC = (weights_N11 * predictions_NBC).sum(0)
        temperature = best_temperature(task, mean_BC, targets, weights_B)
        chosen = [one for one in whole if one.weight > 0]
        sharing = SharedPreprocessing()
        models = {one.number: [self._model(one, fold, sharing) for fold in self._folds] for one in chosen}
        in_order = [(one, model) for one in chosen for model in models[one.number]]
        weights = [one.weight for one, _ in in_order]
        fingerprint = self._data[0].fingerprint
        kept = self._calibration(mean_BC, targets, len(chosen))
        of_all = [model for _, model in in_order]
        write_ensemble(self.path, self.config, of_all, fingerprint, weights, temperature, kept)
        metrics = {"val": self._metrics(mean_BC, targets, temperature)}
        baseline = {"val": self._baseline_of_held_out(targets)}
        if "test" in self._data[0].splits:
            of_folds = [[models[one.number][fold] for one in chosen] for fold in self._folds]
            of_test = [self._test_predictions(of_fold, chosen, fold) for fold, of_fold in enumerate(of_folds)]
            metrics["test"] = self._metrics(torch.stack(of_test).mean(0), self._targets(0, "test"), temperature)
            baseline["test"] = self._data[0].baseline_metrics["test"]
        return self._result(found, metrics, baseline), {"temperature": temperature}

    def _calibration(self, mean_BC: Tensor, targets: Tensor, chosen: int) -> Calibration | None:
        """Of the rows that folds held out; of so many candidates each has a network in every fold."""
        task = self._task(0)
        if task.has_classes:
            return None
        of_rows_NT = (mean_BC - task.truths(targets)).abs().numpy()
        fold_N = np.repeat(self._folds, [len(one.splits["val"]) for one in self._data])
        used_for = [*uses_of_validation(self.config, is_chosen=True), "selection"]
        return calibration(of_rows_NT, self.config.seed, used_for, fold_N, [*self._folds] * chosen)

    def _baseline_of_held_out(self, targets: Tensor) -> dict[str, float]:
        """What the constants of the folds, in the unit of the first as the predictions, are worth on all these rows."""
        task = self._task(0)
        of_folds = [
            one.baseline.predictions(self._task(fold), len(one.splits["val"])) for fold, one in enumerate(self._data)
        ]
        of_loss, of_metric = (self._metrics(torch.cat(parts), targets, 1.0) for parts in zip(*of_folds, strict=True))
        return {"loss": of_loss["loss"], task.metric_name: of_metric[task.metric_name]}

    def _model(self, one: Candidate, fold: int, sharing: SharedPreprocessing) -> TrainedModel:
        folder = self.path / MEMBERS / str(one.number) / fold_folder(fold)
        return PartOfRun("", one.config, folder).model(one.outcomes[fold], sharing)

    def _test_predictions(self, models: Sequence[TrainedModel], chosen: Sequence[Candidate], fold: int) -> Tensor:
        """The mean of what the networks of a fold predict of the test rows."""
        rows = self._data[fold].splits["test"]
        parts = [one.weight * mean_predictions([model], rows) for one, model in zip(chosen, models, strict=True)]
        return torch.stack(parts).sum(0)

    def _metrics(self, predictions_BC: Tensor, targets: Tensor, temperature: float) -> dict[str, float]:
        task = self._task(0)
        logits_BC = task.logits(predictions_BC) / temperature
        return {
            "loss": task.loss(logits_BC, targets).item(),
            task.metric_name: task.metric(logits_BC, targets).item(),
        }

    # ---- result and report -------------------------------------------------------------------------------

    def _result(
        self,
        found: Sequence[Candidate],
        metrics: dict[str, dict[str, float]],
        baseline: dict[str, dict[str, float]],
    ) -> TrainingResult:
        data = self._data[0]
        of_data = {**baseline, "train": data.baseline_metrics["train"]}
        outcomes = [one for candidate in found for one in candidate.outcomes.values()]
        steps = sum(one.steps for one in outcomes)
        return TrainingResult(
            status="finished",
            run_dir=self.path,
            metrics=metrics,
            weights="best",
            steps=steps,
            epochs=steps // data.steps_per_epoch,
            wall_time_s=self._seconds,
            fit_time_s=sum(one.wall_time_s for one in outcomes),
            device=devices(outcomes),
            baseline={"predicts": describe_baseline(data), "metrics": baseline},
            warnings=assess(self.config, data, metrics, of_data, steps, None),
            members=[one.plain() for one in found],
        )

    def _write_card(self, result: TrainingResult) -> None:
        chosen = sum(one["weight"] > 0 for one in result.members)
        model = f"The weighted mean of the predictions of {chosen * len(self._folds)} networks: {chosen} of"
        model += f" {len(result.members)} candidates in {len(self._folds)} folds"
        facts = facts_of(model, result, True, {"val": "held-out"})
        limits = ["The held-out rows selected and weighted the candidates.", *facts.limits]
        write_card(RunFolder(self.path), self.config, self._data[0], facts._replace(limits=limits))

    def _report(self, result: TrainingResult, found: Sequence[Candidate], more: Mapping[str, Any]) -> None:
        whole = [one for one in found if len(one.losses) == len(self._folds) and not one.failed]
        self.console.line(f"Candidates that trained in all {len(self._folds)} folds, by the loss of the held-out rows:")
        for one in sorted(whole, key=lambda one: one.mean_loss(self._folds))[:_SHOWN]:
            said = " ".join(f"{key.partition('.')[2]}={value}" for key, value in one.options.items()) or "as configured"
            self.console.line(f"  {one.mean_loss(self._folds):10.5g}  weight {one.weight:.3f}  {said}")
        names = list(result.metrics["val"])
        titles = {"val": "held-out rows (which also selected it)", "test": "test rows"}
        baseline = result.baseline or {}
        for split, values in result.metrics.items():
            base = baseline["metrics"][split]
            said = ", ".join(f"{name} {values[name]:.6g} (baseline {base[name]:.6g})" for name in names)
            self.console.line(f"Ensemble, {titles[split]}: {said}")
        count = len(found)
        repeats = "" if self.config.preset.candidates else f"; preset.candidates={count} repeats this selection"
        if self._is_cut:
            repeats = f"; the time was too short for the best third in all folds (preset.candidates={count} trains it)"
        facts = f"{count} candidates in {result.wall_time_s:.1f} s, temperature {more['temperature']:.3g}"
        self.console.line(f"{facts}{repeats}")
        for line in result.warnings:
            self.console.line(f"Warning: {line}")
        self.console.line(f"Run folder:  {short_path(self.path)}")
