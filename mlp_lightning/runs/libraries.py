"""Imports torch and Lightning in half of the time, for commands: nearly all of a short one is this."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import ModuleType
from typing import Any

_UNUSED = "scipy.signal"


def import_libraries(module: str = "mlp_lightning.runs.fit") -> None:
    """Import a module that needs them; by default the one that trains.

    Meanwhile the garbage collector is off: it finds nothing among the hundreds of thousands of objects that modules
    are made of. They stay out of later collections, too. ``scipy.signal``, which takes as long as Lightning itself, is
    put off until something uses it: torchmetrics imports it only to look for a function.

    torch's threads will sleep while they wait for one another, unless the environment says otherwise: where other
    programs run, turning round takes several times as long as the work.
    """
    if "torch" in sys.modules:
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    if _UNUSED not in sys.modules:
        sys.modules[_UNUSED] = _Later(_UNUSED)
    was_on = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
        gc.freeze()
    finally:
        if was_on:
            gc.enable()


class _Later(ModuleType):
    """A module that is loaded when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "hamming":  # what torchmetrics looks for; SciPy has it elsewhere now
            return lambda *args, **kwargs: self.windows.hamming(*args, **kwargs)
        if name.startswith("__") and name not in ("__path__", "__all__"):
            raise AttributeError(name)  # asked of every module, as by inspect; nothing of it is used
        if sys.modules.get(_UNUSED) is self:
            del sys.modules[_UNUSED]
            importlib.import_module(_UNUSED)
        return getattr(sys.modules[_UNUSED], name)
