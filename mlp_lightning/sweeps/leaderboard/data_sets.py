"""Which runs can be compared at all: those that predict the same from the same rows, held out in the same way."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlp_lightning.sweeps.leaderboard.keys import differing_keys, value_text
from mlp_lightning.sweeps.records import RunRecord, configured

#: Where the rows of a run are. The rows themselves decide, as files are moved, copied and overwritten.
PATHS = ("data.path", "data.val_path", "data.test_path")
# Those of a function of the user's own that returns the rows.
_ARGUMENTS = "arguments"
# What is predicted from which rows, and how they are held out: the losses of other rows say nothing about these.
_KEYS = (
    *("data.name", "data._target_", "data.target", "task", "data.samples", "data.noise", "data.bits"),
    *("data.split_column", "data.group_column", "data.time_column", _ARGUMENTS),
    *("data.cv.folds", "data.cv.held_out_as", "preset.name"),
)
# Of runs of versions that did not know the option.
_BEFORE = {"data.cv.held_out_as": "test", "preset.name": "default"}


@dataclasses.dataclass
class DataSet:
    """Runs that can be compared.

    Attributes:
        records: those whose rows are known come first.
        name: of which no two data sets have the same.
        has_changed: whether other runs have a table of the same path with other rows.
    """

    records: list[RunRecord]
    name: str = ""
    has_changed: bool = False


def data_sets(records: Iterable[RunRecord]) -> list[DataSet]:
    """The data sets of runs, in the order of the runs.

    A run whose rows are not known, as it failed before it read them, belongs to those that name the same table.
    """
    found: list[DataSet] = []
    given = list(records)
    for record in (one for one in given if one.fingerprint is not None):
        _add(record, next((one for one in found if _have_same_rows(one.records, record)), None), found)
    for record in (one for one in given if one.fingerprint is None):
        alike = [one for one in found if any(_named(other) == _named(record) for other in one.records[:1])]
        alike += [one for one in found if any(_named(other) == _named(record) for other in one.records[1:])]
        of_sweep = (one for one in alike if any(other.sweep == record.sweep for other in one.records))
        _add(record, next(of_sweep, alike[0] if alike else None), found)
    order = {id(record): position for position, record in enumerate(given)}
    found.sort(key=lambda one: min(order[id(record)] for record in one.records))
    _set_names(found)
    return found


def _add(record: RunRecord, to: DataSet | None, found: list[DataSet]) -> None:
    if to is None:
        found.append(DataSet([record]))
    else:
        to.records.append(record)


def _have_same_rows(records: Sequence[RunRecord], record: RunRecord) -> bool:
    if _values(records[0], _KEYS) != _values(record, _KEYS):
        return False
    sample = configured(record.config, "data.sample_seed")
    # Other samples of a synthetic data set have other rows by design.
    of_sample = (one for one in records if configured(one.config, "data.sample_seed") == sample)
    other = next(of_sample, None)
    if other is None or other.fingerprint == record.fingerprint:
        return True
    if _values(other, PATHS) == _values(record, PATHS):
        return not _changes_of_a_table(other, record)
    from mlp_lightning.tables.fingerprint import differences

    return not differences(other.fingerprint or {}, record.fingerprint or {})


def _changes_of_a_table(one: RunRecord, other: RunRecord) -> bool:
    """Whether a table has other rows than before, whatever columns of it are read, and as what."""
    then, now = one.fingerprint or {}, other.fingerprint or {}
    wanted = [configured(record.config, "data.columns") or {} for record in (one, other)]
    for name in then.keys() & now.keys():
        if then[name]["rows"] != now[name]["rows"]:
            return True
        before, after = then[name]["columns"], now[name]["columns"]
        common = [key for key in before.keys() & after.keys() if wanted[0].get(key) == wanted[1].get(key)]
        if not common or any(before[key] != after[key] for key in common):
            return True
    return False


def _named(record: RunRecord) -> tuple[str, ...]:
    return _values(record, (*_KEYS, *PATHS))


def _values(record: RunRecord, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(value_text(_value(record, key)) for key in keys)


def _value(record: RunRecord, key: str) -> Any:
    if key != _ARGUMENTS:
        value = configured(record.config, key)
        return _BEFORE.get(key) if value is None else value
    section: Any = record.config.get("data", {})
    if "_target_" not in section:
        return {}
    from mlp_lightning.config.schema import OwnDataConfig  # imports Hydra, which a leaderboard does without

    return {name: section[name] for name in sorted(section.keys() - OwnDataConfig.__dataclass_fields__.keys())}


def _set_names(found: Sequence[DataSet]) -> None:
    """Name every data set by its table, and by the options or the rows in which those of one name differ."""
    alike: dict[str, list[DataSet]] = {}
    for one in found:
        config = one.records[0].config
        path, own = configured(config, "data.path"), configured(config, "data._target_")
        one.name = Path(path).name if path else str(own or configured(config, "data.name"))
        alike.setdefault(one.name, []).append(one)
    for several in alike.values():
        keys = (*_KEYS, *PATHS)
        table = [dict(zip(keys, _named(one.records[0]), strict=True)) for one in several]
        details = differing_keys(table)
        for one, row in zip(several, table, strict=True):
            one.name = ", ".join([one.name, *(f"{key}={row[key]}" for key in details)])
    for one in found:
        changed = [other for other in found if other.name == one.name]
        if len(changed) > 1:
            rows = [(other.records[0].fingerprint or {}).get("data", {}) for other in changed]
            counts = [row.get("rows") for row in rows]
            for other, row, count in zip(changed, rows, counts, strict=True):
                digest = "" if counts.count(count) == 1 else f" {str(row.get('as_set'))[:8]}"
                other.name += f" ({count:,} rows{digest})" if count is not None else " (rows not known)"
                other.has_changed = True
