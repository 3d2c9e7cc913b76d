"""What to say of a run that cannot learn: early, by name, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping

from mlp_lightning.engines.protocol import Unchanged
from mlp_lightning.errors import counted


def non_finite_message(step: int, loss: float, optimizer: str, lr: float | None) -> str:
    """What to say of a training loss that is no longer a number.

    Args:
        step: where it was the first time.
        loss: what it was.
        optimizer: its name.
        lr: its learning rate at that step; ``None`` where it changes and that of the step is not known.
    """
    rate = "" if lr is None else f", learning rate {lr:g}"
    return (
        f"The training loss became {loss} at step {step} ({optimizer}{rate})."
        " Lower optimizer.lr, limit the gradient with trainer.gradient_clip_val=1, or look for"
        " values in the data that are not finite or very large."
    )


def non_finite_metrics_message(steps: int, metrics: Mapping[str, Mapping[str, float]], lr: float) -> str:
    """What to say when the final metrics are no numbers."""
    return (
        f"The metrics after the last step ({steps}) are not finite: {metrics}. Lower optimizer.lr ({lr:g}) or limit the"
        " gradient with trainer.gradient_clip_val=1."
    )


def no_best_message(steps: int) -> str:
    """What to say when the weights of the best validation are to be reported and there was none."""
    return (
        f"The training was ended after {counted(steps, 'step')}, before the first validation: there are no best"
        " weights to report"
        " (report_weights=best). Train longer, or set report_weights=last."
    )


def unchanged_message(steps: int, found: Unchanged, optimizer: str) -> str:
    """What to say when no parameter has changed in the first ``steps`` steps.

    Args:
        steps: made so far.
        found: what the engine says.
        optimizer: its name.
    """
    names = ", ".join(found.names)
    return f"No parameter changed in steps 0 to {steps - 1}: {names} are what they were. {_why(found, optimizer)}"


def _why(found: Unchanged, optimizer: str) -> str:
    if not found.is_held:
        return f"The optimizer {optimizer} holds none of them: it was built for another model."
    if not found.lr:
        return f"The learning rate of {optimizer} is {found.lr:g}: set optimizer.lr above 0."
    if found.gradients_are_zero:
        return (
            "All their gradients are zero: choose another model.activation or model.init, or standardise the"
            " features (data.scaling=standard)."
        )
    return f"The updates of {optimizer} are too small for the number format: raise optimizer.lr ({found.lr:g})."
