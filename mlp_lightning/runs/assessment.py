"""Whether a trained model is better than a prediction that does not look at the features, and what to do if not.

Nothing is said of runs whose rows are weighted: their metrics count every row the same, and are not what they learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlp_lightning.config import Config, OwnModelConfig
from mlp_lightning.data import TabularDataModule
from mlp_lightning.engines.protocol import Engine
from mlp_lightning.errors import counted
from mlp_lightning.runs.console import SPLIT_NAMES
from mlp_lightning.runs.ending import Ending
from mlp_lightning.runs.member import Member

Metrics = Mapping[str, Mapping[str, float]]

# A training loss of at least this part of the baseline's has learned nothing.
_PLATEAU = 0.99
# Gradients that shrink by more than this from the last layer to the first vanish.
_VANISHED = 1e-3
# A baseline whose loss grows by these factors from the training rows to later ones is that of another time: for numbers
# the mean has moved by 0.7 deviations, if these are the same.
_MOVED, _MOVED_CLASSES = 1.5, 1.1
# From this share of a class on, always predicting it looks like a good accuracy.
_IMBALANCED = 0.8


class Plateau(NamedTuple):
    """The end of a training that learned nothing of its rows.

    Attributes:
        loss: training loss of the last weights.
        gradients: the norm of the gradient at the output of each layer.
    """

    loss: float
    gradients: Mapping[str, float]


def plateaus_of(
    engine: Engine,
    present: Sequence[int],
    members: Sequence[Member],
    endings: Sequence[Ending],
    losses: Sequence[float | None],
) -> dict[int, Plateau]:
    """The members that learned nothing. Gradients are those of all at once, and only if there are some.

    Args:
        engine: of the training.
        present: number of the member in each of its slots.
        members: of the training.
        endings: of those that end now.
        losses: of the same, on the training rows with the last weights (the best may be those of the first steps);
            ``None`` for a member that did not finish.
    """
    found: dict[int, float] = {}
    for ending, loss in zip(endings, losses, strict=True):
        baseline = members[ending.member].data.baseline_metrics["train"]["loss"]
        if loss is not None and loss >= _PLATEAU * baseline > 0:
            found[ending.member] = loss
    norms = engine.gradient_norms() if found else []
    return {number: Plateau(loss, norms[present.index(number)]) for number, loss in found.items()}


def describe_baseline(data: TabularDataModule) -> str:
    """What is predicted without looking at the features."""
    if not data.shares:
        return "the mean of the training rows for the loss, their median for the absolute error"
    if len(data.target.columns) > 1:
        return "for each target its most frequent class in the training rows; for the loss, the shares of the classes"
    share, label = _majority(data)
    return f"always {label!r} ({percent(share)} of the training rows); for the loss, the shares of the classes"


def _majority(data: TabularDataModule) -> tuple[float, str]:
    """The share of the most frequent class in the training rows (of equal ones the first), and its name."""
    share = max(data.shares)
    return share, data.target.class_names[data.shares.index(share)]


def assess(
    config: Config,
    data: TabularDataModule,
    metrics: Metrics,
    baseline: Metrics,
    steps: int,
    plateau: Plateau | None,
) -> list[str]:
    """Warnings for a person to read; mostly none.

    Args:
        config: of the run.
        data: its rows.
        metrics: of every split, of the weights that are reported.
        baseline: the same of the baseline.
        steps: that were made.
        plateau: where it ended, if it learned nothing.
    """
    if not metrics or config.data.weight_column is not None or config.data.class_weight != "none":
        return []
    split = next(one for one in ("test", "val", "train") if one in metrics)
    warnings = []
    imbalance = _imbalance(data, metrics[split], baseline[split], split)
    if imbalance:
        warnings.append(imbalance)
    if plateau is not None:
        return [*warnings, _plateau(config, plateau, baseline["train"]["loss"], steps)]
    if moved := _moved_in_time(config, metrics, baseline, split):
        return [*warnings, moved]
    worse = _worse(config, metrics, baseline, split, steps, but=("accuracy",) if imbalance else ())
    return [*warnings, worse] if worse else warnings


def percent(share: float) -> str:
    """A share as percents, in three digits."""
    return f"{100 * share:.3g} %"


def _imbalance(data: TabularDataModule, metrics: Mapping[str, float], base: Mapping[str, float], split: str) -> str:
    if not data.shares or len(data.target.columns) > 1:
        return ""
    share, name = _majority(data)
    if share < _IMBALANCED or metrics["accuracy"] > base["accuracy"]:
        return ""
    return (
        f"{percent(share)} of the training rows are {name!r}, and the {SPLIT_NAMES[split]}"
        f" accuracy ({metrics['accuracy']:.4g}) is not above that of predicting nothing else ({base['accuracy']:.4g})."
        " data.class_weight=balanced makes all classes count the same. Judge by balanced accuracy and ROC AUC, which"
        " evaluate.py (mlp-evaluate) prints."
    )


def _worse(
    config: Config, metrics: Metrics, baseline: Metrics, split: str, steps: int, but: tuple[str, ...] = ()
) -> str:
    """What is worse than the baseline, and what helps."""
    own, base = metrics[split], baseline[split]
    found = [
        f"the {SPLIT_NAMES[split]} {name} ({value:.4g}) is {'above' if value > base[name] else 'below'} that of the"
        f" baseline ({base[name]:.4g})"
        for name, value in own.items()
        if name not in but and (value < base[name] if "accuracy" in name else value > base[name])
    ]
    if not found:
        return ""
    text = " and ".join(found)
    text = f"{text[:1].upper()}{text[1:]}, which does not look at the features."
    # Only a loss says whether the training rows were fitted; for an accuracy there may be nothing better.
    is_short = split == "train"
    remedies = _longer(config, steps) if is_short else _against_overfitting(config, metrics)
    return f"{text} {'Train longer' if is_short else 'Fit the training rows less closely'}: {remedies}."


def _moved_in_time(config: Config, metrics: Metrics, baseline: Metrics, split: str) -> str:
    """What to say where later rows have other targets than the model knows: no closer or looser fit helps."""
    data, own, base = config.data, metrics[split]["loss"], baseline[split]["loss"]
    has_own_file = {"val": data.val_path, "test": data.test_path}.get(split) is not None
    if data.time_column is None or split == "train" or has_own_file:
        return ""
    before = baseline["train"]["loss"]
    most = before * (_MOVED_CLASSES if "accuracy" in baseline[split] else _MOVED)
    if min(own, base) <= most:
        return ""
    return (
        f"The {SPLIT_NAMES[split]} rows are later than the training rows (data.time_column={data.time_column}), and"
        f" their targets have moved: the loss of the baseline is {base:.4g} there and {before:.4g} in the training"
        f" rows; that of the model is {own:.4g}. No network continues a trend beyond the moments that it was trained"
        " on: predict the change since an earlier moment, or train on later rows."
    )


def _plateau(config: Config, plateau: Plateau, base: float, steps: int) -> str:
    own, gradients = plateau
    above = "above " if own > base / _PLATEAU else ""
    text = (
        f"After {counted(steps, 'step')} the training loss ({own:.6g}) is {above}that of the baseline"
        f" ({base:.6g}), which does not look at the features: nothing was learned."
    )
    norms = list(gradients.values())
    shown = ", ".join(f"{name} {norm:.0e}" for name, norm in gradients.items())
    layers = f" Norms of the gradient by layer: {shown}." if gradients else ""
    longer = _longer(config, steps)
    rate = f"optimizer.lr (now {config.optimizer.lr:g})"
    if len(norms) > 1 and not any(norms[:-1]):
        return f"{text}{layers} No gradient passes the hidden units: lower {rate}, or set {_other_activation(config)}."
    if len(norms) > 1 and norms[0] < _VANISHED * max(norms):
        vanished = [name for name, norm in gradients.items() if norm < _VANISHED * max(norms)]
        remedies = f"set {_other_activation(config)}, or a smaller model.depth"
        return f"{text}{layers} They vanish towards the input ({', '.join(vanished)}): {remedies}."
    return (
        f"{text}{layers} Train longer ({longer}), raise or lower {rate}, or see whether the features say anything about"
        " the target."
    )


def _against_overfitting(config: Config, metrics: Metrics) -> str:
    remedies = []
    if "val" not in metrics:
        keeps_best = "" if config.report_weights == "auto" else "report_weights=auto "
        remedies.append(f"{keeps_best}data.val_fraction=0.2")
    elif config.report_weights == "last":
        remedies.append("report_weights=best")
    if not isinstance(config.model, OwnModelConfig) and not config.model.dropout and config.model.layer_widths:
        remedies.append("model.dropout=0.3")
    return ", or ".join([*remedies, "fewer hidden units", "more rows"])


def _longer(config: Config, steps: int) -> str:
    if config.trainer.max_steps is not None:
        return f"trainer.max_steps={10 * steps}"
    return f"trainer.max_epochs={10 * (config.trainer.max_epochs or 1)}"


def _other_activation(config: Config) -> str:
    if isinstance(config.model, OwnModelConfig):
        return "other initial weights in your network"
    # The derivative of tanh is 1 at 0, that of silu is never 0 for a whole layer.
    return "model.activation=silu" if config.model.activation in ("relu", "tanh") else "model.activation=tanh"
