"""Trains several runs of one table inside of one folder, as one stack where possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlp_lightning.config import Config
from mlp_lightning.errors import TrainingError
from mlp_lightning.runs.console import RunConsole, print_error
from mlp_lightning.sweeps.grouping import Grouping, group_runs
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.progress import SweepProgress
from mlp_lightning.sweeps.sizes import SizesOf
from mlp_lightning.sweeps.worker import Outcome, train_part

if TYPE_CHECKING:
    from mlp_lightning.inference.loading import TrainedModel
    from mlp_lightning.tables.reading.memory import KeptSource

_SHARE_OF_MEMORY = 0.5


class PartOfRun(NamedTuple):
    """One of several trainings that belong together.

    Attributes:
        name: for messages, such as ``fold 3``.
        config: what to train.
        folder: its run folder, not claimed yet.
    """

    name: str
    config: Config
    folder: Path

    def model(self, outcome: Outcome) -> TrainedModel:
        """What was trained, with the weights that are reported."""
        from mlp_lightning.inference.loading import load_model

        path = self.folder / "checkpoints" / f"{outcome.weights}.ckpt"
        return load_model(path, allow_targets=self.config.allow_targets)


class Trainings:
    """Several trainings of the rows of one table.

    Args:
        parts: what to train.
        source: of the rows of all of them.
        what: they are called together, such as ``folds``.

    Raises:
        ConfigError, DataError: the table cannot be used as one of them asks.
    """

    def __init__(self, parts: Sequence[PartOfRun], source: KeptSource, what: str) -> None:
        self.parts = parts
        self.outcomes: dict[int, Outcome] = {}
        self._source = source
        self._what = what
        self._sizes = SizesOf(source)
        self._steps = sum(self._sizes(one.config).steps for one in parts)

    def train(self, console: RunConsole, rows: Mapping[str, Any]) -> bool:
        """Train all of them.

        Args:
            console: where to show what is trained and how far it is.
            rows: fingerprint that the rows must have.

        Returns:
            Whether all have ended; if not, the training was asked to stop.
        """
        configs, folders = [one.config for one in self.parts], [one.folder for one in self.parts]
        grouping = group_runs(configs, self._sizes, int(available_memory() * _SHARE_OF_MEMORY))
        console.line(self._announcement(grouping))
        with SweepProgress(console, len(self.parts), self._steps) as progress:
            for numbers in [*grouping.stacks, *([number] for number, _ in grouping.alone)]:
                of_part = [configs[one] for one in numbers], [folders[one] for one in numbers]
                train_part(*of_part, _Progress(self, numbers, progress), source=self._source, rows=rows)
                if self._is_interrupted:
                    return False
        return True

    def refuse_failed(self) -> None:
        """Go no further if one failed.

        Raises:
            TrainingError: saying which, and why.
        """
        failed = {number: one.error for number, one in self.outcomes.items() if one.status == "failed"}
        if failed:
            number, error = next(iter(failed.items()))
            name = self.parts[number].name.capitalize()
            raise TrainingError(f"{name} failed ({len(failed)} of {len(self.parts)} did): {error}")

    @property
    def _is_interrupted(self) -> bool:
        return any(one.status == "interrupted" for one in self.outcomes.values())

    def _announcement(self, grouping: Grouping) -> str:
        stacks, stacked = len(grouping.stacks), sum(map(len, grouping.stacks))
        how = "as one stack" if stacks == 1 else f"as {stacks} stacks" if stacks else "one after another"
        if stacked and grouping.alone:
            how = f"{stacked} in {'a stack' if stacks == 1 else f'{stacks} stacks'}"
        reasons = sorted({reason for _, reason in grouping.alone})
        why = f" ({'; '.join(reasons)})" if reasons else ""
        return f"Training {len(self.parts)} {self._what} {how}{why}"

    def models(self) -> list[TrainedModel]:
        """What was trained, in the order of the parts.

        Raises:
            TrainingError: one failed.
        """
        self.refuse_failed()
        return [one.model(self.outcomes[number]) for number, one in enumerate(self.parts)]


class _Progress:
    """Reports the progress of some of the trainings."""

    def __init__(self, parent: Trainings, numbers: Sequence[int], progress: SweepProgress) -> None:
        self._parent = parent
        self._numbers = numbers
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._progress.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        number = self._numbers[index]
        self._parent.outcomes[number] = outcome
        self._progress.ended(outcome.status == "failed")
        if outcome.status == "failed":
            print_error(f"{self._parent.parts[number].name} failed: {outcome.error}")
        return outcome.status == "finished"
