"""Import paths of the user's own parts: which may be imported, and importing one. Imports no torch.

What a configuration, a checkpoint or a file of an export names is never imported because it is named there: whoever
trains or loads has to name its package in ``allow_targets``, or to have installed a package that allows its own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from mlp_lightning.config.nearest import nearest
from mlp_lightning.errors import ConfigError, Fault

#: Entry points in which an installed package lists its modules that may be imported.
ENTRY_POINTS = "mlp_lightning.targets"
_PLAIN = (str, int, float, bool, type(None))


def is_dotted_name(text: Any) -> bool:
    """Whether a text names a package, module or class, such as ``my_package.parts``."""
    return isinstance(text, str) and all(name.isidentifier() for name in text.split("."))


def is_import_path(value: Any) -> bool:
    """Whether a value names something inside of a module, as far as a name shows it."""
    return isinstance(value, str) and "." in value


def target_fault(key: str, path: Any, allowed: Sequence[str]) -> Fault | None:
    """What is wrong with an import path, as far as it is known without an import; ``None`` if nothing.

    Args:
        key: where it was given.
        path: of a class, ``package.module.Class``.
        allowed: packages and modules that may be imported, each with all that lies below it. Those of
            :func:`installed_targets` may be, too.
    """
    names = path.split(".") if isinstance(path, str) else []
    hidden = [one for one in names if one.startswith("__")]
    # The script that runs is a module like any other, where the caller allows it.
    if not is_dotted_name(path) or "." not in path or (hidden and (hidden != names[:1] or names[0] != "__main__")):
        return Fault(key, path, "must be the import path of a class or function", "for example my_package.MyPart")
    module = path.rpartition(".")[0]
    if _is_allowed(module, allowed):
        return None
    rule = f"is not imported: its module is not in allow_targets = {list(allowed)}"
    package = module.partition(".")[0]
    meant = nearest(package, [one.partition(".")[0] for one in allowed])
    if meant not in (None, package):
        return Fault(key, path, rule, f"did you mean {meant}{path.removeprefix(package)}?")
    return Fault(key, path, rule, f"if you trust its code, add allow_targets=[{package}]")


def installed_targets() -> list[str]:
    """Packages and modules that installed packages allow to be imported. Nothing is imported to know it.

    Installing a package lets its code run, so a package may allow what is its own; it cannot allow Python's modules or
    those of another package.
    """
    found = [one for one in importlib.metadata.entry_points(group=ENTRY_POINTS) if is_dotted_name(one.value)]
    packages = importlib.metadata.packages_distributions() if found else {}
    allowed = []
    for one in found:
        package = one.value.partition(".")[0]
        owners = packages.get(package, [])  # none of a package that is installed in place
        is_own = not owners or (one.dist is not None and one.dist.name in owners)
        if is_own and package not in sys.stdlib_module_names:
            allowed.append(one.value)
    return allowed


def argument_faults(prefix: str, value: Any) -> Iterator[Fault]:
    """What is wrong with the arguments of a part: they are plain data, and nothing inside of them is built."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            key = f"{prefix}.{name}"
            if not isinstance(name, str) or name.startswith("_"):
                rule = "is not an argument: keys that begin with _ are instructions, and only _target_ of a part is one"
                yield Fault(key, one, rule, "give plain values, and let your class build what it needs")
            else:
                yield from argument_faults(key, one)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from argument_faults(f"{prefix}.{number}", one)
    elif not isinstance(value, _PLAIN):
        yield Fault(prefix, value, "must be plain data: numbers, texts, lists, mappings")


def name_of_object(part: Any) -> str:
    """The import path of a class or function; of others, such as a partial one, that of what they are."""
    found = part if hasattr(part, "__qualname__") else getattr(part, "func", type(part))
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', type(found).__qualname__)}"


def import_target(key: str, path: str, allowed: Sequence[str], base: type | None) -> Any:
    """The class, or the function, of an import path.

    Args:
        key: where the path was given.
        path: of the class or function.
        allowed: as for :func:`target_fault`, which is asked before anything is imported.
        base: what it has to be a subclass of; ``None`` for a function.

    Raises:
        ConfigError: it is not allowed, cannot be imported, is no such part, or is only passed on by its module: what
            ``my_package`` has imported from elsewhere (``os.system``) is not in ``my_package``.
    """
    fault = target_fault(key, path, allowed)
    if fault is not None:
        raise ConfigError([fault])
    module, _, name = path.rpartition(".")
    try:
        content = importlib.import_module(module)
        part = getattr(content, name, None)
    except Exception as error:  # the module is code of the user's own
        hint = "install its package, or put the folder that it lies in on PYTHONPATH"
        rule = f"cannot be imported ({type(error).__name__}: {error})"
        raise ConfigError([Fault(key, path, rule, hint if isinstance(error, ImportError) else "")]) from error
    if part is None:
        meant = nearest(name, [other for other, one in vars(content).items() if _is_part(one, base)])
        hint = "" if meant is None else f"did you mean {module}.{meant}?"
        raise ConfigError([Fault(key, path, f"is not there: {module} has no {name}", hint)])
    if not _is_part(part, base):
        rule = "must be a function" if base is None else f"must be a subclass of {base.__module__}.{base.__qualname__}"
        raise ConfigError([Fault(key, path, rule)])
    origin = str(getattr(part, "__module__", None))
    if not _is_allowed(origin, allowed):
        rule = f"is defined in {origin}, which is not in allow_targets = {list(allowed)}"
        raise ConfigError([Fault(key, path, rule, f"if you trust its code, add {origin}")])
    return part


def _is_part(part: Any, base: type | None) -> bool:
    return callable(part) if base is None else isinstance(part, type) and issubclass(part, base)


def _is_allowed(module: str, allowed: Sequence[str]) -> bool:
    return _is_below(module, allowed) or _is_below(module, installed_targets())


def _is_below(module: str, allowed: Sequence[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


def refused_targets(plain: Mapping[str, Any], given: Collection[str]) -> list[Fault]:
    """The parts of the user's own whose import is not allowed, in a configuration that may have other faults."""
    listed = plain.get("allow_targets", [])
    allowed = [one for one in listed if is_dotted_name(one)] if isinstance(listed, (list, tuple)) else []
    callbacks = plain.get("callbacks")
    extra = callbacks.get("extra") if isinstance(callbacks, Mapping) else None
    parts = [(section, plain.get(section)) for section in ("model", "data", "optimizer")]
    parts += [(f"callbacks.extra.{number}", one) for number, one in enumerate(extra if isinstance(extra, list) else [])]
    paths = [
        (f"{key}._target_", one["_target_"]) for key, one in parts if isinstance(one, Mapping) and "_target_" in one
    ]
    model = plain.get("model")
    if isinstance(model, Mapping) and "_target_" not in model and is_import_path(model.get("activation")):
        paths.append(("model.activation", model["activation"]))
    # One that is null is missing, which is said where the part is built.
    faults = (target_fault(key, path, allowed) for key, path in paths if path is not None and key not in given)
    return [one for one in faults if one is not None]
