"""What the engines without autograd support; they refuse the rest, and such a run trains with ``autograd``, alone.

An option that is not listed here is refused with any value: a new one would otherwise be ignored in training, but be
recorded in the checkpoint.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.config.names import STACKABLE_OPTIMIZERS

# The options of every section that an engine reads. It does not read sections that only choose the rows, or the name
# and the display of a run.
_TAUGHT = {
    "model": (
        *("hidden_units", "depth", "activation", "dropout", "norm", "bias", "init", "numeric_embedding"),
        "residual",
        *("embedding_size", "embedding_frequencies", "embedding_sigma"),  # without an embedding they have no effect
    ),
    "scheduler": (
        *("name", "eta_min", "max_lr", "pct_start", "div_factor", "final_div_factor", "step_size", "gamma", "interval"),
        *("decay_rate", "power", "monitor", "factor", "patience", "threshold", "min_lr"),
    ),
    "trainer": (
        *("accelerator", "precision", "max_steps", "max_epochs", "log_every_n_steps", "print_every_n_steps"),
        *("check_val_every_n_epoch", "steps_per_execution", "gradient_clip_val", "gradient_clip_algorithm"),
        *("label_smoothing", "accumulate_grad_batches", "threads", "engine"),
    ),
    "callbacks": ("checkpoint", "early_stopping", "lr_monitor", "histograms_every_n_steps", "snapshots", "extra"),
}
# Arguments of torch's optimizers, beside the learning rate. Those not listed need another implementation of the
# update (capturable, differentiable), reverse it (maximize), or are not known to scale with the learning rate.
_TAUGHT_OF_OPTIMIZERS = (
    *("betas", "eps", "weight_decay", "amsgrad", "foreach", "fused", "decoupled_weight_decay", "momentum_decay"),
    *("alpha", "momentum", "rho", "lr_decay", "initial_accumulator_value", "dampening", "nesterov"),
)
# Options of which only some values are supported, with these values.
_EXPLICIT: dict[str, tuple[Any, ...]] = {
    "model.norm": ("none", "batch", "layer"),
    "model.numeric_embedding": ("none", "periodic", "piecewise_linear"),
    "scheduler.name": ("none", "cosine", "one_cycle", "step", "inverse_time", "plateau"),
    "trainer.precision": ("32", "64"),
    "trainer.gradient_clip_algorithm": ("norm", "value"),
}
# A kernel has every layer written out.
_MOST_COMPILED_LAYERS = 32
_COMPILED = {
    **_EXPLICIT,
    "model.norm": ("none",),
    "model.residual": (False,),
    "model.numeric_embedding": ("none",),
}


def stacked_refuses(config: Config) -> str:
    """Why the stacked engine cannot train a run; empty if it can. A function of the configuration alone."""
    reason = _refuses(config, _EXPLICIT, "is not stacked", "is for a run alone")
    if not reason and config.trainer.accumulate_grad_batches > 1 and config.model.norm == "batch":
        return "model.norm = batch treats the batches of trainer.accumulate_grad_batches one by one"
    return reason


def compiled_refuses(config: Config) -> str:
    """Why the compiled engine cannot train a run; empty if it can. A function of the configuration alone."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    if config.trainer.accelerator not in ("auto", "cpu"):
        return f"trainer.accelerator = {config.trainer.accelerator}: it is compiled for CPUs"
    reason = _refuses(config, _COMPILED, "is not in the compiled kernel", "is for a run alone")
    if reason:
        return reason
    if len(config.model.layer_widths) > _MOST_COMPILED_LAYERS:
        return f"model.depth = {len(config.model.layer_widths)} is more than {_MOST_COMPILED_LAYERS}"
    # What starts quickly imports this module, and no kernel.
    from mlp_lightning.engines.compiled.elementwise import ACTIVATIONS
    from mlp_lightning.engines.compiled.updates import RULES

    optimizer = config.to_dict()["optimizer"]
    known = {"model.activation": (config.model.activation, ACTIVATIONS), "optimizer.name": (optimizer["name"], RULES)}
    for key, (value, names) in known.items():
        if value not in names:
            return f"{key} = {value} is not in the compiled kernel"
    return ""


def explicit_refuses(config: Config) -> str:
    """Why the explicit engine cannot train a run; empty if it can. A function of the configuration alone."""
    if config.trainer.accumulate_grad_batches > 1 and config.model.norm == "batch":
        return "model.norm = batch treats the batches of trainer.accumulate_grad_batches one by one"
    if config.trainer.accelerator not in ("auto", "cpu"):
        return f"trainer.accelerator = {config.trainer.accelerator}: it was tried on CPUs only"
    return _refuses(config, _EXPLICIT, "has no gradient written out", "needs gradients of autograd")


def _refuses(config: Config, values: Mapping[str, tuple[Any, ...]], why: str, why_no_callback: str) -> str:
    """The first option that an engine without autograd was not taught, or not with this value.

    Args:
        config: of the run.
        values: of some options, those that it was taught.
        why: it refuses an option, as the end of a sentence.
        why_no_callback: likewise, a callback.
    """
    content = config.to_dict()
    if "_target_" in content["model"]:
        return f"model._target_ = {content['model']['_target_']} {why}"
    for section, taught in _TAUGHT.items():
        for name, value in content[section].items():
            key = f"{section}.{name}"
            if name not in taught or value not in values.get(key, (value,)):
                return f"{key} = {value} {why}"
    if not _is_written_out(config.model.activation):
        return f"the gradient of model.activation = {config.model.activation} is not written out"
    if config.callbacks.histograms_every_n_steps is not None:
        return f"callbacks.histograms_every_n_steps {why_no_callback}"
    if config.callbacks.extra:
        return f"callbacks.extra ({', '.join(one._target_ for one in config.callbacks.extra)}) {why_no_callback}"
    optimizer = dict(content["optimizer"])
    if "_target_" in optimizer:
        return f"optimizer._target_ = {optimizer['_target_']} {why}"
    options = {key: one for key, one in optimizer.items() if key not in ("name", "lr")}
    return _refuses_optimizer(optimizer["name"], options, why)


def _is_written_out(activation: str) -> bool:
    # What starts quickly imports this module, and no torch.
    from mlp_lightning.networks.activations import ACTIVATIONS

    entry = ACTIVATIONS.get(activation)
    return entry is not None and entry.written_out is not None


def _refuses_optimizer(name: str, options: dict[str, Any], why: str) -> str:
    if name not in STACKABLE_OPTIMIZERS:
        return f"{name} does not work number by number with a learning rate that only scales its update"
    for option, value in options.items():
        # False and None turn the option off.
        if option not in _TAUGHT_OF_OPTIMIZERS and value not in (False, None):
            return f"optimizer.{option} = {value} {why}"
    if options.get("eps", 1) == 0:
        return "optimizer.eps = 0 divides zeros by zeros in padding"
    return ""
