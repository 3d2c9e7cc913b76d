"""Checks the overrides of a command line, all of them at once, before Hydra runs anything.

Hydra stops at the first fault. Here every override is checked alone first. Then the configuration is composed
of all overrides that can be composed, and the schema checks the result, so one attempt shows every fault. What
passes is composed once more exactly as Hydra will compose it, so Hydra finds nothing new.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mlp_lightning.config.conf_files import conf_dir
from mlp_lightning.config.free_names import with_readable_names
from mlp_lightning.config.parsing import parse_complete
from mlp_lightning.config.rules import nearest, unknown_name
from mlp_lightning.config.updates import as_number, updated
from mlp_lightning.errors import ConfigError, Fault

# Plugins of Hydra that may be missing: what is said of each, and what to do.
_PLUGINS = {
    "hydra/launcher/joblib": (
        "needs hydra-joblib-launcher, which is not installed",
        "pip install 'mlp-lightning[joblib]'",
    ),
    "hydra/sweeper/optuna": ("is a plugin of Hydra that is not installed", "search=optuna needs none"),
}
# What Hydra and OmegaConf raise when a configuration cannot be composed; for some a bare ValueError.
# Some faults reach only an assertion inside.
_COMPOSITION_ERRORS = (
    *(HydraException, OmegaConfBaseException, ValueError),
    *(AssertionError, TypeError, AttributeError, LookupError, RecursionError),
)


Parse = Callable[[Mapping[str, Any], Collection[str]], Any]


def check_overrides(
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    config_name: str = "train",
    config_dir: Path | None = None,
    parse: Parse = parse_complete,
) -> Any:
    """Compose and check the configuration that ``overrides`` ask for.

    For a sweep, every swept value is checked, each with the first value of the other swept keys.

    Args:
        overrides: as given on the command line.
        multirun: whether several values per key are allowed.
        config_name: the primary configuration file.
        config_dir: a further folder with configuration files.
        parse: checks the composed configuration, given the keys that ``overrides`` set.

    Returns:
        The configuration that ``parse`` makes; of the first run if it is a sweep.

    Raises:
        ConfigError: with every fault that was found.
    """
    return check_command(overrides, multirun, config_name, config_dir, parse).config


@dataclasses.dataclass(frozen=True)
class CheckedCommand:
    """What a command line asks for.

    Attributes:
        config: of the first run.
        is_sweep: whether it makes several runs.
        is_sweep_by_file: whether a file says so (``hydra.mode``), even without ``-m``.
        swept: the dotted keys that have several values, or a space to search.
        differing: the keys of the configuration in which its runs differ, as far as the command says it.
    """

    config: Any
    is_sweep: bool
    is_sweep_by_file: bool
    swept: frozenset[str] = frozenset()
    differing: frozenset[str] = frozenset()


def check_command(
    overrides: Sequence[str],
    multirun: bool = False,
    config_name: str = "train",
    config_dir: Path | None = None,
    parse: Parse = parse_complete,
) -> CheckedCommand:
    """As :func:`check_overrides`, and whether it is a sweep."""
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError([Fault("--config-dir", str(config_dir), "is not a folder")])
    check = _Check(with_open_sections(overrides), multirun, config_name, config_dir, parse)
    config = check.run()
    swept, differing = frozenset(check.swept), frozenset(check.swept | check.differing)
    return CheckedCommand(config, check.multirun, check.multirun_by_file, swept, differing)


def explicit_keys(overrides: Iterable[str]) -> frozenset[str]:
    """The dotted keys that overrides set."""
    return frozenset(_key_of(one) for one in overrides)


# Sections whose keys are the user's own, such as names of columns.
_OPEN_SECTIONS = ("data.columns.", "data.columns=")


def with_open_sections(overrides: Iterable[str]) -> list[str]:
    """Overrides that Hydra accepts although their keys are in no file.

    You name a column without a plus sign, and an argument of a network, a data set or an optimizer of your own.
    """
    given = list(overrides)
    of_own = tuple(f"{group}." for group in ("model", "data", "optimizer") if _is_own(group, given))
    return [f"++{with_readable_names(one)}" if one.startswith((*_OPEN_SECTIONS, *of_own)) else one for one in given]


def _is_own(group: str, overrides: Sequence[str]) -> bool:
    return any(one.startswith((f"{group}=own", f"{group}._target_=")) for one in overrides)


class _Check:
    """One check of one command line; collects its faults."""

    def __init__(
        self, overrides: Sequence[str], multirun: bool, config_name: str, config_dir: Path | None, parse: Parse
    ) -> None:
        # The values of a sweep leave most sections as they are.
        self.parse = functools.partial(parse_complete, known={}) if parse is parse_complete else parse
        self.overrides = overrides
        self.multirun = multirun
        self.config_name = config_name
        self.folders = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
        self.searchpath = [] if config_dir is None else [f"hydra.searchpath=[file://{config_dir.resolve()}]"]
        self.explicit = explicit_keys(overrides)
        self.faults: dict[str, Fault] = {}
        self.several: list[Fault] = []  # of several values, which only a sweep may have
        self.multirun_by_file = False
        self.swept_by_files: dict[str, str] = {}
        self.swept: set[str] = set()
        self.differing: set[str] = set()  # because of the options of a swept group
        # What is composed to be checked: groups first, values with ++, so that Hydra takes unknown keys and the
        # schema can report all of them. Beside each, the override as it was given, with its first value.
        self.groups: list[tuple[str, str]] = []
        self.values: list[tuple[str, str]] = []
        self.further: list[tuple[str, str, bool]] = []  # (key, another swept value, whether it is a group)

    def run(self) -> Any:
        parsed = list(self._parsed())
        for one in parsed:
            self._find_folders(one)
        for one in parsed:
            self._look_at(one)
        with initialize_config_dir(version_base=None, config_dir=str(conf_dir()), job_name="train"):
            composed = self._composed_without_culprits()
            if not self.multirun:
                for fault in self.several:
                    self._add(fault)
            config = None if composed is None else self._checked(composed)
            if composed is not None:
                self._check_further_values(composed)
            if not self.faults:
                self._compose_as_given()
        if self.faults or config is None:
            raise ConfigError(self.faults.values())
        return config

    # ---- each override alone -----------------------------------------------------------------------------

    def _parsed(self) -> Iterable[Override]:
        parser = OverridesParser.create()
        for text in self.overrides:
            try:
                if not _key_of(text):
                    raise HydraException("there is no key")
                yield parser.parse_override(text)
            except HydraException as error:
                key, _, value = text.partition("=")
                hint = "quote a value with special characters: 'key=\"value\"'"
                self._add(
                    Fault(key.lstrip("+~"), value, f"cannot be read as KEY=VALUE: {str(error).splitlines()[0]}", hint)
                )

    def _find_folders(self, override: Override) -> None:
        """Take note of a folder with configuration files that is given to Hydra itself."""
        if override.key_or_group == "hydra.searchpath" and isinstance(override.value(), list):
            paths = [str(one) for one in override.value()]  # type: ignore[union-attr]  # checked to be a list above
            self.folders += [Path(one.removeprefix("file://")) for one in paths if one.startswith("file://")]

    def _look_at(self, override: Override) -> None:
        key, given = override.key_or_group, str(override.input_line)
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            if not override.is_sweep_override():  # a single composition has one value
                self.values.append((given, given))
            return
        if override.is_delete():
            self.values.append((given, given))
            return
        values = self._values(key, override)
        is_group = "." not in key and bool(self._options(key))
        if is_group:
            values = self._known_options(key, values)
        if not values:
            return
        first = f"{given.partition('=')[0]}={values[0]}" if override.is_sweep_override() else given
        if is_group:
            package = f"@{override.package}" if override.package else ""
            self.groups.append((f"{key}{package}={values[0]}", first))
        else:
            # + is for new keys: Hydra reports a key that exists.
            sign = "+" if override.is_add() and not override.is_force_add() else "++"
            self.values.append((f"{sign}{key}={values[0]}", first))
        self.further += [(key, value, is_group) for value in values[1:]]

    def _values(self, key: str, override: Override) -> list[str]:
        """The values of an override as text; several only in a sweep."""
        if not override.is_sweep_override():
            return [str(override.input_line).partition("=")[2]]
        self.swept.add(key)
        text = str(override.input_line).partition("=")[2]
        if not self.multirun:  # a file may still say that it is a sweep
            hint = "add -m (or --multirun) to run each of them"
            self.several.append(Fault(key, text, "is several values", hint))
        swept = override.value()
        if isinstance(swept, Glob):
            return swept.filter(self._options(key))
        if override.is_discrete_sweep():
            try:
                return list(override.sweep_string_iterator())
            except (ValueError, TypeError) as error:  # a range in steps of 0, for one
                self._add(Fault(key, text, f"is no list of values: {error}", "for example 1,2,3 or range(1,4)"))
                return []
        if self.multirun and not {"hydra/sweeper", "search"} & self.explicit:
            hint = "list the values (1,2,3 or range(1,4)), or choose a sweeper that searches with search=optuna"
            self._add(Fault(key, text, "is a search space and not a list of values", hint))
        if isinstance(swept, IntervalSweep):  # what holds at both of its ends holds between them
            return [str(swept.start), str(swept.end)]
        return []

    def _known_options(self, group: str, values: list[str]) -> list[str]:
        options = self._options(group)
        for value in values:
            if value not in options:
                self._add(unknown_name(group, value, "must be one of " + ", ".join(options), options))
        return [value for value in values if value in options]

    def _options(self, group: str) -> list[str]:
        if not group:
            return []
        return sorted({file.stem for folder in self.folders for file in (folder / group).glob("*.yaml")})

    # ---- all of them together ----------------------------------------------------------------------------

    def _composed_without_culprits(self) -> dict[str, Any] | None:
        """The configuration as plain dicts, composed of every override that does not make it impossible."""
        groups = [lenient for lenient, _ in self.groups]
        try:
            return self._compose([*groups, *(lenient for lenient, _ in self.values)])
        except _COMPOSITION_ERRORS as error:
            together = error
        try:
            base = self._compose(groups)
        except _COMPOSITION_ERRORS as error:
            for lenient, given in self.groups:
                self._refuse_if_culprit([lenient], given)
            if not self.faults:
                self._add(_composition_fault(error, "configuration", None))
            return None
        good = [
            lenient for lenient, given in self.values if not self._refuse_if_culprit([*groups, lenient], given, base)
        ]
        try:
            return self._compose([*groups, *good])
        except _COMPOSITION_ERRORS:
            self._add(_composition_fault(together, "configuration", None))
            return None

    def _compose_as_given(self) -> None:
        """Find what Hydra would refuse, now that nothing else is wrong."""
        groups = [given for _, given in self.groups]
        try:
            self._compose([*groups, *(given for _, given in self.values)])
            return
        except _COMPOSITION_ERRORS as error:
            together = error
        for _, given in self.groups:
            self._refuse_if_culprit([given], given)
        lenient_groups = [lenient for lenient, _ in self.groups]
        for _, given in self.values:
            self._refuse_if_culprit([*lenient_groups, given], given)
        if not self.faults:
            self._add(_composition_fault(together, "configuration", None))

    def _refuse_if_culprit(self, overrides: list[str], given: str, base: dict[str, Any] | None = None) -> bool:
        """Report the override ``given`` if ``overrides``, of which it is the last, cannot be composed."""
        try:
            self._compose(overrides)
        except _COMPOSITION_ERRORS as error:
            self._add_refused(error, given, base)
            return True
        return False

    def _compose(self, overrides: list[str]) -> dict[str, Any]:
        composed = compose(self.config_name, [*overrides, *self.searchpath], return_hydra_config=True)
        self.multirun_by_file = composed.hydra.mode == RunMode.MULTIRUN
        self.multirun = self.multirun or self.multirun_by_file
        self.swept_by_files = dict(composed.hydra.sweeper.get("params") or {})
        with open_dict(composed):
            del composed["hydra"]
        plain = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def _checked(self, plain: dict[str, Any]) -> Any:
        try:
            return self.parse(plain, self.explicit)
        except ConfigError as error:
            for fault in error.faults:
                self._add(fault)
        return None

    def _check_further_values(self, plain: dict[str, Any]) -> None:
        parser = OverridesParser.create()
        by_files = {_key_of(key): text for key, text in self.swept_by_files.items()}
        swept = {key: text for key, text in by_files.items() if self.multirun and key not in self.explicit}
        for key, text in swept.items():
            override = parser.parse_override(f"{key}={text}")
            self.swept |= {key} if override.is_sweep_override() else set()
            self.further += [(key, value, bool(self._options(key))) for value in self._values(key, override)]
        for key, text, is_group in self.further:
            if is_group:
                others = [one for one, _ in [*self.groups, *self.values] if not one.startswith(f"{key}=")]
                try:
                    composed = self._compose([*others, f"{key}={text}"])
                    self.differing.update(_differing(plain, composed))
                    self._checked(composed)
                except _COMPOSITION_ERRORS as error:
                    self._add(_composition_fault(error, key, text))
            else:
                value = as_number(text)
                if value is None:
                    value = parser.parse_override(f"{key}={text}").value()
                self._checked(updated(plain, key, value))

    # ---- faults ------------------------------------------------------------------------------------------

    def _add(self, fault: Fault) -> None:
        self.faults.setdefault(str(fault), fault)

    def _add_refused(self, error: Exception, given: str, base: dict[str, Any] | None) -> None:
        """The fault of an override that cannot be composed, with the nearest name where a name is missing."""
        key, _, value = given.partition("=")
        fault = _composition_fault(error, key.lstrip("+~"), value or None)
        section, _, last = fault.key.rpartition(".")
        node: Any = base
        for part in section.split(".") if section else []:
            node = node.get(part) if isinstance(node, dict) else None
        match = nearest(last, list(node)) if isinstance(node, dict) and last not in node else None
        hint = f"did you mean {section + '.' if section else ''}{match}?" if match else ""
        self._add(Fault(fault.key, fault.value, fault.rule, hint or fault.hint))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """The dotted keys of values in which nested dicts differ."""
    for name in {**one, **other}:
        values = one.get(name), other.get(name)
        if any(isinstance(value, Mapping) for value in values):
            before, after = (value if isinstance(value, Mapping) else {} for value in values)
            yield from _differing(before, after, f"{prefix}{name}.")
        elif values[0] != values[1]:
            yield f"{prefix}{name}"


def _composition_fault(error: Exception, key: str, value: Any) -> Fault:
    """The message of Hydra or OmegaConf, in one line."""
    text = " ".join(str(error).split())
    for plugin, (rule, hint) in _PLUGINS.items():
        if f"Could not find '{plugin}'" in text:
            return Fault(key, value, rule, hint)
    return Fault(key, value, f"cannot be composed: {text}")


def _key_of(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")
