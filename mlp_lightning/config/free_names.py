r"""User-chosen names, such as column names, on a command line: Hydra allows only few characters in a key.

``data.columns={"zip code": {kind: categorical}}`` becomes
``data.columns={\x7a697020636f6465: {kind: 'categorical'}}``, which Hydra reads and merges; :func:`decoded_name` turns
it back into the name.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_ENCODED = re.compile(r"\\x((?:[0-9a-f]{2})+)")


def with_readable_names(override: str) -> str:
    """An override whose value is a mapping, as Hydra can read it; any other unchanged."""
    key, _, value = override.partition("=")
    if not value.startswith("{"):
        return override
    try:
        OverridesParser.create().parse_override(override)
        return override
    except HydraException:
        pass
    try:
        # This loader reads every value as text: a column may be called yes.
        return f"{key}={_in_hydra_syntax(yaml.load(value, yaml.BaseLoader))}"
    except (yaml.YAMLError, UnicodeError):
        return override  # Hydra reports what is wrong with it


def decoded_name(name: str) -> str:
    """The name that :func:`with_readable_names` encoded; any other name unchanged."""
    encoded = _ENCODED.fullmatch(name)
    return name if encoded is None else bytes.fromhex(encoded[1]).decode("utf-8", "replace")


def _in_hydra_syntax(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_encoded_name(str(name))}: {_in_hydra_syntax(one)}" for name, one in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_hydra_syntax, value)) + "]"
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _encoded_name(name: str) -> str:
    readable = re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) and name.lower() not in (
        "null",
        "true",
        "false",
        "nan",
        "inf",
    )
    return name if readable else "\\x" + name.encode().hex()
