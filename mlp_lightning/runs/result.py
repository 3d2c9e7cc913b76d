"""What a training run returns and leaves in ``result.json``."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_lightning.errors import TrainingError
from mlp_lightning.runs.console import SPLIT_NAMES
from mlp_lightning.runs.curves import charts_of, curve_steps, draw_curves, history_of, nothing_logged
from mlp_lightning.runs.module import MLPModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        status: ``finished``, ``interrupted`` (asked to stop, can continue), ``failed``, or ``pruned`` (left a search,
            because others did better).
        run_dir: folder of the run.
        metrics: ``{split: {"loss": …, metric: …}}`` of the final weights over whole splits, in evaluation
            mode; empty unless the run is finished.
        baseline: ``{"predicts": …, "metrics": {split: …}}``: the same metrics of a prediction that does not look at
            the features; ``None`` unless the run is finished.
        warnings: what the metrics say of a model that is no better than that, and what helps; mostly empty.
        weights: which weights the metrics belong to: ``last`` or ``best``.
        steps: optimizer steps made, those before a checkpoint included.
        epochs: whole passes over the training rows.
        wall_time_s: seconds from the start of the run to its end.
        fit_time_s: seconds from the first step to the end of the last one, validations and checkpoints included; of a
            member of a stack, its share of the stack's.
        device: where it was trained, e.g. ``cpu`` or ``cuda:0``.
        best: ``{"monitor": …, "value": …, "step": …}`` of ``best.ckpt``; ``None`` without one.
        validation: ``{"best": {"step": …, "loss": …, metric: …}, "last": …}``: what the validation rows say of the best
            weights and of the last ones; ``None`` where validation decides no best.
        stopped_by: why the run ended before its full length; empty if it did not.
        resumed_from: the checkpoint that it continued from; ``None`` for a run from the start.
        stack: ``{"members": …, "fit_time_s": …}`` of the stack that the run was a member of; ``None`` for a run alone.
        engine: what made its optimizer steps; empty for a run that failed before.
        members: of an ensemble: the ``folder``, ``seed``, ``weight`` in the mean and ``metrics`` of each; else empty.
        error: what went wrong in a failed run; empty otherwise.
        module: the trained module; not in ``result.json``.
        optimizer_state: state of the optimizer at the end; not in ``result.json`` either.
        exception: the error itself, where it is one of training; not in ``result.json`` either.
    """

    status: str
    run_dir: Path
    metrics: dict[str, dict[str, float]]
    weights: str
    steps: int
    epochs: int
    wall_time_s: float
    fit_time_s: float
    device: str
    best: dict[str, Any] | None = None
    validation: dict[str, dict[str, float]] | None = None
    baseline: dict[str, Any] | None = None
    warnings: Sequence[str] = ()
    stopped_by: str = ""
    resumed_from: str | None = None
    stack: dict[str, Any] | None = None
    engine: str = ""
    members: Sequence[dict[str, Any]] = ()
    error: str = ""
    module: MLPModule | None = dataclasses.field(default=None, repr=False, compare=False)
    optimizer_state: dict[str, Any] | None = dataclasses.field(default=None, repr=False, compare=False)
    exception: TrainingError | None = dataclasses.field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The plain content of ``result.json`` (the facts about the run's surroundings are added to it)."""
        kept = [field.name for field in dataclasses.fields(self) if field.compare]
        plain = {name: getattr(self, name) for name in kept}
        return {**plain, "run_dir": str(self.run_dir)}

    @property
    def history(self) -> Any:
        """What was logged, a row for each step, as a data frame: of pandas if it is installed, else of pyarrow.

        Raises:
            RunFolderError: the run logged nothing, or its folder is gone.
        """
        return history_of(self.run_dir)

    def plot(self) -> Figure:
        """The curves of loss and metric as a picture; a notebook shows it.

        Raises:
            RunFolderError: as for :attr:`history`.
        """
        charts = charts_of(curve_steps(self.run_dir))
        if not charts:
            raise nothing_logged(self.run_dir)
        return draw_curves(charts, self.run_dir.name)

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the metrics of every split beside their baselines, and the facts."""
        names = list(next(iter(self.metrics.values()), {}))
        base = (self.baseline or {}).get("metrics", {})
        rows = [
            [SPLIT_NAMES.get(split, split), *_beside(values, base.get(split, {}), names)]
            for split, values in self.metrics.items()
        ]
        heads = ["", *(title for name in names for title in (name, "baseline"))]
        facts = [f"{self.status}: {self.steps} steps in {self.wall_time_s:.1f} s on {self.device}"]
        facts += [one for one in (self.stopped_by, self.error, *self.warnings) if one]
        lines = [_html_row("th", heads), *(_html_row("td", row) for row in rows)] if rows else []
        paragraphs = "".join(f"<p>{html.escape(one)}</p>" for one in [*facts, str(self.run_dir)])
        return f"<table>{''.join(lines)}</table>{paragraphs}" if lines else paragraphs


def _beside(values: dict[str, float], base: dict[str, float], names: Sequence[str]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for name in names for value in (values.get(name), base.get(name))]


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(one)}</{tag}>' for one in cells)}</tr>"
