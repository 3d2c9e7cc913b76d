"""What every run leaves in its folder, of a training with one member or a thousand.

A thousand runs end at the same moment, so what needs the disk to answer is done for all of them together.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlp_lightning.engines.choice import STACKS
from mlp_lightning.engines.protocol import MemberState
from mlp_lightning.errors import NonFiniteLossError, TrainingError
from mlp_lightning.runs.assessment import Plateau, assess, describe_baseline, plateaus_of
from mlp_lightning.runs.build import count_parameters
from mlp_lightning.runs.calibration import of_validation
from mlp_lightning.runs.card import write_card_of_run
from mlp_lightning.runs.checkpoints import PENDING_KEY, add_to, run_checkpoint, write_checkpoint, write_checkpoints
from mlp_lightning.runs.console import level_of
from mlp_lightning.runs.ending import Ending
from mlp_lightning.runs.health import no_best_message, non_finite_metrics_message
from mlp_lightning.runs.history import MetricsHistory
from mlp_lightning.runs.measured import Measured, Metrics, of_slot
from mlp_lightning.runs.member import TrainingFacts, with_module
from mlp_lightning.runs.metric_files import MetricFiles
from mlp_lightning.runs.policies import Best, Policies, Snapshot
from mlp_lightning.runs.report import announcement, how_to_continue, report_lines
from mlp_lightning.runs.rescue import Rescue
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import surroundings
from mlp_lightning.runs.stores import RunStore

_LINES_OF_A_LOG = 20


class FolderWriter:
    """Writes the run folders.

    Args:
        training: whose runs they are.
        history: what was measured.
        files: its curves.
        store: what keeps the rest.
        prepare_save: returns what saves the state of all members together, of a snapshot; given whether a validation
            is pending, it saves a copy. ``None``: the state of a run is its ``last.ckpt``, where there is one run.
        on_end: called with the number of a member, its result and what its data say of the predictions, once its
            folder is complete.
    """

    def __init__(
        self,
        training: TrainingFacts,
        history: MetricsHistory,
        files: MetricFiles,
        store: RunStore,
        prepare_save: Callable[[Policies, Snapshot, bool | None], Callable[[], None]] | None,
        on_end: Callable[[int, TrainingResult, str], None],
    ) -> None:
        self._training = training
        self._history = history
        self._files = files
        self._store = store
        self._prepare_save = prepare_save
        self._on_end = on_end
        # Its checkpoints are written while it trains.
        self._is_single = len(training.members) == 1 and store.takes_checkpoints_live
        self._saved_step: int | None = None
        self._saved_best = Best()
        self._fit_started: float | None = None
        self.device = ""
        #: The state of a run in memory, for the case that it is ended while a step takes long.
        self.rescue = Rescue()
        #: Which weights are reported where both are there: ``last`` or ``best``.
        self.weights = "last"

    def fit_begins(self) -> None:
        """From now on the time counts as that of the training."""
        self._fit_started = time.monotonic()

    @property
    def fit_time_s(self) -> float:
        """Seconds since the first step began."""
        return 0.0 if self._fit_started is None else time.monotonic() - self._fit_started

    # ---- while it trains ---------------------------------------------------------------------------------

    def save(self, policies: Policies) -> None:
        """Save the state of all members that still train."""
        if self._prepare_save is not None:
            with self.rescue.lock:
                self._prepare_save(policies, policies.snapshot(), None)()
                self.rescue.forget()
        elif self._is_single:
            self._save_run(policies, policies.snapshot())

    def save_before_pruning(self, policies: Policies) -> None:
        """Save the state of a stack before a validation: members that it ends leave their folders and the stack.

        A stack that is killed afterwards, and continues without them, makes other numbers in the last bit.
        """
        if self._prepare_save is not None:
            with self.rescue.lock:
                self._prepare_save(policies, policies.snapshot(), True)()
                self.rescue.forget()

    def _save_run(self, policies: Policies, snapshot: Snapshot, is_copy: bool | None = None) -> None:
        """``last.ckpt`` and ``best.ckpt`` of the only run, between two steps.

        The best is kept in memory until then: on the disk the two belong together, and a run that is killed finds its
        later bests again when it continues.
        """
        # First what belongs to the steps before the checkpoint, so that a run that continues from it has no gap.
        self._files.write([0])
        best = policies.best[0]
        member, is_new = self._training.members[0], best.step is not None and best.step != self._saved_best.step
        (state,) = policies.engine.states([0], snapshot.engine)
        last = run_checkpoint(member, state, self._training.engine, policies.monitor, best, snapshot.stopping[0])
        contents = last, self._best_content(policies, best) if is_new else None
        if is_copy is not None:
            last[PENDING_KEY] = is_copy
            self.rescue.keep(functools.partial(write_checkpoints, member.folder, *copy.deepcopy(contents)))
            return
        with self.rescue.lock:
            write_checkpoints(member.folder, *contents)
            self.rescue.forget()
        self._saved_step, self._saved_best = state.step, best if is_new else self._saved_best

    def keep(self, policies: Policies, validation_pending: bool) -> None:
        """Keep a copy of the state in memory, for a process that is ended before it can stop."""
        if self._prepare_save is not None:
            self.rescue.keep(self._prepare_save(policies, policies.snapshot(), validation_pending))
        elif self._is_single:
            self._save_run(policies, policies.snapshot(), validation_pending)

    def _best_content(self, policies: Policies, best: Best, after_training: bool = False) -> dict[str, Any]:
        (state,) = policies.engine.best_states([0])
        assert state is not None
        member, stopping = self._training.members[0], best.stopping or policies.stopping[0]
        return run_checkpoint(member, state, self._training.engine, policies.monitor, best, stopping, after_training)

    def continues_from(self, step: int, best: Best) -> None:
        """The folder of the only run has these checkpoints already."""
        self._saved_step, self._saved_best = step, best

    # ---- at the end of members ---------------------------------------------------------------------------

    def members_ended(self, policies: Policies, endings: Sequence[Ending], snapshot: Snapshot) -> None:
        """Measure the members for the last time and write their folders."""
        endings = [one for one in endings if one.member not in self._training.left_out]
        if not endings:
            return
        has_checkpoints = self._training.members[0].config.callbacks.checkpoint is not None
        was_saved = self._saved_step == endings[0].steps
        if self._is_single and has_checkpoints and endings[0].status != "failed" and not was_saved:
            # Before it is measured, which may take long.
            self._save_run(policies, snapshot)
        save = None
        if has_checkpoints and self._prepare_save is not None and any(one.status == "finished" for one in endings):
            save = self._prepare_save(policies, snapshot, None)
        if save is not None and self._is_single:
            save()
        elif save is not None:  # nothing of the stack changes until these members are written: no copy is needed
            self.rescue.keep(save)
        self._measure_and_write(policies, endings, snapshot)
        if save is not None:
            self.rescue.forget()

    def _measure_and_write(self, policies: Policies, endings: Sequence[Ending], snapshot: Snapshot) -> None:
        fit_time_s, members = self.fit_time_s, self._training.members
        has_checkpoints = members[0].config.callbacks.checkpoint is not None
        measured = self._measured(policies, endings)
        slots = [policies.present.index(one.member) for one in endings]
        metrics = [
            {split: of_slot(named, slot) for split, named in measured.splits.items()}
            if one.status == "finished"
            else {}
            for one, slot in zip(endings, slots, strict=True)
        ]
        last, best = self._states(policies, endings, slots, snapshot)
        if has_checkpoints:
            kept = [self._calibration(policies, one, slot, measured) for one, slot in zip(endings, slots, strict=True)]
            self._write_checkpoints(policies, endings, snapshot, last, best, kept)
        endings, metrics, final = self._judged(policies, endings, metrics)
        self._files.finish(
            [one.member for one in endings], [one.status for one in endings], final, [one.steps for one in endings]
        )
        losses = [measured.last_losses[slot] if own else None for slot, own in zip(slots, metrics, strict=True)]
        plateaus = plateaus_of(policies.engine, policies.present, members, endings, losses)
        results, details = [], []
        for ending, slot, own, states in zip(endings, slots, metrics, zip(last, best, strict=True), strict=True):
            member = members[ending.member]
            result = self._result(policies, ending, own, fit_time_s, plateaus.get(ending.member))
            said = ""
            if result.status == "finished":
                result = dataclasses.replace(result, validation=measured.validation_of(slot, result))
                if measured.predictions is not None:
                    said = member.data.describe_predictions(measured.predictions[slot].astype(np.float32))
            if self._training.keeps_modules and result.status != "failed":
                result = with_module(result, member, *states)
            results.append(result)
            details.append(said)
        if not self._training.logs_live:
            self._write_logs(endings, results, details)
        self._write_results(endings, results)
        for ending, result, said in zip(endings, results, details, strict=True):
            self._on_end(ending.member, result, said)

    def _measured(self, policies: Policies, endings: Sequence[Ending]) -> Measured:
        """Metrics over all rows of every split, and training predictions."""
        finished = [one for one in endings if one.status == "finished"]
        if not finished:
            return Measured({}, {}, None, None)
        engine, first = policies.engine, self._training.members[0]
        metrics = {split: engine.evaluate(split) for split in first.data.splits}
        last_losses = metrics["train"]["loss"]
        policies.consider_end(last_losses, finished[0].steps, [one.member for one in finished])
        has_best = any(policies.best[one.member].step for one in finished)
        validation: dict[str, Metrics] = {}
        if has_best and policies.monitor.endswith("/val"):
            validation = {"best": engine.evaluate("val", best=True), "last": metrics["val"]}
        best = self.weights == "best" and has_best
        if best:
            metrics = {split: engine.evaluate(split, best=True) for split in first.data.splits}
        predictions = engine.predictions("train", best) if first.data.describes_predictions else None
        keeps_residuals = first.config.callbacks.checkpoint is not None and first.data.task == "regression"
        held_out = engine.predictions("val", best) if keeps_residuals and "val" in metrics else None
        return Measured(metrics, validation, predictions, held_out, last_losses)

    def _calibration(self, policies: Policies, ending: Ending, slot: int, measured: Measured) -> dict[str, Any]:
        """What the checkpoint with the weights that are reported says of the validation rows."""
        if measured.held_out is None or ending.status != "finished":
            return {}
        reports_best = self.weights == "best" and policies.best[ending.member].step is not None
        chosen = reports_best and policies.monitor.endswith("/val")
        return of_validation(self._training.members[ending.member], measured.held_out[slot], chosen)

    def _states(
        self, policies: Policies, endings: Sequence[Ending], slots: Sequence[int], snapshot: Snapshot
    ) -> tuple[Sequence[MemberState | None], Sequence[MemberState | None]]:
        """The last and the best state of each member, where they are needed."""
        nothing = [None] * len(endings)
        config = self._training.members[0].config
        if not self._training.keeps_modules and (self._is_single or config.callbacks.checkpoint is None):
            return nothing, nothing
        return policies.engine.states(slots, snapshot.engine), policies.engine.best_states(slots)

    def _write_checkpoints(
        self,
        policies: Policies,
        endings: Sequence[Ending],
        snapshot: Snapshot,
        last: Sequence[MemberState | None],
        best: Sequence[MemberState | None],
        further: Sequence[Mapping[str, Any]],
    ) -> None:
        """The checkpoints of members that have not failed, with more in those that have the weights to report.

        Those of a single run are there, but for the best of its very end.
        """
        if self._is_single:
            known = policies.best[0]
            if endings[0].status != "failed" and known.step not in (None, self._saved_best.step):
                content = self._best_content(policies, known, after_training=True)
                write_checkpoint(self._training.members[0].folder.best_checkpoint, content)
                self._saved_best = known
            if further[0]:
                folder, is_best = self._training.members[0].folder, self.weights == "best" and known.step is not None
                add_to(folder.best_checkpoint if is_best else folder.last_checkpoint, further[0])
            return
        for ending, last_state, best_state, more in zip(endings, last, best, further, strict=True):
            if ending.status == "failed":
                continue
            assert last_state is not None
            member, known = self._training.members[ending.member], policies.best[ending.member]
            # The best of the very end comes after the last checkpoint, as in a single run.
            is_milestone = policies.milestones.is_checkpoint(last_state.step)
            at_end = policies.monitor == "loss/train" and known.step == last_state.step and not is_milestone
            common = (self._training.engine, policies.monitor)
            stopping = snapshot.stopping[ending.member]
            last_content = run_checkpoint(member, last_state, *common, Best() if at_end else known, stopping)
            is_best = self.weights == "best" and best_state is not None
            self._store.put_checkpoint(ending.member, "last", last_content if is_best else {**last_content, **more})
            if best_state is not None:
                best_content = run_checkpoint(member, best_state, *common, known, known.stopping or stopping, at_end)
                self._store.put_checkpoint(ending.member, "best", {**best_content, **more} if is_best else best_content)

    def _judged(
        self, policies: Policies, endings: Sequence[Ending], metrics: Sequence[Mapping[str, Mapping[str, float]]]
    ) -> tuple[list[Ending], list[Any], list[Mapping[str, float]]]:
        """Endings, metrics, and what the end adds to the curves.

        Metrics that are no numbers are a failure, and so are those of a best that never came.
        """
        judged, kept, final = [], [], []
        for ending, own in zip(endings, metrics, strict=True):
            config = self._training.members[ending.member].config
            # The last validation is in the curves already.
            splits = ("train", "test") if self.weights == "last" else ("test",)
            final.append({f"{name}/{split}": value for split in splits for name, value in own.get(split, {}).items()})
            if not all(math.isfinite(value) for one in own.values() for value in one.values()):
                error = NonFiniteLossError(non_finite_metrics_message(ending.steps, own, config.optimizer.lr))
                ending, own = dataclasses.replace(ending, status="failed", error=error), {}
            elif own and config.report_weights == "best" and policies.best[ending.member].step is None:
                # Where the steps are counted beforehand it is refused before the first.
                without = TrainingError(no_best_message(ending.steps))
                ending, own = dataclasses.replace(ending, status="failed", error=without), {}
            judged.append(ending)
            kept.append(own)
        return judged, kept, final

    def _result(
        self,
        policies: Policies,
        ending: Ending,
        metrics: dict[str, dict[str, float]],
        fit_time_s: float,
        plateau: Plateau | None = None,
    ) -> TrainingResult:
        training = self._training
        member = training.members[ending.member]
        baseline = member.data.baseline_metrics
        count = len(training.members)
        return TrainingResult(
            status=ending.status,
            run_dir=member.folder.path,
            metrics=metrics,
            weights=self.weights if policies.best[ending.member].step is not None else "last",
            steps=ending.steps,
            epochs=ending.steps // member.data.steps_per_epoch,
            wall_time_s=time.monotonic() - training.started,
            fit_time_s=fit_time_s / count,
            device=self.device,
            best=self.best_of(policies, ending.member),
            baseline={"predicts": describe_baseline(member.data), "metrics": baseline} if metrics else None,
            warnings=assess(member.config, member.data, metrics, baseline, ending.steps, plateau),
            stopped_by=ending.stopped_by,
            resumed_from=training.resumed_from,
            engine=training.engine,
            stack={"members": count, "fit_time_s": fit_time_s} if training.engine in STACKS else None,
            error="" if ending.error is None else f"{type(ending.error).__name__}: {ending.error}",
            exception=ending.error,
        )

    def best_of(self, policies: Policies, number: int) -> dict[str, Any] | None:
        """What ``result.json`` says of ``best.ckpt``; ``None`` without one."""
        # A run that fails has perhaps seen a better one than it has saved.
        best = self._saved_best if self._is_single else policies.best[number]
        if not self._store.has_best(number):
            return None
        return {"monitor": policies.monitor, "value": best.value, "step": best.step}

    def _write_logs(self, endings: Sequence[Ending], results: Sequence[TrainingResult], details: Sequence[str]) -> None:
        """``train.log``: the lines that a single run would have printed."""
        training = self._training
        series = self._history.series("train", [one.member for one in endings])
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        for index, (ending, result, said) in enumerate(zip(endings, results, details, strict=True)):
            member, own = training.members[ending.member], series.of(index, ending.status == "failed")
            interval = max(1, len(own.steps) // _LINES_OF_A_LOG)
            lines = [
                *member.data.describe(),
                announcement(
                    member.config, member.data, count_parameters(member.config, member.data), training.last_step
                ),
                f"Trained as one of {len(training.members)} members of a stack",
                *(
                    f"step {step:>6}  loss {loss:.9f}  {training.metric_name} {metric:.4f}"
                    for step, (loss, metric, _) in zip(
                        own.steps[::interval].tolist(), own.values[0, ::interval].tolist(), strict=True
                    )
                ),
            ]
            if result.error:
                lines.append(result.error)
            if result.status == "interrupted":
                lines.append(how_to_continue(member.config, member.folder))
            lines += report_lines(result, said, member.config.logger.tensorboard)
            text = "".join(f"[{stamp}][mlp_lightning][{level_of(line)}] {line}\n" for line in lines)
            self._store.put_log(ending.member, text)

    def _write_results(self, endings: Sequence[Ending], results: Sequence[TrainingResult]) -> None:
        """``result.json`` says that all the rest of its folder is there; so it comes last."""
        members, started_at = self._training.members, self._training.started_at
        for one, result in zip(endings, results, strict=True):
            if self._training.has_card and result.status == "finished":
                write_card_of_run(members[one.member], result)
        contents = {
            one.member: {**result.to_json(), **surroundings(member.config, started_at, member.data.fingerprint)}
            for one, result in zip(endings, results, strict=True)
            for member in [members[one.member]]
        }
        self._store.put_results(contents)
