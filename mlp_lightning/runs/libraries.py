"""Imports torch and Lightning in half of the time, for commands: nearly all of a short one is this.

Some modules take longer than those that import them, and are hardly used: torch's compiler, of which Lightning wants a
class and optimizers want to be left out; matplotlib, for torchmetrics' plots; parts of SciPy, for a function. They are
executed when something of them is used.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
from typing import Any

from mlp_lightning.runs.lazy_modules import LazyModules, Taken, is_executed

_SIGNAL, _COMPILER = "scipy.signal", "torch._dynamo"
# What is taken of modules while the libraries are imported, and not used then.
_TAKEN = {
    _COMPILER: ("OptimizedModule",),
    "torchmetrics.utilities.plot": (
        *("_AX_TYPE", "_CMAP_TYPE", "_PLOT_OUT_TYPE"),
        *("plot_confusion_matrix", "plot_curve", "plot_single_or_multi_val"),
    ),
}


def import_libraries(module: str = "mlp_lightning.runs.fit") -> None:
    """Import a module that needs them; by default the one that trains.

    Meanwhile the garbage collector is off: it finds nothing among the hundreds of thousands of objects that modules
    are made of. They stay out of later collections, too.

    torch's threads will sleep while they wait for one another, unless the environment says otherwise: where other
    programs run, turning round takes several times as long as the work.
    """
    if "torch" in sys.modules:
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    put_off: dict[str, dict[str, Any]] = {
        _SIGNAL: {"hamming": Taken(f"{_SIGNAL}.windows", "hamming")},  # torchmetrics adds it where SciPy lacks it
        "scipy.stats": {"rankdata": Taken("scipy.stats", "rankdata")},  # for scikit-learn
        _COMPILER: {"disable": _disabled, "graph_break": _graph_break},
    }
    for name, taken in _TAKEN.items():
        put_off.setdefault(name, {}).update({one: Taken(name, one) for one in taken})
    sys.meta_path.insert(0, LazyModules(put_off))
    was_on = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
        for method in vars(sys.modules["torch"].optim.Optimizer).values():
            if getattr(method, "__globals__", {}).get("__name__") == "torch._compile":
                _without_compiler(method)
        for name, taken in _TAKEN.items():  # from now on you may use them
            for one in taken:
                del put_off[name][one]
        gc.freeze()
    finally:
        if was_on:
            gc.enable()


def _graph_break() -> None:
    """``torch._dynamo.graph_break``: without torch's compiler there is no graph."""
    if is_executed(_COMPILER):
        sys.modules[_COMPILER].graph_break()


def _disabled(function: Any = None, recursive: bool = True, **_: Any) -> Any:
    """``torch._dynamo.disable`` as a decorator that does not need torch's compiler."""
    from torch._compile import _disable_dynamo

    if function is None:
        return lambda function: _disabled(function, recursive)
    return _without_compiler(_disable_dynamo(function, recursive))


def _without_compiler(function: Any) -> Any:
    """A function that torch keeps its compiler out of, which imports it for that; not before something else does.

    torch looks at ``__dynamo_disable`` for what to call, and puts there what ``torch._dynamo.disable`` returns when it
    finds nothing: so that has to be ``until_executed``, which never calls what looks there while it is itself there.
    """
    plain = function.__wrapped__

    def until_executed(*args: Any, **kwargs: Any) -> Any:
        if not is_executed(_COMPILER):
            return plain(*args, **kwargs)
        if getattr(plain, "__dynamo_disable", None) is until_executed:
            del plain.__dynamo_disable
        return function(*args, **kwargs)

    functools.update_wrapper(until_executed, plain)
    plain.__dynamo_disable = until_executed
    return until_executed
