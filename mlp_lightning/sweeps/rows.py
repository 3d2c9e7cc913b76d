"""Whether the runs of a sweep have the rows of those before them: runs on different rows cannot be compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_lightning.config import Config, OwnDataConfig, parse_complete
from mlp_lightning.config.plain import plain
from mlp_lightning.errors import DataError, MLPLightningError
from mlp_lightning.runs.console import short_path
from mlp_lightning.runs.run_folder import config_hash
from mlp_lightning.sweeps.records import RunRecord
from mlp_lightning.sweeps.sizes import SizesOf

if TYPE_CHECKING:
    from mlp_lightning.runs.stack_checkpoints import SavedStack


# Runs that a message names, the others are counted.
_MOST_NAMED = 5


class RowsOfSweep:
    """The rows of the runs of a sweep, as they were when they were read first.

    Args:
        sizes: reads them.
        folder: of the sweep, for messages.

    Attributes:
        are_refused: whether rows have changed since an earlier command.
    """

    def __init__(self, sizes: SizesOf, folder: Path) -> None:
        self.are_refused = False
        self._sizes = sizes
        self._folder = folder

    def fingerprint(self, config: Config) -> Mapping[str, Any] | None:
        """That of the rows of a run; ``None`` if they cannot be used, by which the run itself will fail."""
        try:
            return self._sizes.fingerprint(config)
        except MLPLightningError:
            return None

    def compare_stack(self, file: Path, saved: SavedStack, config: Config) -> None:
        """Compare the rows of a saved stack with those that one of its members has now.

        Raises:
            DataError: they differ.
        """
        from mlp_lightning.tables.fingerprint import differences

        now = self.fingerprint(config)
        changes = "" if now is None else differences(saved.rows_of(config_hash(config)), now)
        if changes:
            raise self._refusal(f"{short_path(file)} trained on other rows than {_name(config)} has now: {changes}")

    def compare_records(self, configs: Iterable[Config], records: Iterable[RunRecord]) -> None:
        """Compare the rows of runs with those of the runs of earlier commands on the same tables.

        Raises:
            DataError: they differ.
        """
        from mlp_lightning.tables.fingerprint import differences

        tables = {_tables(one): one.allow_targets for one in configs}
        changed: dict[str, list[RunRecord]] = {}
        for record in records:
            if record.status not in ("finished", "pruned") or record.fingerprint is None:
                continue
            config = parse_complete(record.config, is_stored=True)
            changes = ""
            if _tables(config) in tables:
                allowed = dataclasses.replace(config, allow_targets=tables[_tables(config)])
                changes = differences(record.fingerprint, self._sizes.fingerprint(allowed))
            if changes:
                changed.setdefault(f"other rows than {_name(config)} has now: {changes}", []).append(record)
        for rows, of_rows in changed.items():
            names = [_place(one.folder, self._folder) for one in of_rows]
            more = len(names) - _MOST_NAMED
            shown = ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            which = f"{'Run' if len(names) == 1 else 'Runs'} {shown}"
            raise self._refusal(f"{which} of {short_path(self._folder)} trained on {rows}")

    def _refusal(self, reason: str) -> DataError:
        self.are_refused = True
        return DataError(
            f"{reason}. Runs on different rows cannot be compared. Bring the table back as it was, or start a new sweep"
            " (leave sweep.resume out, choose another sweep.name)."
        )


def _place(run: Path, sweep: Path) -> str:
    """Which run of a sweep it is: its job, and the fold."""
    whole, folder = run.absolute(), sweep.absolute()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else run.name


def _tables(config: Config) -> tuple[str | None, ...]:
    data = config.data
    arguments = json.dumps(plain(data.options), sort_keys=True) if isinstance(data, OwnDataConfig) else None
    return data.name, data.title, data.val_path, data.test_path, arguments


def _name(config: Config) -> str:
    return config.data.title
