"""Which trials of a search leave before their end: successive halving, Hyperband, and the median rule.

Trials are compared after equally many epochs of equally long trainings, and never otherwise. What was compared is kept
in a file, so that a search that continues after a kill decides the same.

The members of a stack reach a validation together, and are compared with each other at once, as in synchronous
successive halving (Jamieson and Talwalkar, 2016); stacks that train later are compared with the trials before them,
too, as in its asynchronous form (ASHA; Li et al., "A system for massively parallel hyperparameter tuning", 2020).
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlp_lightning.config import Config
from mlp_lightning.errors import ConfigError, Fault, MLPLightningError
from mlp_lightning.runs.run_folder import config_hash
from mlp_lightning.sweeps.parts import SweepRun
from mlp_lightning.sweeps.records import RunRecord
from mlp_lightning.sweeps.sizes import SizesOf

# Looks of ASHA and Hyperband: with a reduction factor of 3 after 1/27, 1/9 and 1/3 of the length.
_RUNGS = 3
# The median rule looks after each tenth of the length, once so many trials have finished.
_LOOKS, _FINISHED = 10, 5


class TrialPruner:
    """A :class:`~mlp_lightning.runs.pruning.Pruner`.

    Args:
        rule: ``asha``, ``hyperband`` or ``median``.
        reduction_factor: of the first two.
        journal: the file of what was compared; read if it is there.
        rungs: how often the first two look at most.
        asked: the option that asks for it, and its value; ``None`` if nobody did.

    Attributes:
        numbers: of the trials, by the hash of their configuration.
        finished: the trials that trained to their end.
    """

    def __init__(
        self,
        rule: str,
        reduction_factor: int,
        journal: Path,
        rungs: int = _RUNGS,
        asked: tuple[str, str] | None = None,
    ) -> None:
        self._asked = asked
        self.rule, self._factor, self._journal, self._count = rule, reduction_factor, journal, rungs
        self.numbers: dict[str, int] = {}
        self.finished: set[str] = set()
        self._losses: dict[tuple[Any, ...], dict[str, float]] = {}
        cut_to_lines(journal)  # what is cut is measured again
        for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else ():
            content = json.loads(line)
            self._losses.setdefault(tuple(content["progress"]), {}).update(content["losses"])

    def begin(self, runs: Iterable[tuple[SweepRun, RunRecord | None]]) -> None:
        """Take note of the trials of a batch, each with its record if an earlier command trained it."""
        for run, record in runs:
            if run.config is not None:
                known = config_hash(run.config)
                self.numbers.setdefault(known, run.job.number)
                if record is not None and record.status == "finished":
                    self.finished.add(known)

    def refuse_if_idle(self, configs: Iterable[Config], sizes: SizesOf) -> None:
        """Refuse to be asked for where no trial has a validation that is looked at.

        Raises:
            ConfigError: so it is.
        """
        if self._asked is None:
            return
        for config in configs:
            try:
                of_run = sizes(config)
            except MLPLightningError:  # its run reports it
                return
            every = config.trainer.check_val_every_n_epoch * of_run.steps_per_epoch
            if self.looks(of_run.steps // every):
                return
        rule = "has no effect: it compares trials at validations before their last, and they have none"
        hint = "train longer, or validate more often (trainer.check_val_every_n_epoch)"
        raise ConfigError([Fault(*self._asked, rule, hint)])

    def looks(self, validations: int) -> dict[int, int]:
        """The validations that are looked at, each with the number of the look from 0; none of them is the last."""
        if self.rule == "median":
            at = [math.ceil(validations * look / _LOOKS) for look in range(1, _LOOKS)]
        else:
            at = [math.ceil(validations / self._factor**rung) for rung in range(self._count, 0, -1)]
        return {one: look for look, one in enumerate(dict.fromkeys(one for one in at if one < validations))}

    def is_due(self, progress: tuple[float, float, int, int]) -> bool:
        _, _, validation, validations = progress
        return validation in self.looks(validations)

    def pruned(self, progress: tuple[float, float, int, int], losses: Mapping[str, float]) -> dict[str, str]:
        now = {one: loss if math.isfinite(loss) else math.inf for one, loss in losses.items()}
        known = self._losses.setdefault(tuple(progress), {})
        if any(known.get(one) != loss for one, loss in now.items()):
            known.update(now)
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"progress": list(progress), "losses": now}) + "\n")
        epochs, of, validation, validations = progress
        where = f"of validation rows after {epochs:.6g} of {of:.6g} epochs"
        if self.rule == "median":
            return self._above_median(known, now, where)
        look = self.looks(validations)[validation]
        found: dict[str, str] = {}
        for bracket in {self._bracket(one) for one in now}:
            if look >= bracket:
                rivals = {one: loss for one, loss in known.items() if self._bracket(one) == bracket}
                found |= self._behind(rivals, now, where)
        return found

    def curve(self, trial: str) -> dict[float, float]:
        """The losses of a trial that were compared, by epochs."""
        return {key[0]: losses[trial] for key, losses in sorted(self._losses.items()) if trial in losses}

    def _bracket(self, trial: str) -> int:
        """How many looks a trial is spared: of Hyperband (Li et al., 2018) each as often as any other."""
        return self.numbers.get(trial, 0) % (self._count + 1) if self.rule == "hyperband" else 0

    def _behind(self, rivals: Mapping[str, float], now: Mapping[str, float], where: str) -> dict[str, str]:
        """Those of ``now`` that are not among the best of their rivals, one of so many."""
        kept = max(1, len(rivals) // self._factor)
        ranks = {
            one: rank
            for rank, one in enumerate(sorted(rivals, key=lambda one: (rivals[one], self.numbers.get(one, 0), one)), 1)
        }
        return {
            one: f"loss {now[one]:.6g} {where}: rank {ranks[one]} of {len(rivals)} trials, and {kept} go further"
            for one in now
            if ranks.get(one, 0) > kept
        }

    def _above_median(self, known: Mapping[str, float], now: Mapping[str, float], where: str) -> dict[str, str]:
        finished = [loss for one, loss in known.items() if one in self.finished and one not in now]
        if len(finished) < _FINISHED:
            return {}
        median = statistics.median(finished)
        said = f"{where}: above {median:.6g}, the median of {len(finished)} trials that finished"
        return {one: f"loss {loss:.6g} {said}" for one, loss in now.items() if loss > median}


def cut_to_lines(file: Path) -> None:
    """Remove the last line if a process was killed that wrote it: what is appended has to begin a line."""
    with contextlib.suppress(FileNotFoundError), file.open("rb+") as opened:
        opened.truncate(opened.read().rfind(b"\n") + 1)
