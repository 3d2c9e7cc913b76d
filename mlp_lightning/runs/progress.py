"""Shows the progress of a single run: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mlp_lightning.runs.console import RunConsole
from mlp_lightning.runs.training_module import Outputs, TrainingModule

_LINES_OF_A_RUN = 20
# A moved bar costs a millisecond or two.
_SECONDS_BETWEEN_REFRESHES = 0.1


class ProgressDisplay(pl.Callback):
    """A bar with steps, steps per second, loss and metric; and a line every so many steps.

    Args:
        console: where to show it.
        total_steps: number of steps of the whole run.
        print_every_n_steps: steps between two lines; ``"auto"``: about 20 lines where no bar is shown.
    """

    def __init__(self, console: RunConsole, total_steps: int, print_every_n_steps: int | str | None) -> None:
        self._console = console
        self._total_steps = total_steps
        if print_every_n_steps == "auto":
            print_every_n_steps = None if console.is_terminal else max(1, total_steps // _LINES_OF_A_RUN)
        self._print_interval = print_every_n_steps
        self._next_line = 0
        self._bar: Progress | None = None
        self._bar_task = TaskID(0)
        self._validation = ""
        self._first_step = 0
        self._started_at = self._refreshed_at = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_step = trainer.global_step
        if isinstance(self._print_interval, int):
            self._next_line = -(-self._first_step // self._print_interval) * self._print_interval
        self._started_at = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed:>6.0f}/{task.total:.0f} steps"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[speed]:>7.0f} steps/s"),
                TextColumn("{task.fields[metrics]}"),
                TimeRemainingColumn(),
                console=self._console.rich,
                auto_refresh=False,
            )
            self._bar_task = self._bar.add_task(
                "", total=self._total_steps, completed=self._first_step, speed=0, metrics=""
            )
            self._bar.start()

    def on_train_batch_end(  # type: ignore[override]  # meets only our module
        self, trainer: pl.Trainer, pl_module: TrainingModule, outputs: Mapping[str, Outputs], *_: Any
    ) -> None:
        done = outputs["outputs"]
        metric_name = pl_module.engine.task.metric_name
        validations = list(done.validations)
        metrics = ""
        for trace, _members in done.traces:
            for step, (loss, metric, _lr) in zip(trace.logged_steps, trace.logged_SK3[:, 0].tolist(), strict=True):
                while validations and validations[0].step <= step:
                    self._validation = f"  | validation {_text(metric_name, validations.pop(0).metrics)}"
                metrics = f"  {metric_name} {metric:.4f}"
                if self._print_interval is not None and step >= self._next_line:
                    text = _text(metric_name, {"loss": [loss], metric_name: [metric]})
                    self._console.line(f"step {step:>6}  {text}{self._validation}")
                    self._next_line += int(self._print_interval)
        if validations:
            self._validation = f"  | validation {_text(metric_name, validations[-1].metrics)}"
        if self._bar is not None and done.steps:
            loss = next(trace.losses_SK[-1, 0].item() for trace, _ in reversed(done.traces) if trace.steps)
            self._move_bar(self._bar, trainer.global_step, f"loss {loss:.4g}{metrics}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_bar()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop_bar()

    def _move_bar(self, bar: Progress, step: int, metrics: str) -> None:
        now = time.monotonic()
        if now - self._refreshed_at < _SECONDS_BETWEEN_REFRESHES and step < self._total_steps:
            return
        self._refreshed_at = now
        speed = (step - self._first_step) / max(now - self._started_at, 1e-9)
        bar.update(self._bar_task, completed=step, speed=speed, metrics=metrics)
        bar.refresh()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _text(metric_name: str, metrics: Mapping[str, Sequence[float]]) -> str:
    return f"loss {metrics['loss'][0]:.9f}  {metric_name} {metrics[metric_name][0]:.4f}"
