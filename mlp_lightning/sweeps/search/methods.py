"""How the points of a search are drawn: at random, or by Optuna from what earlier trials say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlp_lightning.sweeps.search.pruning import cut_to_lines
from mlp_lightning.sweeps.search.space import Space, Values, Whole, random_points, seed_of

if TYPE_CHECKING:
    import optuna  # pyright: ignore[reportMissingImports]

STUDY = "optuna.journal"


class Method(Protocol):
    """Draws points, and hears what became of them."""

    def points(self, first: int, count: int) -> list[dict[str, str]]:
        """Those of the trials with the numbers from ``first`` on."""
        ...

    def tell(self, number: int, status: str, loss: float, curve: Mapping[float, float]) -> None:
        """A trial has ended.

        Args:
            number: of it.
            status: ``finished``, ``pruned`` or ``failed``.
            loss: that ranks it, if it finished.
            curve: validation losses by epochs, as far as they were compared.
        """
        ...


class Random:
    """Independent points."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def points(self, first: int, count: int) -> list[dict[str, str]]:
        return random_points(self._space, self._seed, first + count)[first:]

    def tell(self, number: int, status: str, loss: float, curve: Mapping[float, float]) -> None:
        """Nothing follows from it."""


class Optuna:
    """Optuna's TPE, by ask and tell. Its study is a journal in the folder of the sweep.

    A trial is drawn with a generator that its number decides, from the trials before it: a study that continues after a
    kill draws the same.

    Args:
        space: to search.
        seed: decides it, with what was reported.
        folder: of the sweep.
    """

    def __init__(self, space: Space, seed: int, folder: Path) -> None:
        import optuna  # pyright: ignore[reportMissingImports]
        from optuna.storages import JournalStorage  # pyright: ignore[reportMissingImports]
        from optuna.storages.journal import JournalFileBackend  # pyright: ignore[reportMissingImports]

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna: Any = optuna
        self._space, self._seed = space, seed
        file = folder / STUDY
        cut_to_lines(file)
        lock: Any = _NoLock()
        storage = JournalStorage(JournalFileBackend(str(file), lock))
        self._study = optuna.create_study(
            study_name="search", storage=storage, direction="minimize", load_if_exists=True
        )

    def points(self, first: int, count: int) -> list[dict[str, str]]:
        return [self._point(number) for number in range(first, first + count)]

    def _point(self, number: int) -> dict[str, str]:
        known = self._study.get_trials(deepcopy=False)
        if number < len(known) and known[number].state.is_finished():
            params = known[number].params
            return {key: _text(params[key]) for key in self._space.dimensions}
        sampler = self._optuna.samplers.TPESampler(seed=seed_of(self._seed, number))
        self._study.sampler = sampler
        if number < len(known):  # a process was killed that had asked for it
            trial = self._optuna.trial.Trial(self._study, known[number]._trial_id)
        else:
            trial = self._study.ask()
            assert trial.number == number, "trials are asked for one after another"
        return {key: _text(_suggested(trial, key, one)) for key, one in self._space.dimensions.items()}

    def tell(self, number: int, status: str, loss: float, curve: Mapping[float, float]) -> None:
        known = self._study.get_trials(deepcopy=False)[number]
        if known.state.is_finished():
            return
        trial = self._optuna.trial.Trial(self._study, known._trial_id)
        for epochs, value in curve.items():
            if round(epochs) not in known.intermediate_values:
                trial.report(value, round(epochs))
        states = self._optuna.trial.TrialState
        if status == "finished" and math.isfinite(loss):
            self._study.tell(number, loss)
        else:
            self._study.tell(number, state=states.PRUNED if status == "pruned" else states.FAIL)


def _suggested(trial: optuna.Trial, key: str, one: Any) -> Any:
    if isinstance(one, Values):
        return trial.suggest_categorical(key, one.texts)
    if isinstance(one, Whole):
        return trial.suggest_int(key, one.low, one.high, step=one.step, log=one.log)
    return trial.suggest_float(key, one.low, one.high, log=one.log)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


class _NoLock:
    """The sweep keeps other processes out of its folder, and a lock of Optuna's outlives a process that is killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
