"""What every member of a stack leaves in its run folder: the same as a run by itself.

A thousand runs end at the same moment here, so what costs a single run nothing worth mentioning (a thread per event
file, 50 µs per logged figure) is done for all of them at once.

Shapes: ``M`` members that have ended, ``S`` logged steps, ``N`` numbers in the flat parameter.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlp_lightning.config import Config
from mlp_lightning.data import TabularDataModule
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.runs.files import bring_to_disk, write_all
from mlp_lightning.runs.health import non_finite_figures_message
from mlp_lightning.runs.loggers import metric_columns
from mlp_lightning.runs.member_checkpoints import member_checkpoint, member_module
from mlp_lightning.runs.member_events import MemberEvents
from mlp_lightning.runs.report import announcement, how_to_go_on, report_lines
from mlp_lightning.runs.result import TrainingResult
from mlp_lightning.runs.run_folder import RunFolder, result_bytes, surroundings
from mlp_lightning.runs.stack_history import Series
from mlp_lightning.runs.stack_keeper import Ending, Moment, StackKeeper
from mlp_lightning.runs.stacked_module import StackedModule

# Members are written in groups of this many, so that their event files are never all in memory.
_WRITTEN_AT_ONCE = 128
_LINES_OF_A_LOG = 20


@dataclasses.dataclass
class Member:
    """One run of a stack.

    Attributes:
        config: what to train.
        folder: claimed for it.
        data: its rows.
    """

    config: Config
    folder: RunFolder
    data: TabularDataModule


class MemberFiles:
    """Writes the run folders of members that have ended.

    Args:
        members: all of the stack.
        metric_name: of the task.
        last_step: number of steps of the whole run.
        on_end: called with the number of a member and its result, once its folder is complete.
        keep_modules: whether the results of finished members have their trained modules.
        left_out: members of which nothing is written: they had ended before the stack continued.
        resumed_from: what the stack continued from; ``None`` if it began anew.
    """

    def __init__(
        self,
        members: Sequence[Member],
        metric_name: str,
        last_step: int,
        on_end: Callable[[int, TrainingResult], None],
        keep_modules: bool = False,
        left_out: Collection[int] = (),
        resumed_from: str | None = None,
    ) -> None:
        self._members = members
        self._metric = metric_name
        self._last_step = last_step
        self._on_end = on_end
        self._keep_modules = keep_modules
        self._left_out = left_out
        self._resumed_from = resumed_from
        self._events = MemberEvents(metric_name)
        self._started_at = datetime.datetime.now(datetime.timezone.utc)
        self._started = time.monotonic()
        self.fit_started = time.monotonic()
        self._written: list[Path] = []

    def members_ended(self, keeper: StackKeeper, endings: Sequence[Ending], last: Moment) -> None:
        """Measure the members for the last time and write their folders."""
        module = keeper.module
        assert module is not None
        endings = [one for one in endings if one.member not in self._left_out]
        if not endings:
            return
        final = (
            self._measured(keeper, module, endings) if any(one.status == "finished" for one in endings) else _Final()
        )
        tensors = {
            "last": {name: one.cpu() for name, one in keeper.tensors().items()},
            "best": {name: one.cpu() for name, one in keeper.best_tensors.items()},
        }
        results: list[tuple[int, TrainingResult]] = []
        for start in range(0, len(endings), _WRITTEN_AT_ONCE):
            part = endings[start : start + _WRITTEN_AT_ONCE]
            numbers = [one.member for one in part]
            training, validation = keeper.history.series("train", numbers), keeper.history.series("val", numbers)
            scalars = self._scalars(part, training, validation)
            for place, ending in enumerate(part):
                own = (_of(training, place, ending), _of(validation, place, ending))
                result = self._write(keeper, module, ending, last, tensors, final, own, scalars[place])
                results.append((ending.member, result))
        # A result says that all the rest of its folder is there; so it comes after all the rest is on the disk.
        contents = {}
        for number, result in results:
            member = self._members[number]
            plain = {**result.to_json(), **surroundings(member.config, self._started_at)}
            contents[member.folder.result] = result_bytes(plain)
        bring_to_disk(path for path in self._written if path not in contents)
        self._written.clear()
        parent = self._members[0].folder.path.parent
        write_all(contents, parent / f".{os.getpid()}-{time.time_ns()}.journal")
        for number, result in results:
            self._on_end(number, result)

    def _measured(self, keeper: StackKeeper, module: StackedModule, endings: Sequence[Ending]) -> _Final:
        """The figures of all members over all rows of every split, of the weights that are reported."""
        splits, config = self._members[0].data.splits, self._members[0].config
        figures = {split: module.evaluate(split) for split in splits}
        keeper.consider_end(figures["train"]["loss"], endings)
        weights = None
        if config.report_weights == "best" and "weights" in keeper.best_tensors:
            weights = keeper.best_tensors["weights"]
            figures = {split: module.evaluate(split, weights) for split in splits}
        predictions = None
        if type(self._members[0].data).describe_predictions is not TabularDataModule.describe_predictions:
            predictions = module.predictions("train", weights).float().cpu().numpy()
        by_name = {split: {name: one.tolist() for name, one in named.items()} for split, named in figures.items()}
        return _Final(by_name, predictions)

    def _scalars(self, endings: Sequence[Ending], training: Series, validation: Series) -> list[bytes]:
        config = self._members[endings[0].member].config
        if not config.logger.tensorboard:
            return [b""] * len(endings)
        with_lr = config.callbacks.lr_monitor
        if all(one.status != "failed" for one in endings):
            return self._events.scalars(training, validation, with_lr)
        # A failed run has figures up to its failure only.
        return [
            self._events.scalars(_of(training, place, one), _of(validation, place, one), with_lr)[0]
            for place, one in enumerate(endings)
        ]

    def _write(
        self,
        keeper: StackKeeper,
        module: StackedModule,
        ending: Ending,
        last: Moment,
        tensors: Mapping[str, Mapping[str, Tensor]],
        measured: _Final,
        series: tuple[Series, Series],
        scalars: bytes,
    ) -> TrainingResult:
        """Everything of one member but ``result.json``."""
        member = self._members[ending.member]
        config, folder = member.config, member.folder
        place = module.present.index(ending.member)
        metrics = {
            split: {name: one[place] for name, one in named.items()} for split, named in measured.figures.items()
        }
        if ending.status != "failed":
            self._write_checkpoints(keeper, module, ending, last, tensors, place)
        if ending.status != "finished":
            metrics = {}
        final = self._final_figures(config, metrics)
        if not all(math.isfinite(value) for one in metrics.values() for value in one.values()):
            message = non_finite_figures_message(ending.steps, metrics, config.optimizer.lr)
            ending = dataclasses.replace(ending, status="failed", error=f"NonFiniteLossError: {message}")
            metrics = {}
        if config.logger.tensorboard:
            started = self._started_at.timestamp()
            content = self._events.file(
                config, lambda: _alone(module, place), started, scalars, final, ending.steps, ending.status
            )
            self._put(folder.path / self._events.file_name(started), content)
        if config.logger.csv:
            text = _csv(*series, final, ending.steps, self._metric, config.callbacks.lr_monitor)
            self._put(folder.metrics, text.encode())
        result = self._result(keeper, module, ending, metrics)
        if self._keep_modules and result.status == "finished":
            reported = tensors[config.report_weights]["weights"]
            result = dataclasses.replace(
                result, module=member_module(config, member.data, module.model, place, reported)
            )
        details = ""
        if result.status == "finished" and measured.predictions is not None:
            details = member.data.describe_predictions(measured.predictions[place])
        self._put(folder.log, self._log(member, result, series, details).encode())
        return result

    def _put(self, path: Path, content: bytes) -> None:
        """Write a file of a folder that no other process looks into yet."""
        path.write_bytes(content)
        self._written.append(path)

    def _final_figures(self, config: Config, metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """What the end adds to the curves, by tag: see ``MetricsRecorder``."""
        splits = ("train", "test") if config.report_weights == "last" else ("test",)
        return {
            f"{name}/{split}": value for split in splits if split in metrics for name, value in metrics[split].items()
        }

    def _write_checkpoints(
        self,
        keeper: StackKeeper,
        module: StackedModule,
        ending: Ending,
        last: Moment,
        tensors: Mapping[str, Mapping[str, Tensor]],
        place: int,
    ) -> None:
        member = self._members[ending.member]
        if member.config.callbacks.checkpoint is None:
            return
        best = keeper.best[ending.member]
        # The best of the very end comes after the last checkpoint, as in a run by itself.
        at_end = (
            keeper.monitor == "loss/train" and best.step == last.step and not self._on_lattice(member.config, last.step)
        )
        known = type(best)() if at_end else best
        common = (member.config, member.data, module.model, module.loop.optimizer, place)
        for path, which, moment, then, after in (
            (member.folder.last_checkpoint, "last", last, known, False),
            (member.folder.best_checkpoint, "best", best.moment, best, at_end),
        ):
            if moment is not None:
                content = member_checkpoint(*common, tensors[which], moment, ending.member, keeper.monitor, then, after)
                path.parent.mkdir(exist_ok=True)
                buffer = io.BytesIO()
                torch.save(content, buffer)
                self._put(path, buffer.getvalue())

    @staticmethod
    def _on_lattice(config: Config, step: int) -> bool:
        options = config.callbacks.checkpoint
        return options is not None and options.every_n_steps is not None and step % options.every_n_steps == 0

    def _result(
        self, keeper: StackKeeper, module: StackedModule, ending: Ending, metrics: dict[str, dict[str, float]]
    ) -> TrainingResult:
        member, best = self._members[ending.member], keeper.best[ending.member]
        now = time.monotonic()
        return TrainingResult(
            status=ending.status,
            run_dir=member.folder.path,
            metrics=metrics,
            weights=member.config.report_weights,
            steps=ending.steps,
            epochs=ending.steps // member.data.steps_per_epoch,
            wall_time_s=now - self._started,
            fit_time_s=(now - self.fit_started) / len(self._members),
            device=str(module.device),
            best=(
                {"monitor": keeper.monitor, "value": best.value, "step": best.step}
                if member.folder.best_checkpoint.is_file()
                else None
            ),
            stopped_by=ending.stopped_by,
            resumed_from=self._resumed_from,
            stack={"members": len(self._members), "fit_time_s": now - self.fit_started},
            error=ending.error,
        )

    def _log(self, member: Member, result: TrainingResult, series: tuple[Series, Series], details: str) -> str:
        """``train.log``: the lines that a run by itself would have printed."""
        parameters = sum(
            (inputs + member.config.model.bias) * outputs
            for inputs, outputs in zip(
                [member.data.in_features, *member.config.model.layer_widths],
                [*member.config.model.layer_widths, member.data.out_features],
                strict=True,
            )
        )
        lines = [announcement(member.config, member.data, parameters, self._last_step)]
        lines.append(f"Trained as one of {len(self._members)} members of a stack")
        training = series[0]
        interval = max(1, len(training.steps) // _LINES_OF_A_LOG)
        for step, (loss, metric, _) in zip(
            training.steps[::interval].tolist(), training.values[0, ::interval].tolist(), strict=True
        ):
            lines.append(f"step {step:>6}  loss {loss:.9f}  {self._metric} {metric:.4f}")
        if result.error:
            lines.append(result.error)
        if result.status == "interrupted":
            lines.append(how_to_go_on(member.config, member.folder))
        lines += report_lines(result, details)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        return "".join(f"[{stamp}][mlp_lightning][INFO] {line}\n" for line in lines)


@dataclasses.dataclass(frozen=True)
class _Final:
    """What is measured at the end: figures by split and name, one per member, and training predictions."""

    figures: Mapping[str, Mapping[str, Sequence[float]]] = dataclasses.field(default_factory=dict)
    predictions: NDArray[np.float32] | None = None


def _alone(module: StackedModule, place: int) -> MLP:
    """A member by itself, on the CPU."""
    return module.model.unstack(place).cpu().float()


def _of(series: Series, place: int, ending: Ending) -> Series:
    """The figures of one member, up to its failure if it failed."""
    values = series.values[place : place + 1]
    count = len(series.steps)
    if ending.status == "failed":
        finite_S = np.isfinite(values[0]).all(-1)
        count = count if finite_S.all() else int((~finite_S).argmax())
    return Series(series.steps[:count], series.wall_times[:count], values[:, :count])


def _csv(
    training: Series,
    validation: Series,
    final: Mapping[str, float],
    steps: int,
    metric_name: str,
    with_lr: bool,
) -> str:
    """``metrics.csv``, in the order in which a run by itself writes it: a validation before the next step."""
    columns = metric_columns(metric_name)
    rows = [
        # Accuracies and learning rates have few values, but a loss is never the same twice.
        (step, 1, f"{step},{loss!r},{metric!r},,,,,{rate!r}\n" if with_lr else f"{step},{loss!r},{metric!r},,,,,\n")
        for step, (loss, metric, rate) in zip(training.steps.tolist(), training.values[0].tolist(), strict=True)
    ]
    if len(validation.steps):
        rows += [
            (step, 0, f"{step},,,{loss!r},{metric!r},,,\n")
            for step, (loss, metric) in zip(validation.steps.tolist(), validation.values[0].tolist(), strict=True)
        ]
        rows.sort(key=lambda row: row[:2])
    lines = [",".join(["step", *columns]) + "\n", *(text for _, _, text in rows)]
    if final:
        cells = ("" if (value := final.get(name)) is None else repr(value) for name in columns)
        lines.append(",".join([str(steps), *cells]) + "\n")
    return "".join(lines)
