"""Modules that are executed when something of them is used."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


class LazyModules(importlib.abc.MetaPathFinder):
    """Finds modules, first of ``sys.meta_path``, that are not executed yet when they are imported.

    Args:
        known: for each module that is put off the names that can be had without it. What it lacks of these, once it is
            executed, it has from here.
    """

    def __init__(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        self._known = known

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if fullname in self._known and target is None:  # with a target it is loaded again
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _LazyLoader(spec.loader, self._known[fullname])
            return spec
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(parent, _LazyModule):
            parent.execute()  # a package goes before its modules
            if (module := sys.modules.get(fullname)) is not None:  # and has imported this one
                # By its spec the import would execute it once more.
                spec = importlib.util.spec_from_loader(fullname, _Imported(module))
                vars(module)["__spec__"] = spec  # torch's configuration refuses attributes
                return spec
        return None


class Taken:
    """A function or class of a module that is executed when this is called or derived from.

    Args:
        module: which.
        name: of the function or class.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def _executed(self) -> Any:
        module = importlib.import_module(self._module)
        if isinstance(module, _LazyModule):
            module.execute()
        return getattr(module, self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._executed()(*args, **kwargs)

    def __instancecheck__(self, instance: object) -> bool:
        # A class that is not there has no instances.
        return is_executed(self._module) and isinstance(instance, self._executed())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._executed(),)


def is_executed(module: str) -> bool:
    """Whether a module was imported, and is not put off."""
    return module in sys.modules and not isinstance(sys.modules[module], _LazyModule)


class _LazyModule(ModuleType):
    """A module that becomes an ordinary one."""

    def __getattr__(self, name: str) -> Any:
        known: Mapping[str, Any] = vars(self)["_known"]
        if name in known:
            return known[name]
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)  # asked of every module, as by inspect; nothing of it is used
        self.execute()
        return getattr(self, name)

    def execute(self) -> None:
        """Execute it."""
        of_module = vars(self)
        known, loader = of_module.pop("_known"), of_module.pop("_loader")
        assert self.__spec__ is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__loader__ = self.__spec__.loader = loader
        try:
            loader.exec_module(self)
        except BaseException:
            sys.modules.pop(self.__name__, None)
            raise
        for name, value in known.items():
            of_module.setdefault(name, value)


class _LazyLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, known: Mapping[str, Any]) -> None:
        self._loader, self._known = loader, known

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _LazyModule(spec.name)
        vars(module).update(_known=self._known, _loader=self._loader)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Later."""


class _Imported(importlib.abc.Loader):
    """Finds a module that was imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__spec__"] = self._spec
