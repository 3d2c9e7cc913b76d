"""Which keys of the configuration differ between runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlp_lightning.sweeps.records import RunRecord, configured

FOLD, SEED, SPLIT = "data.cv.fold", "seed", "data.split_seed"
# Runs that differ in these alone repeat one combination, on other rows or with other initial weights.
REPETITIONS = {FOLD: "folds", SEED: "seeds", SPLIT: "splits", "data.sample_seed": "samples"}
# The name of a run, its output and the checkpoint that it continues from do not define what is trained.
_NEVER_SHOWN = ("ckpt_path", "name", "verbosity")
_NEVER_SHOWN_BELOW = ("hydra", "search", "sweep")
# Keys that differ between configurations because another key was swept.
_NOT_SWEPT_ALONE = ("data.suggested_lr", "logger", "trainer.print_every_n_steps")


def values_of_differing_keys(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """For each record the values of the keys that differ between them.

    In one sweep these are keys of the command, which decide all others. Several sweeps may differ in any key.
    """
    given = [given_values(record) for record in records]
    if len({record.sweep for record in records}) == 1 and any(given):
        keys = dict.fromkeys(key for one in given for key in one if is_shown(key))
        table = [{key: _value(record, one, key) for key in keys} for record, one in zip(records, given, strict=True)]
    else:
        flat = [flat_config(record.config) for record in records]
        table = [{key: value for key, value in one.items() if _is_shown_alone(key)} for one in flat]
    for row, record in zip(table, records, strict=True):
        repetitions = {key: configured(record.config, key) for key in REPETITIONS}
        row.update({key: value for key, value in repetitions.items() if value is not None and key not in row})
    keys = dict.fromkeys(key for row in table for key in row)
    differing = differing_keys([{key: row.get(key, "") for key in keys} for row in table])
    return [{key: row.get(key, "") for key in differing} for row in table]


def differing_keys(table: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Those of the keys, which all rows have, whose values differ."""
    keys = table[0] if table else ()
    return tuple(key for key in keys if len({value_text(row[key]) for row in table}) > 1)


def value_text(value: Any) -> str:
    """A value as written in an override: ``null``, ``true``, ``[32,16]``, ``0.1``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{value_text(one)}' for key, one in value.items())}}}"
    return repr(value) if isinstance(value, float) else str(value)


def given_values(record: RunRecord) -> dict[str, str]:
    """``{key: value as written}`` of the overrides, in their order."""
    return {key_of(one): one.partition("=")[2] for one in record.overrides}


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def is_shown(key: str) -> bool:
    """Whether a key says what is trained."""
    return key not in _NEVER_SHOWN and key.replace("/", ".").partition(".")[0] not in _NEVER_SHOWN_BELOW


def _is_shown_alone(key: str) -> bool:
    return is_shown(key) and not any(key == one or key.startswith(f"{one}.") for one in _NOT_SWEPT_ALONE)


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flat_config(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _value(record: RunRecord, given: Mapping[str, str], key: str) -> Any:
    """The value of a key in the run; for a group the chosen option, empty if none was chosen.

    The configuration has priority: there 1e-3 and 0.001 are equal, and a run without the override has a value too.
    """
    value: Any = record.config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return given.get(key, "")
        value = value[name]
    return given.get(key, "") if isinstance(value, Mapping) else value


def values_of(records: Iterable[RunRecord], key: str) -> list[Any]:
    """The different values of a key in the configurations; numbers in their order."""
    values = {value_text(value): value for one in records if (value := configured(one.config, key)) is not None}
    return sorted(values.values(), key=lambda value: (isinstance(value, str), value))
