"""The page: templates, texts, scripts and data in one file that asks no other for anything."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_HERE = Path(__file__).parent
_SCRIPTS = ("network.js", "chart.js", "live.js", "table.js", "sweep.js", "page.js")
# What a page must not hold between tags of a script, and what JavaScript took for the end of a line until 2019.
_ESCAPED = {ord(one): f"\\u{ord(one):04x}" for one in "<>&\u2028\u2029"}


@functools.cache
def texts(lang: str) -> dict[str, str]:
    """All texts of a language."""
    return json.loads((_HERE / "texts" / f"{lang}.json").read_text(encoding="utf-8"))


def page(lang: str, content: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    """The file.

    Args:
        lang: of the texts.
        content: what the templates name; every value is escaped.
        data: what the scripts read, plain.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    of_lang = texts(lang)
    for_scripts = {key: one for key, one in of_lang.items() if key.startswith("js_")}
    script = "\n".join(_source(one) for one in _SCRIPTS)
    style = _source("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none';"
        " form-action 'none'"
    )
    template = environment.get_template("page.html")
    text = template.render(
        **content,
        t=of_lang,
        lang=lang,
        policy=policy,
        script=Markup(script),
        style=Markup(style),
        data=json_markup({**data, "texts": for_scripts, "lang": lang}),
    )
    return text.encode("utf-8", "replace")  # half a character, as names of files may have, is no text


def json_markup(data: Any) -> Markup:
    """Data as JSON that can stand between the tags of a script; numbers that are not finite are ``null``."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone half of a surrogate pair, as in a damaged name, is no UTF-8.
    return Markup(text.translate(_ESCAPED).encode("utf-8", "replace").decode())


def finite(data: Any) -> Any:
    """The same plain data with ``None`` for every number that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): finite(one) for key, one in data.items()}
    return [finite(one) for one in data] if isinstance(data, (list, tuple)) else data


def number(value: Any) -> str:
    """A number as a table shows it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "-" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def _source(name: str) -> str:
    return (_HERE / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
