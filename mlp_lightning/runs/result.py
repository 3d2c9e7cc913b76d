"""What a training run returns and leaves in ``result.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.errors import TrainingError
from mlp_lightning.runs.module import MLPModule


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
