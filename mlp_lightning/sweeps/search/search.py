"""One search: batches of trials, each of which trains as a sweep does, until all have trained."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from mlp_lightning.config import Config, SearchConfig
from mlp_lightning.config.idle import has_validation_rows
from mlp_lightning.errors import ConfigError, Fault
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.run_folder import config_hash
from mlp_lightning.sweeps.parts import Runs, loss_of
from mlp_lightning.sweeps.search.methods import Method, Optuna, Random
from mlp_lightning.sweeps.search.pruning import TrialPruner
from mlp_lightning.sweeps.search.space import Space
from mlp_lightning.sweeps.sweep import Sweep

#: In the folder of the sweep: what a command has to have in common to continue it, and the losses that were compared.
ASKED, COMPARED = "search.json", "compared.jsonl"

_OF_COMMAND = ("sweep.", "search", "verbosity=", "auto_resume=", "hydra")

#: Trains jobs by their overrides, of which the first has this number.
Launch = Callable[[Sequence[Sequence[str]], int], Any]


class Search:
    """A search, from its space to its last trial.

    Args:
        sweep: whose runs are the trials.
        config: of the first trial.
        overrides: of the command, with those of its files before.

    Raises:
        ConfigError: the space cannot be searched.
    """

    def __init__(self, sweep: Sweep, config: Config, overrides: Sequence[Override]) -> None:
        self._sweep, self._options = sweep, config.search
        self._space = Space.of(overrides)
        _refuse_small(self._space, config.search)
        self._rule = config.search.rule(has_validation_rows(config.data) and config.data.cv.folds is None)

    def run(self, launch: Launch, processes: int) -> list[Any]:
        """Train the trials.

        Args:
            launch: trains a batch.
            processes: that it spreads a batch over.

        Returns:
            What ``launch`` returned for each batch.

        Raises:
            ConfigError: trials in several processes cannot be compared while they train, or an earlier command searched
                something else in this folder.
        """
        options, sweep = self._options, self._sweep
        pruner = self._pruner(processes)
        self._refuse_other()
        method: Method = (
            Optuna(self._space, options.seed, sweep.folder)
            if options.name == "optuna"
            else Random(self._space, options.seed)
        )
        started, returned, first = time.monotonic(), [], 0
        while first < options.trials and not sweep.ends_here:
            if options.time_limit_s is not None and time.monotonic() - started > options.time_limit_s:
                sweep.console.line(f"search.time_limit_s has passed: {first} of {options.trials} trials were trained")
                break
            points = method.points(first, min(options.batch_size, options.trials - first))
            returned.append(launch([self._space.overrides(one) for one in points], first))
            for number, runs in enumerate(sweep.batch, first):
                status = status_of(runs)
                if status in ("finished", "pruned", "failed"):
                    curve = pruner.curve(_hash_of(runs)) if pruner is not None and status != "failed" else {}
                    method.tell(number, status, loss_of(runs), curve)
            first += len(points)
        return returned

    def _pruner(self, processes: int) -> TrialPruner | None:
        options = self._options
        if self._rule == "none":
            return None
        if processes != 1:
            rule = f"spreads trials over processes, where search.pruner={self._rule} cannot compare them"
            raise ConfigError([Fault("hydra.launcher.n_jobs", processes, rule, "use 1, or search.pruner=none")])
        how: dict[str, Any] = {}
        if options.name == "halving":  # until one is left
            rungs = max(1, int(math.log(options.trials, options.reduction_factor) + 1e-9))
            how = {"rungs": rungs, "asked": ("search.name", "halving")}
        elif options.pruner != "auto":
            how = {"asked": ("search.pruner", options.pruner)}
        journal = self._sweep.folder / COMPARED
        self._sweep.pruner = TrialPruner(self._rule, options.reduction_factor, journal, **how)
        return self._sweep.pruner

    def _refuse_other(self) -> None:
        """Refuse to continue another search: its trials would be compared with those of this one."""
        options = self._options
        # A search of more trials begins with those of a search of fewer, unless all are compared at once.
        names = ["name", "seed", "reduction_factor", *(["trials"] if options.name == "halving" else [])]
        asked: dict[str, Any] = {f"search.{name}": getattr(options, name) for name in names}
        asked |= {"search.pruner": self._rule, "search/space": self._space.describe(), "overrides": self._fixed()}
        file = self._sweep.folder / ASKED
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as opened:
                opened.write(json.dumps(asked, indent=1).encode())
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        faults = [
            Fault(key, value, f"was {before.get(key)!r} when this search began", "ask for the same, or begin anew")
            for key, value in asked.items()
            if before.get(key) != value
        ]
        if faults:
            raise ConfigError(faults)

    def _fixed(self) -> list[str]:
        """The overrides that all trials have in common, without those that say how the command proceeds."""
        return sorted(one for one in self._space.fixed if not one.lstrip("+").startswith(_OF_COMMAND))


def status_of(runs: Runs) -> str:
    """How a job ended: as the worst of its folds."""
    found = {
        record.status if record is not None else "unended" if run.outcome is None else run.outcome.status
        for run, record in runs
    }
    return next((one for one in ("failed", "interrupted", "unended", "pruned") if one in found), "finished")


def _hash_of(runs: Runs) -> str:
    config = runs[0][0].config
    assert config is not None, "it has not failed"
    return config_hash(config)


def _refuse_small(space: Space, options: SearchConfig) -> None:
    if not space.dimensions:
        rule = "has no space: every key has one value"
        hint = "give one, for example 'optimizer.lr=tag(log, interval(0.001, 1))', or search/space=best"
        raise ConfigError([Fault("search.name", options.name, rule, hint)])
    if options.name != "optuna" and space.size < options.trials:
        rule = f"are more than the {space.size:,.0f} points of the space"
        hint = f"set it to {space.size:.0f} or less, or leave search out: then every combination is trained"
        raise ConfigError([Fault("search.trials", options.trials, rule, hint)])
