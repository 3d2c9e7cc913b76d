"""Messages of the package in the words of an estimator's user, who has parameters and no configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from mlp_lightning.errors import ConfigError, MLPLightningError

# The parameter of an estimator for each configuration key; a key also stands for those below it.
_PARAMETER_OF = {
    "model.hidden_units": "hidden_layer_sizes",
    "model.activation": "activation",
    "model.dropout": "dropout",
    "optimizer.name": "solver",
    "optimizer.lr": "learning_rate_init",
    "optimizer.weight_decay": "alpha",
    "optimizer.betas": "beta_1, beta_2",
    "optimizer.eps": "epsilon",
    "optimizer.momentum": "momentum",
    "optimizer.nesterov": "nesterovs_momentum",
    "data.batch_size": "batch_size",
    "data.shuffle": "shuffle",
    "data.scaling": "scaling",
    "data.class_weight": "class_weight",
    "data.val_fraction": "validation_fraction",
    "scheduler.name": "learning_rate",
    "scheduler.power": "power_t",
    "trainer.max_epochs": "max_iter",
    "trainer.precision": "precision",
    "trainer.accelerator": "accelerator",
    "trainer.label_smoothing": "label_smoothing",
    "callbacks.early_stopping.patience": "n_iter_no_change",
    "callbacks.early_stopping.min_delta": "tol",
    "seed": "random_state",
}
_KEY = r"\b(?:data|model|optimizer|scheduler|trainer|callbacks)\.[a-z_]+(?:\.[a-z_]+)*"
# What a key says together with its value.
_PHRASES = (
    (r"report_weights=best(?: data\.val_fraction=\d[.\d]*)?", "early_stopping=True"),
    (r"data\.val_fraction=0(?![.\d])(?: data\.test_fraction=0(?![.\d]))?", "early_stopping=False"),
    (r"optimizer=([a-z]+)", r"solver=\1"),
    # That of SGD is another number than learning_rate_init, whose loss is scaled as scikit-learn's.
    (r"\(SGD, learning rate [^)]*\)", "(sgd)"),
)
# Where a sentence can be cut: after its first words, and between alternatives.
_CUTS = re.compile(r"(: |; |,? or |, )")


def parameter_of(key: str) -> str:
    """The parameter that a configuration key comes from; the key itself if it comes from none."""
    for known, name in _PARAMETER_OF.items():
        if key == known or key.startswith((f"{known}.", f"{known}[")):
            return name
    return key


def in_parameters(message: str) -> str:
    """A message that names parameters in the place of keys; advice that an estimator cannot follow is left out."""
    for pattern, words in _PHRASES:
        message = re.sub(pattern, words, message)
    message = re.sub(_KEY, lambda found: parameter_of(found.group()), message)
    if not re.search(_KEY, message):
        return message
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", message)
    kept = [_without_keys(one) if re.search(_KEY, one) else one for one in sentences]
    return " ".join(one for one in kept if one)


def _without_keys(sentence: str) -> str:
    """The sentence without the parts that name a key."""
    first, *rest = _CUTS.split(sentence)
    text = "" if re.search(_KEY, first) else first
    for cut, part in zip(rest[::2], rest[1::2], strict=True):
        if not re.search(_KEY, part):
            text = f"{text}{cut}{part}" if text else part
    text = text.rstrip(" :;,")
    if not text:
        return ""
    return text if text.endswith((".", "!", "?")) else f"{text}."


@contextlib.contextmanager
def speaking_of_parameters() -> Iterator[None]:
    """Inside the context, the errors of the package name what the caller of an estimator has."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            dataclasses.replace(one, key=parameter_of(one.key), hint=in_parameters(one.hint)) for one in error.faults
        ) from None
    except MLPLightningError as error:
        text = str(error)
        said = in_parameters(text)
        if said == text:
            raise
        raise type(error)(said) from error


def translated(error: Exception) -> Exception:
    """The error as :func:`speaking_of_parameters` would raise it."""
    try:
        with speaking_of_parameters():
            raise error
    except Exception as said:
        return said
