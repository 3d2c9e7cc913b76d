r"""User-chosen names, such as column names, on a command line: Hydra allows only few characters in a key.

``data.columns={"zip code": {kind: categorical}}`` becomes
``data.columns={\x7a697020636f6465: {kind: 'categorical'}}``, which Hydra reads and merges; :func:`decoded_name` turns
it back into the name.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_COLUMNS = "data.columns."
_KEY = "__hex_"  # a key may hold less than the name in a mapping: no backslash
_ENCODED = re.compile(rf"(?:\\x|{_KEY})((?:[0-9a-f]{{2}})+)")


def column_option(name: str, option: str, value: str) -> str:
    """What to type, in a shell, to set an option of a column.

    >>> print(column_option("age", "kind", "ignored"), column_option("my ratio", "kind", "ignored"))
    data.columns.age.kind=ignored 'data.columns={"my ratio": {kind: ignored}}'
    """
    is_plain = re.fullmatch(r"[\w%/.:+-]+", value)
    if not _is_plain(name):
        quoted = value if is_plain and not value.startswith("%") else json.dumps(value, ensure_ascii=False)
        return shlex.quote(f"data.columns={{{json.dumps(name, ensure_ascii=False)}: {{{option}: {quoted}}}}}")
    return f"{_COLUMNS}{name}.{option}={value}" if is_plain else shlex.quote(f'{_COLUMNS}{name}.{option}="{value}"')


def hydra_text(text: str) -> str:
    r"""A text as Hydra's grammar has it, quoted: backslashes count only before a quote.

    >>> print(hydra_text("it's a, b"))
    'it\'s a, b'
    """
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def path_option(key: str, path: str) -> str:
    """What to type to name a file, before it is quoted for a shell.

    >>> path_option("ckpt_path", "runs/a-1/best.ckpt")
    'ckpt_path=runs/a-1/best.ckpt'
    """
    return f"{key}={path if re.fullmatch(r'[A-Za-z0-9_./-]+', path) else hydra_text(path)}"


def with_readable_names(override: str) -> str:
    """An override whose value is a mapping, or whose key has the name of a column in it, as Hydra can read it.

    An option of a column has no further keys, so that all before the last dot is the name.
    """
    key, _, value = override.partition("=")
    name, dot, option = key.removeprefix(_COLUMNS).rpartition(".")
    if dot and key.startswith(_COLUMNS) and not _is_plain(name):
        return f"{_COLUMNS}{_KEY}{name.encode().hex()}.{option}={value}"
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
    return name if _is_plain(name) else "\\x" + name.encode().hex()


def _is_plain(name: str) -> bool:
    """Whether Hydra reads a name as a text, without quotes."""
    is_word = re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) is not None
    return is_word and name.lower() not in ("null", "true", "false", "nan", "inf")
