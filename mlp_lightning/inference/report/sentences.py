"""What happened in a run, from what it recorded: one sentence each, and the steps that charts mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlp_lightning.inference.report.curves import RunCurves


def marks(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps that charts mark."""
    best = _best(result)
    return [{"step": best[0], "kind": "best"}] if best is not None else []


def _best(result: Mapping[str, Any]) -> tuple[int, float, str] | None:
    """Step, value and metric of the best validation."""
    best = result.get("best")
    if not isinstance(best, Mapping):
        return None
    step, value, monitor = best.get("step"), best.get("value"), best.get("monitor")
    if isinstance(step, int) and isinstance(value, (int, float)) and isinstance(monitor, str):
        return step, float(value), monitor
    return None


class Sentences:
    """One sentence for each thing that happened, from what a run recorded.

    Args:
        texts: of a language.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def events(self, result: Mapping[str, Any], curves: RunCurves) -> list[str]:
        """In the order of the training."""
        found = []
        if isinstance(resumed := result.get("resumed_from"), str):
            found.append(self._say("event_resumed", path=resumed))
        baseline = _number(result, "baseline", "metrics", "train", "loss")
        if (plateau := curves.plateau(baseline)) is not None:
            found.append(
                self._say(
                    "event_plateau",
                    first=f"{plateau.first:,}",
                    last=f"{plateau.last:,}",
                    loss=f"{plateau.loss:.6g}",
                    baseline=f"{plateau.baseline:.6g}",
                )
            )
        if (step := curves.first_not_finite()) is not None:
            found.append(self._say("event_not_finite", step=f"{step:,}"))
        if (best := _best(result)) is not None:
            found.append(self._say("event_best", step=f"{best[0]:,}", monitor=best[2], value=f"{best[1]:.6g}"))
        found += self._after_best(result)
        if isinstance(stopped := result.get("stopped_by"), str) and stopped:
            found.append(self._say("event_stopped", steps=f"{result.get('steps')}", reason=stopped))
        return found

    def _after_best(self, result: Mapping[str, Any]) -> list[str]:
        best, last = (
            (_number(result, "validation", which, "step"), _number(result, "validation", which, "loss"))
            for which in ("best", "last")
        )
        if None in (*best, *last) or last[0] <= best[0]:  # type: ignore[operator]  # numbers
            return []
        steps = f"{int(last[0] - best[0]):,}"  # type: ignore[operator]  # numbers
        return [self._say("event_after_best", steps=steps, best=f"{best[1]:.6g}", last=f"{last[1]:.6g}")]

    def _say(self, key: str, **values: str) -> str:
        return self.texts[key].format(**values)


def _number(result: Mapping[str, Any], *keys: str) -> float | None:
    value: Any = result
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
