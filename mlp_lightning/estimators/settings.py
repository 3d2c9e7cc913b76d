"""From the parameters of an estimator to the configuration of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.config.names import activations
from mlp_lightning.data.datamodule import auto_batch_size
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.estimators.messages import parameter_of

#: Defaults chosen with benchmarks/quality.py, the same as those of ``data=table``. scikit-learn's defaults are in the
#: constructors.
DEFAULTS: dict[str, Any] = {
    "hidden_layer_sizes": (128, 128),
    "activation": "silu",
    "solver": "adamw",
    "alpha": 0.4,
    "learning_rate": "one_cycle",
    "learning_rate_init": 5e-3,
    "max_iter": 45,
    "beta_2": 0.95,
    "dropout": 0.1,
    "scaling": "standard",
    "label_smoothing": 0.01,
}
_SOLVERS = ("adam", "adamw", "sgd")
_SCHEDULES = ("constant", "cosine", "one_cycle", "adaptive", "invscaling")
#: Learning rates that come down to 0 at the end of ``max_iter`` epochs, so that a fit has that length.
FULL_LENGTH = ("cosine", "one_cycle")
_TOL = 1e-4


@dataclasses.dataclass(frozen=True)
class RowsOfFit:
    """What a configuration depends on of the rows.

    Attributes:
        task: one of :data:`~mlp_lightning.networks.tasks.TASKS`.
        kinds: kind of each column that the model sees.
        targets: names of the target columns.
        weights: name of the column of weights; ``None`` without one.
        rows: how many there are.
    """

    task: str
    kinds: Mapping[str, str]
    targets: list[str]
    weights: str | None
    rows: int


def configuration(
    parameters: Mapping[str, Any], rows: RowsOfFit, seed: int, one_pass: bool = False, seen: int = 0
) -> Config:
    """The configuration of one fit.

    Args:
        parameters: of the estimator.
        rows: that it is fitted to.
        seed: decides everything that is random.
        one_pass: whether to make a single pass over the rows, as ``partial_fit`` does.
        seen: rows of all passes before it, by which ``invscaling`` continues.

    Raises:
        ConfigError: a parameter is wrong; named as in the estimator.
    """
    given = {name: one.item() if isinstance(one, np.generic) else one for name, one in parameters.items()}
    _refuse_unknown(given)
    kept = given["log_dir"] is not None
    validates = bool(given["early_stopping"]) and not one_pass
    plain = {
        "name": "estimator",
        "seed": seed,
        "task": rows.task,
        "model": _model(given),
        "data": _data(given, rows, validates),
        "optimizer": _optimizer(given, rows, validates, seen),
        "scheduler": _scheduler(given, rows, validates, one_pass),
        "trainer": {
            "accelerator": given["accelerator"],
            "precision": str(given["precision"]),
            "max_epochs": 1 if one_pass else given["max_iter"],
            # Without loggers, nothing that is logged is used.
            "log_every_n_steps": 10 if kept else 2**31,
            "label_smoothing": given.get("label_smoothing", 0.0),
        },
        "callbacks": {
            "checkpoint": {} if kept or validates else None,
            "early_stopping": None if one_pass else _early_stopping(given),
            "lr_monitor": kept,
        },
        "logger": {"tensorboard": kept, "csv": kept, "graph": False},
        "report_weights": "best" if validates else "last",
        "verbosity": 1 if given["verbose"] else 0,
    }
    try:
        return parse_complete(plain)
    except ConfigError as error:
        raise ConfigError([dataclasses.replace(one, key=parameter_of(one.key)) for one in error.faults]) from None


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    faults = []
    known_activations = ("logistic", *activations())
    for name, known, hint in (
        ("activation", known_activations, ""),
        ("solver", _SOLVERS, "for lbfgs use scikit-learn's estimator" if given["solver"] == "lbfgs" else ""),
        ("learning_rate", _SCHEDULES, ""),
    ):
        if given[name] not in known:
            faults.append(Fault(name, given[name], f"must be one of {', '.join(known)}", hint))
    if given.get("loss", "squared_error") != "squared_error":
        rule = "must be 'squared_error'"
        faults.append(Fault("loss", given["loss"], rule, "for poisson use scikit-learn's estimator"))
    if not (given["batch_size"] == "auto" or isinstance(given["batch_size"], int)):
        faults.append(Fault("batch_size", given["batch_size"], "must be 'auto' or a whole number of rows"))
    if faults:
        raise ConfigError(faults)


def _model(given: Mapping[str, Any]) -> dict[str, Any]:
    sizes = given["hidden_layer_sizes"]
    widths = [one.item() if isinstance(one, np.generic) else one for one in (sizes if np.iterable(sizes) else [sizes])]
    activation = "sigmoid" if given["activation"] == "logistic" else given["activation"]
    if not widths:  # a linear model has no hidden units to leave out
        return {"hidden_units": None, "depth": 0, "activation": activation}
    return {"hidden_units": widths, "activation": activation, "dropout": given["dropout"]}


def _data(given: Mapping[str, Any], rows: RowsOfFit, stops_early: bool) -> dict[str, Any]:
    return {
        "name": "frame",
        "target": rows.targets,
        "columns": {name: {"kind": kind} for name, kind in rows.kinds.items()},
        "scaling": given["scaling"],
        "weight_column": rows.weights,
        "class_weight": "balanced" if _is_balanced(given.get("class_weight")) else "none",
        "batch_size": _batch_size(given, rows),
        "shuffle": given["shuffle"],
        "val_fraction": given["validation_fraction"] if stops_early else 0.0,
    }


def _is_balanced(class_weight: Any) -> bool:
    return isinstance(class_weight, str) and class_weight == "balanced"


def _batch_size(given: Mapping[str, Any], rows: RowsOfFit) -> Any:
    return auto_batch_size(rows.rows) if given["batch_size"] == "auto" else given["batch_size"]


def _training_rows(given: Mapping[str, Any], rows: RowsOfFit, stops_early: bool) -> int:
    share = given["validation_fraction"] if stops_early else 0
    return rows.rows - round(share * rows.rows) if isinstance(share, (int, float)) else rows.rows


def _follows_rows(given: Mapping[str, Any]) -> bool:
    """Whether the learning rate falls with the rows seen; as in scikit-learn, that of ``adam`` does not."""
    return given["learning_rate"] == "invscaling" and given["solver"] == "sgd"


def _optimizer(given: Mapping[str, Any], rows: RowsOfFit, stops_early: bool, seen: int) -> dict[str, Any]:
    lr, decay = given["learning_rate_init"], given["alpha"]
    adam = {"betas": [given["beta_1"], given["beta_2"]], "eps": given["epsilon"]}
    if given["solver"] == "adamw":
        return {"name": "AdamW", "lr": lr, "weight_decay": decay, "fused": True, **adam}
    # scikit-learn's loss is the sum over all targets (of squared errors half of it), and ours the mean.
    share = len(rows.targets) / (2 if rows.task == "regression" else 1)
    # Its penalty is that of the sum over a batch, so that its part in the mean falls with the rows.
    if isinstance(decay, (int, float)):
        decay = decay / (share * max(1, min(_batch_size(given, rows), _training_rows(given, rows, stops_early))))
    if given["solver"] == "adam":
        return {"name": "Adam", "lr": lr, "weight_decay": decay, "fused": True, **adam}
    nesterov = bool(given["nesterovs_momentum"] and given["momentum"])
    if isinstance(lr, (int, float)):
        lr *= share * ((seen + 1) ** -given["power_t"] if seen and _follows_rows(given) else 1)
    return {"name": "SGD", "lr": lr, "weight_decay": decay, "momentum": given["momentum"], "nesterov": nesterov}


def _scheduler(given: Mapping[str, Any], rows: RowsOfFit, stops_early: bool, one_pass: bool) -> dict[str, Any]:
    if _follows_rows(given):
        count = _training_rows(given, rows, stops_early)
        return {"name": "inverse_time", "decay_rate": count, "power": given["power_t"]}
    if one_pass or given["learning_rate"] in ("constant", "invscaling"):
        return {"name": "none"}
    if given["learning_rate"] == "adaptive":
        patience = _patience(given["n_iter_no_change"])
        return {"name": "plateau", "factor": 0.2, "patience": patience, "threshold": tolerance(given), "min_lr": 1e-6}
    return {"name": given["learning_rate"]}


def _early_stopping(given: Mapping[str, Any]) -> dict[str, Any] | None:
    # The loss of classifiers too: their accuracy does not say when probabilities become worse than the class shares.
    rule = {"patience": _patience(given["n_iter_no_change"]), "min_delta": tolerance(given)}
    if given["early_stopping"]:
        return {"monitor": "loss/val", **rule}
    # An adaptive learning rate falls where another fit ends; one over all epochs ends sooner only where that is asked.
    rate = given["learning_rate"]
    ends = rate != "adaptive" and (rate not in FULL_LENGTH or given["tol"] is not None)
    return {"monitor": "loss/train", **rule} if ends else None


def tolerance(parameters: Mapping[str, Any]) -> Any:
    """The ``tol`` of these parameters."""
    return _TOL if parameters["tol"] is None else parameters["tol"]


def _patience(epochs: Any) -> Any:
    return 2**31 if epochs == float("inf") else epochs
