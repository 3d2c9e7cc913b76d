"""The page of all options, from the schema and the files of ``conf/``.

``python -m mlp_lightning.config.page`` writes it to ``docs/configuration.md``.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlp_lightning.config import inference, schedules, schema
from mlp_lightning.config.conf_files import conf_dir, conf_file, conf_text, option_names
from mlp_lightning.config.parsing import dataclass_of

PAGE = Path("docs", "configuration.md")

_HEAD = """\
# Configuration

Every option of the schema with its default, and what the files in `conf/` set instead. You set an option with
`key=value` on the command line, or choose a file with `group=option`; `--cfg job` shows what a command trains. Invalid
keys, values and combinations are reported before anything starts, all faults together.

From Python, `train({"data": "iris", "model": {"option": "wide", "dropout": 0.1}}, run_dir)` is the run of
`data=iris model=wide model.dropout=0.1`: a text chooses an option of a group, and a mapping sets keys on top of the
option that it names, or of the one that would be chosen without it.

This page is written by `python -m mlp_lightning.config.page`.
"""
_COMMANDS = {
    "evaluate": inference.EvaluateConfig,
    "explain": inference.ExplainConfig,
    "predict": inference.PredictConfig,
    "export": inference.ExportConfig,
    "report": inference.ReportConfig,
}


def page() -> str:
    """The text of the page."""
    parts = [_HEAD, "## The run\n", *_options(schema.Config, "")]
    for field in dataclasses.fields(schema.Config):
        section = dataclass_of(schema.Config, field.name)
        if field.name == "scheduler":
            parts += ["## `scheduler`\n", *_files("scheduler")]
            for name, one in schedules.SCHEDULES.items():
                parts += [f"### `scheduler={name}`\n", *_section(one, "scheduler.")]
        elif section is not None:
            parts += [f"## `{field.name}`\n", *_section(section, f"{field.name}."), *_files(field.name)]
            parts += _files(f"{field.name}/space")
    parts += ["## `experiment`\n", *_files("experiment"), "## Using a model\n"]
    for name, command in _COMMANDS.items():
        parts += [f"### {name}\n", *_section(command, "", level=4)]
    return "\n".join(parts)


# Classes of the user's own, instead of the options of these sections.
_OWN: dict[type, type] = {
    schema.ModelConfig: schema.OwnModelConfig,
    schema.DataConfig: schema.OwnDataConfig,
    schema.OptimizerConfig: schema.OwnOptimizerConfig,
    schema.CallbacksConfig: schema.OwnCallbackConfig,
}


def _own(cls: type, prefix: str) -> Iterator[str]:
    """The import path of a part of the user's own."""
    own = _OWN.get(cls)
    if own is not None:
        key = f"{prefix}extra.N." if own is schema.OwnCallbackConfig else prefix
        yield f"{inspect.cleandoc(str(own.__doc__))} See [own_parts.md](own_parts.md).\n"
        yield from _options(own, key, ("_target_",))


def _section(cls: type, prefix: str, level: int = 3) -> Iterator[str]:
    """What a section is, its options, and the sections inside it."""
    yield inspect.cleandoc(str(cls.__doc__)).replace("``", "`") + "\n"
    yield from _options(cls, prefix)
    yield from _own(cls, prefix)
    for field in dataclasses.fields(cls):
        inside = dataclass_of(cls, field.name)
        if inside is not None:
            name = f"{prefix}{field.name}" if field.name != "columns" else f"{prefix}{field.name}.NAME"
            default = "" if field.default is dataclasses.MISSING else f", default `{_written(field.default)}`"
            yield f"{'#' * level} `{name}`{default}\n"
            yield from _section(inside, f"{name}.", level)


def _options(cls: type, prefix: str, only: Sequence[str] = ()) -> Iterator[str]:
    rows = []
    for field in dataclasses.fields(cls):
        if "meaning" in field.metadata and (not only or field.name in only):
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            rule = field.metadata["rule"]
            cells = (f"`{prefix}{field.name}`", f"`{_written(default)}`", rule.sentence if rule else "")
            rows.append((*cells, field.metadata["meaning"]))
    yield _table(("key", "default", "rule", "meaning"), rows)


def _files(group: str) -> Iterator[str]:
    """The options of a group: what their files say about themselves, and what they set."""
    if not (conf_dir() / group).is_dir():
        return
    rows = []
    for option in option_names(group):
        lines = [line[2:] for line in _comment(f"{group}/{option}") if "@package" not in line]
        content = conf_file(f"{group}/{option}")
        chosen = [_choice(group, entry) for entry in content.get("defaults", [])]
        values = {name: one for name, one in content.items() if name != "defaults"}
        settings = [word for word in [*chosen, *_settings(values, "")] if word]
        rows.append((f"`{group}={option}`", " ".join(lines), " ".join(f"`{one}`" for one in settings)))
    yield _table(("choice", "", "sets"), rows)


def _comment(name: str) -> Iterator[str]:
    """The lines of comment at the start of a file."""
    for line in conf_text(name).splitlines():
        if not line.startswith("#"):
            return
        yield line


def _choice(group: str, entry: Any) -> str:
    """What an entry of a defaults list chooses."""
    if isinstance(entry, dict):
        return " ".join(
            f"{name.removeprefix('override ').removeprefix('/')}={option}" for name, option in entry.items()
        )
    return f"{group}={entry}" if not entry.startswith("/") else ""


def _settings(plain: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={_written(value)}"


def _written(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
