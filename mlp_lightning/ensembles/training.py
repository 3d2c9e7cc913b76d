"""Trains several runs of one table inside of one folder, as one stack where possible."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlp_lightning.config import Config
from mlp_lightning.errors import CheckpointError, DataError, RunFolderError, TrainingError
from mlp_lightning.runs.checkpoint_files import why_unusable
from mlp_lightning.runs.console import RunConsole, print_error, short_path
from mlp_lightning.runs.files import complete_writes
from mlp_lightning.runs.run_folder import RunFolder, claim, config_hash, is_finished
from mlp_lightning.sweeps.grouping import Grouping, group_runs
from mlp_lightning.sweeps.ledger import folder_lock, identity
from mlp_lightning.sweeps.memory import available_memory
from mlp_lightning.sweeps.progress import SweepProgress
from mlp_lightning.sweeps.sizes import SizesOf
from mlp_lightning.sweeps.worker import Outcome, train_part
from mlp_lightning.tables.fingerprint import differences

if TYPE_CHECKING:
    from mlp_lightning.inference.loading import TrainedModel
    from mlp_lightning.runs.ensembles import SharedPreprocessing
    from mlp_lightning.tables.reading.memory import KeptSource

_SHARE_OF_MEMORY = 0.5
# Inside of the folder: the states of stacks that train, and what says that a process trains there.
_STATES, _LOCK = "stacks", ".lock"
# What its result.json says of a training that has finished.
_KEPT = ("fingerprint", "baseline", "metrics", "steps", "wall_time_s", "weights", "device")


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

    def model(self, outcome: Outcome, sharing: SharedPreprocessing | None = None) -> TrainedModel:
        """What was trained, with the weights that are reported, and the preprocessing of an equal model that shares."""
        from mlp_lightning.inference.loading import TrainedModel, load_model
        from mlp_lightning.networks.ensemble import Ensemble

        path = self.folder / "checkpoints" / f"{outcome.weights}.ckpt"
        model = load_model(path, allow_targets=self.config.allow_targets)
        if sharing is None or isinstance(model.module, Ensemble):
            return model
        return TrainedModel.of(sharing.shared(model.module), model.config, path, model.fingerprint)


class Trainings:
    """Several trainings of the rows of one table.

    Args:
        parts: what to train.
        source: of the rows of all of them.
        what: they are called together, such as ``folds``.
        folder: that they have in common. What an earlier process has finished there is not trained again, and stacks
            that it saved continue.

    Raises:
        ConfigError, DataError: the table cannot be used as one of them asks.
    """

    def __init__(self, parts: Sequence[PartOfRun], source: KeptSource, what: str, folder: Path) -> None:
        self.parts = parts
        self.outcomes: dict[int, Outcome] = {}
        self.steps_made = 0  # by this process
        self._source = source
        self._what = what
        self._states = folder / _STATES
        self._memory = int(available_memory() * _SHARE_OF_MEMORY)
        self._sizes = SizesOf(source)
        for one in parts:
            self._sizes(one.config)

    def describe(self) -> list[str]:
        """What was read, and what is noted of the splits of single trainings; to be shown once."""
        return self._sizes.new_lines((one.name, one.config) for one in self.parts)

    def train(self, console: RunConsole, rows: Mapping[str, Any]) -> bool:
        """Train all of them.

        Args:
            console: where to show what is trained and how far it is.
            rows: fingerprint that the rows must have.

        Returns:
            Whether all have ended; if not, the training was asked to stop.

        Raises:
            DataError: an earlier process trained on other rows.
        """
        for parent in {one.folder.parent for one in self.parts}:
            complete_writes(parent, within=self._states.parent)
        found = ((number, _finished(one, rows)) for number, one in enumerate(self.parts))
        self.outcomes = {number: done for number, done in found if done is not None}
        saved = self._saved_stacks()
        remaining = set(range(len(self.parts))) - {*self.outcomes, *(one for numbers, _ in saved for one in numbers)}
        new = sorted(remaining)
        grouping = group_runs([self.parts[one].config for one in new], self._sizes, self._memory)
        console.line(self._announcement(grouping, sum(len(numbers) for numbers, _ in saved)))
        groups = [*grouping.stacks, *([number] for number, _ in grouping.alone)]
        numbered = [[new[one] for one in group] for group in groups]
        todo = [*saved, *((numbers, self._state_of(numbers)) for numbers in numbered)]
        steps = sum(self._sizes(self.parts[one].config).steps for numbers, _ in todo for one in numbers)
        with SweepProgress(console, len(self.parts) - len(self.outcomes), steps) as progress:
            for numbers, state in todo:
                configs = [self.parts[one].config for one in numbers]
                folders = [self.parts[one].folder for one in numbers]
                for folder in folders:  # of a training that was ended
                    shutil.rmtree(folder, ignore_errors=True)
                train_part(configs, folders, _Progress(self, numbers, progress), state, self._source, rows)
                if any(one.status == "interrupted" for one in self.outcomes.values()):
                    return False
        with contextlib.suppress(OSError):  # there is none, or it keeps what could not be read
            self._states.rmdir()
        return True

    def _state_of(self, numbers: Sequence[int]) -> Path | None:
        """The file for the state of a stack while it trains."""
        if len(numbers) == 1:
            return None
        self._states.mkdir(parents=True, exist_ok=True)
        return self._states / f"{config_hash(self.parts[numbers[0]].config)[:16]}.stack"

    def _saved_stacks(self) -> list[tuple[list[int], Path]]:
        """The stacks that an earlier process left unfinished: the numbers of those that still train, and the file."""
        from mlp_lightning.runs.stack_checkpoints import SavedStack

        hashes = {config_hash(one.config): number for number, one in enumerate(self.parts)}
        found = []
        for file in sorted(self._states.glob("*.stack")):
            try:
                known = [hashes.get(one) for one in SavedStack.read(file).hashes]
            except CheckpointError as error:
                print_error(f"{error} Its networks are trained from the start.")
                file.unlink()
                continue
            # One that is done has ended after the stack was saved.
            numbers = [one for one in known if one is not None and one not in self.outcomes]
            if None not in known and numbers:
                found.append((numbers, file))
        return found

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

    def _announcement(self, grouping: Grouping, continued: int) -> str:
        stacks, stacked = len(grouping.stacks), sum(map(len, grouping.stacks))
        how = "as one stack" if stacks == 1 else f"as {stacks} stacks" if stacks else "one after another"
        if stacked and grouping.alone:
            how = f"{stacked} in {'a stack' if stacks == 1 else f'{stacks} stacks'}"
        reasons = sorted({reason for _, reason in grouping.alone})
        why = f" ({'; '.join(reasons)})" if reasons else ""
        counts = {"done": len(self.outcomes), "continue": continued}
        if earlier := [f"{count} {name}" for name, count in counts.items() if count]:
            how = f"({', '.join(earlier)}{f', the others {how}' if grouping.stacks or grouping.alone else ''})"
        return f"Training {len(self.parts)} {self._what} {how}{why}"

    def models(self) -> list[TrainedModel]:
        """What was trained, in the order of the parts.

        Raises:
            TrainingError: one failed.
        """
        from mlp_lightning.runs.ensembles import SharedPreprocessing

        self.refuse_failed()
        sharing = SharedPreprocessing()
        return [one.model(self.outcomes[number], sharing) for number, one in enumerate(self.parts)]


def _finished(part: PartOfRun, rows: Mapping[str, Any]) -> Outcome | None:
    """What an earlier process left of a training that it finished on these rows; ``None`` if it did not."""
    if identity(part.folder) != config_hash(part.config) or not is_finished(part.folder):
        return None
    content = json.loads(RunFolder(part.folder).result.read_text(encoding="utf-8"))
    if faults := [f"it has no {name}" for name in _KEPT if name not in content]:
        faults = [f"{RunFolder(part.folder).result} is damaged: {faults[0]}"]
    elif fault := why_unusable(part.folder / "checkpoints" / f"{content['weights']}.ckpt"):
        faults = [fault]
    if faults:
        print_error(f"{faults[0].rstrip('.')}. {part.name.capitalize()} is trained from the start.")
        return None
    if changes := differences(content["fingerprint"] or rows, rows):
        raise DataError(
            f"{part.name.capitalize()} in {short_path(part.folder)} was trained on other rows than"
            f" {part.config.data.title} has now: {changes}. Bring the table back as it was, or train anew (leave"
            " auto_resume or continues out)."
        )
    baseline = (content["baseline"] or {}).get("metrics", {})
    facts = content["metrics"], content["steps"], content["wall_time_s"], "", content["weights"]
    return Outcome("finished", *facts, baseline, content["device"])


@contextlib.contextmanager
def claimed(path: Path, config: Config, continues: bool) -> Iterator[RunFolder]:
    """Inside the context, this process alone trains in a folder.

    Args:
        path: the folder.
        config: of the whole run.
        continues: whether an earlier process left it unfinished; else it is claimed.

    Raises:
        RunFolderError: it belongs to another run, has finished, or another process trains in it.
    """
    folder = RunFolder(path)
    if not continues:
        claim(path, config)
    elif identity(path) != config_hash(config) or is_finished(path):
        raise RunFolderError(
            f"{path} is not an unfinished run of this configuration. To begin one, leave continues out."
        )
    try:
        with folder_lock(path / _LOCK):
            if continues:
                folder.result.unlink(missing_ok=True)  # of a process that was asked to stop
            yield folder
    except TimeoutError as error:
        raise RunFolderError(f"Another process trains in {path}. Wait until it ends.") from error


class _Progress:
    """Reports the progress of some of the trainings."""

    def __init__(self, parent: Trainings, numbers: Sequence[int], progress: SweepProgress) -> None:
        self._parent = parent
        self._numbers = numbers
        self._progress = progress

    def steps_made(self, steps: int, members: int) -> None:
        self._parent.steps_made += steps * members
        self._progress.steps_made(steps, members)

    def ended(self, index: int, outcome: Outcome) -> bool:
        number = self._numbers[index]
        self._parent.outcomes[number] = outcome
        self._progress.ended(outcome.status == "failed")
        if outcome.status == "failed":
            print_error(f"{self._parent.parts[number].name} failed: {outcome.error}")
        return outcome.status == "finished"
