"""Checks the overrides of a command line, all of them at once, before Hydra runs anything.

Hydra stops at the first thing it cannot do. Here every override is looked at by itself first, then the
configuration is composed with whatever may be composed, and the schema checks the outcome; so one attempt
shows every fault.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_lightning.config import schema
from mlp_lightning.config.conf_files import conf_dir
from mlp_lightning.config.parsing import nearest, parse_config, unknown_name
from mlp_lightning.errors import ConfigError, Fault

_NO_CHOICE = ("null", "None", "")


def check_overrides(
    overrides: Sequence[str], *, multirun: bool = False, config_name: str = "train", config_dir: Path | None = None
) -> schema.Config:
    """Compose and check the configuration that ``overrides`` ask for.

    For a sweep, every swept value is checked, each with the first value of the other swept keys.

    Args:
        overrides: as given on the command line.
        multirun: whether several values per key are allowed.
        config_name: the primary configuration file.
        config_dir: a further folder with configuration files, searched first.

    Returns:
        The configuration; of the first run if it is a sweep.

    Raises:
        ConfigError: with every fault that was found.
    """
    return _Check(overrides, multirun, config_name, config_dir).run()


def explicit_keys(overrides: Iterable[str]) -> frozenset[str]:
    """The dotted keys that overrides set."""
    return frozenset(one.split("=", 1)[0].lstrip("+~") for one in overrides)


class _Check:
    def __init__(self, overrides: Sequence[str], multirun: bool, config_name: str, config_dir: Path | None) -> None:
        self.overrides = overrides
        self.multirun = multirun
        self.config_name = config_name
        self.folders = [conf_dir()] if config_dir is None else [config_dir, conf_dir()]
        self.explicit = explicit_keys(overrides)
        self.faults: dict[str, Fault] = {}
        self.composable: list[str] = []
        self.searchpath = [] if config_dir is None else [f"hydra.searchpath=[file://{config_dir.resolve()}]"]
        self.more_values: list[tuple[str, str]] = []
        self.more_options: list[tuple[str, str]] = []

    def run(self) -> schema.Config:
        for one in self._parsed():
            self._look_at(one)
        config = None
        with initialize_config_dir(version_base=None, config_dir=str(conf_dir()), job_name="train"):
            composed = self._compose(self.composable)
            if composed is not None:
                config = self._checked(composed)
                self._check_further_values(composed)
        if self.faults or config is None:
            raise ConfigError(self.faults.values())
        return config

    def _parsed(self) -> Iterable[Override]:
        parser = OverridesParser.create()
        for text in self.overrides:
            try:
                yield parser.parse_override(text)
            except HydraException as error:
                key, _, value = text.partition("=")
                rule = f"cannot be read as KEY=VALUE: {str(error).splitlines()[0]}"
                self._add(Fault(key, value, rule, "quote a value with special characters: 'key=\"value\"'"))

    def _look_at(self, override: Override) -> None:
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            # A single composition knows one value; Hydra itself checks its own options.
            if not override.is_sweep_override() and override.input_line is not None:
                self.composable.append(override.input_line)
            return
        if override.is_delete():
            self.composable.append(str(override.input_line))
            return
        values = self._values(key, override)
        if not values:
            return
        if "." not in key and self._options(key):
            self._choose(key, override, values)
        else:
            # With ++ Hydra takes unknown keys too, and the schema reports all of them.
            self.composable.append(f"++{key}={values[0]}")
            self.more_values += [(key, value) for value in values[1:]]

    def _values(self, key: str, override: Override) -> list[str]:
        """The values of an override as text; several only in a sweep."""
        if not override.is_sweep_override():
            return [override.get_value_element_as_str()]
        if not self.multirun:
            text = override.get_value_element_as_str()
            self._add(Fault(key, text, "is several values", "add -m (or --multirun) to run each of them"))
            return []
        if not override.is_discrete_sweep():
            return []
        return list(override.sweep_string_iterator())

    def _choose(self, group: str, override: Override, values: list[str]) -> None:
        options = self._options(group)
        good = []
        for value in values:
            if value in options or value in _NO_CHOICE:
                good.append(value)
            else:
                self._add(unknown_name(group, value, "must be one of " + ", ".join(options), options))
        if good:
            package = f"@{override.package}" if override.package else ""
            self.composable.append(f"{group}{package}={good[0]}")
            self.more_options += [(group, value) for value in good[1:]]

    def _options(self, group: str) -> list[str]:
        files = [file for folder in self.folders for file in (folder / group).glob("*.yaml")]
        return sorted({file.stem for file in files})

    def _compose(self, overrides: list[str]) -> DictConfig | None:
        try:
            return compose(self.config_name, overrides + self.searchpath)
        except (HydraException, OmegaConfBaseException) as error:
            self._add(_composition_fault(error, self.overrides))
            return None

    def _checked(self, composed: DictConfig) -> schema.Config | None:
        try:
            plain = OmegaConf.to_container(composed, resolve=True)
            assert isinstance(plain, dict)
            return parse_config({str(key): value for key, value in plain.items()}, self.explicit)
        except ConfigError as error:
            for fault in error.faults:
                self._add(fault)
        except OmegaConfBaseException as error:
            self._add(_composition_fault(error, self.overrides))
        return None

    def _check_further_values(self, composed: DictConfig) -> None:
        parser = OverridesParser.create()
        for key, text in self.more_values:
            other = copy.deepcopy(composed)
            OmegaConf.set_struct(other, False)
            OmegaConf.update(other, key, parser.parse_override(f"{key}={text}").value(), force_add=True)
            self._checked(other)
        for group, option in self.more_options:
            others = [one for one in self.composable if not one.startswith(f"{group}=")]
            recomposed = self._compose([*others, f"{group}={option}"])
            if recomposed is not None:
                self._checked(recomposed)

    def _add(self, fault: Fault) -> None:
        self.faults.setdefault(str(fault), fault)


def _composition_fault(error: Exception, overrides: Collection[str]) -> Fault:
    """What Hydra or OmegaConf could not compose, in one line, under the override that it names."""
    message = " ".join(str(error).split())
    guilty = next((one for one in overrides if one.split("=", 1)[0].lstrip("+~") in message), "")
    key, _, value = guilty.partition("=")
    key = key.lstrip("+~") or "configuration"
    hint = ""
    if "=" not in guilty and guilty:
        known = nearest(key, list(schema.Config.__dataclass_fields__))
        hint = f"did you mean {known}?" if known else ""
    return Fault(key, value or None, f"cannot be composed: {message}", hint)
