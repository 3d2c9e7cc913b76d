"""Which sweeps are packed, and what says which runs theirs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_lightning.config import Config
from mlp_lightning.runs.console import RunConsole, short_path
from mlp_lightning.runs.packed.reading import FOLDER
from mlp_lightning.sweeps.parts import Part, SweepRun, config_of

if TYPE_CHECKING:
    from mlp_lightning.runs.packed.claims import Claim

# From so many runs on their folders take longer than training small networks.
PACKED_ABOVE = 4_000


def is_packed(store: str, runs: int, has_folds: bool) -> bool:
    """Whether the runs of stacks are packed: a function of the configuration and the number of runs alone.

    Args:
        store: ``sweep.store``.
        runs: in one batch.
        has_folds: whether one of them is a cross-validation, whose folds have folders.
    """
    return store == "packed" or (store == "auto" and runs > PACKED_ABOVE and not has_folds)


def packed_folder(store: str, sweep: Path, composed: Sequence[Config | Exception], console: RunConsole) -> Path | None:
    """Where the runs of a batch are packed; ``None``: they have folders.

    Args:
        store: ``sweep.store``.
        sweep: the folder of the sweep.
        composed: the configurations of the runs, or why they are refused.
        console: where a choice is announced.
    """
    has_folds = any(isinstance(one, Config) and one.data.cv.trains_all for one in composed)
    if not is_packed(store, len(composed), has_folds):
        return None
    folder = sweep / FOLDER
    if store == "auto":
        console.line(
            f"More than {PACKED_ABOVE:,} runs: those of stacks are packed in {short_path(folder)}. mlp-unpack makes"
            " the folder of a run, sweep.store=folders those of all."
        )
    return folder


def claim_packed(parts: Sequence[Part], sweep: Path) -> None:
    """Write down what the packed runs of these parts are.

    Args:
        parts: before any of them is trained.
        sweep: the folder of the sweep.
    """
    runs = [run for part in parts if part.packed is not None for run in part.runs]
    if runs:
        from mlp_lightning.runs.packed.claims import write_claims  # Parquet takes a while to import

        write_claims(sweep / FOLDER, [_claim_of(run, sweep) for run in runs])


def _claim_of(run: SweepRun, sweep: Path) -> Claim:
    from mlp_lightning.runs.packed.claims import Claim

    record = run.job.record
    texts = {} if record is None else record.texts(run.folder)
    subdir = record.output_subdir if record is not None and texts else None
    name = run.folder.relative_to(sweep).as_posix()
    return Claim(name, config_of(run).sections(), run.job.overrides, subdir or "", texts)
