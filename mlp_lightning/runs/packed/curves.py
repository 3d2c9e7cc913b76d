"""The curves of runs that are kept as numbers, and the files that are made of them.

Nothing is written while the runs train: of a stack that is killed, its saved state has the curves.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from mlp_lightning.config import Config
from mlp_lightning.runs.history import Series
from mlp_lightning.runs.metric_files import (
    MetricFiles,
    csv_at_end,
    csv_head,
    csv_lines,
    event_file_name,
    events_at_end,
    events_at_start,
    scalars,
)


@dataclasses.dataclass(frozen=True)
class Curves:
    """What the event file and ``metrics.csv`` of one run are made of.

    Attributes:
        training: metrics of the logged steps; those of a run that failed up to its failure.
        validation: the same of the validations.
        final: what the end adds, by tag.
        steps: that were made.
        started: when the training started, in seconds since 1970.
        ended: when the run ended.
        event_file: its path in the run folder; empty without one.
        graph: the record of the model graph.
    """

    training: Series
    validation: Series
    final: Mapping[str, float]
    steps: int
    started: float
    ended: float
    event_file: str = ""
    graph: bytes = b""


class KeptCurves(MetricFiles):
    """Keeps the curves of members that have ended."""

    kept: dict[int, Curves]

    def write(self, members: Sequence[int]) -> None:
        """Write nothing: the members still train."""

    def finish(
        self,
        members: Sequence[int],
        statuses: Sequence[str],
        final: Sequence[Mapping[str, float]],
        steps: Sequence[int],
    ) -> None:
        training, validation = (self._history.series(split, members) for split in ("train", "val"))
        self.kept, ended = {}, time.time()
        for index, (number, status) in enumerate(zip(members, statuses, strict=True)):
            config, has_failed = self._members[number].config, status == "failed"
            has_events = config.logger.tensorboard
            self.kept[number] = Curves(
                training.of(index, has_failed),
                validation.of(index, has_failed),
                final[index],
                steps[index],
                self._started,
                ended,
                event_file_name(config, self._started) if has_events else "",
                self._graph(number, config) if has_events and config.logger.graph else b"",
            )


def curve_files(curves: Curves, config: Config, metric_name: str, status: str) -> dict[str, bytes]:
    """The event file and ``metrics.csv`` of a run, by their path in its folder.

    Args:
        curves: of the run.
        config: of the run.
        metric_name: of its task.
        status: how it ended.
    """
    with_lr, both = config.callbacks.lr_monitor, (curves.training, curves.validation)
    files = {}
    if curves.event_file:
        (of_steps,) = scalars(*both, metric_name, with_lr)
        at_end = events_at_end(status, curves.final, curves.steps, curves.ended)
        files[curves.event_file] = events_at_start(config, curves.started) + curves.graph + of_steps + at_end
    if config.logger.csv:
        files["metrics.csv"] = csv_text(curves, metric_name, with_lr).encode()
    return files


def csv_text(curves: Curves, metric_name: str, with_lr: bool) -> str:
    """The text of ``metrics.csv``."""
    lines = csv_lines(curves.training, curves.validation, with_lr)
    return "".join([csv_head(metric_name), *lines, *csv_at_end(metric_name, curves.final, curves.steps)])
