"""What ``sweep.py`` starts in separate processes: plain loops, and a sweep with timers around its parts.

    python sweep_contenders.py plain '{"data": "xor", "steps": 10001, "runs": [[4, 2.0, 0], [8, 1.0, 1]]}'
    python sweep_contenders.py parts '["scripts/train.py", "-m", "data=xor", "seed=0,1"]'

The last line that they print is the measurement, as JSON. Both write into the folder in which they are started.
"""

from __future__ import annotations

import collections
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xor import time_plain_loop

IRIS_ROWS = Path("rows.pt")


def main() -> None:
    contender, given = sys.argv[1], json.loads(sys.argv[2])
    measured = _time_parts(given) if contender == "parts" else _time_loops(given)
    print("\n" + json.dumps(measured))


def save_iris_rows(path: Path, seeds: set[int]) -> None:
    """The training and validation rows of each seed, standardized: what a hand-written program would start from."""
    import torch

    from mlp_lightning.data import IrisDataModule

    rows = {}
    for seed in seeds:
        # A sweep over seeds keeps one split.
        data = IrisDataModule(val_fraction=0.2, test_fraction=0.2, scaling="standard", seed=seed, split_seed=0)
        data.setup()
        rows[seed] = [(part.features_BF, part.targets) for part in (data.splits["train"], data.splits["val"])]
    torch.save(rows, path)


def _time_loops(given: dict[str, Any]) -> list[dict[str, float]]:
    """Seconds of each loop, and the last training loss that it has."""
    import torch

    torch.set_num_threads(1)
    loop = _time_xor_loop if given["data"] == "xor" else _time_iris_loop
    return [loop(given["steps"], *run) for run in given["runs"]]


def _time_xor_loop(steps: int, hidden_units: int, lr: float, seed: int) -> dict[str, float]:
    timing = time_plain_loop(steps, hidden_units, lr, seed)
    return {"seconds": timing.fit_s, "loss": timing.losses[-1]}


def _time_iris_loop(steps: int, hidden_units: int, lr: float, seed: int) -> dict[str, float]:
    """All training rows in each step, a validation after it, the metrics printed."""
    import torch
    from torch import nn

    (features_BF, labels_B), (val_features_BF, val_labels_B) = torch.load(IRIS_ROWS, weights_only=True)[seed]
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, hidden_units), nn.ReLU(), nn.Linear(hidden_units, 3))
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=lr)
    last = 0.0
    started = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        loss = criterion(model(features_BF), labels_B)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            logits_BC = model(val_features_BF)
            val_loss = criterion(logits_BC, val_labels_B)
            val_accuracy = (logits_BC.argmax(-1) == val_labels_B).float().mean()
        last = loss.item()
        print(step, last, val_loss.item(), val_accuracy.item())
    return {"seconds": time.perf_counter() - started, "loss": last}


class _Timers:
    """Seconds by name of part, without the timed parts that a part calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._inner = [0.0]

    def put_around(self, owner: Any, attribute: str, name: str) -> None:
        function: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.perf_counter() - started
                self.seconds[name] += taken - self._inner.pop()
                self._inner[-1] += taken

        setattr(owner, attribute, timed)


def _time_parts(command: Sequence[str]) -> dict[str, float]:
    """Run ``train.py`` in this process, everything imported before the timers run."""
    from mlp_lightning.commands.train import main as train
    from mlp_lightning.runs import stores, writer
    from mlp_lightning.sweeps import launching, sweep

    timers = _Timers()
    for owner, attribute, part in (
        (launching, "compose_jobs", "composing"),
        (sweep.Sweep, "run_jobs", "composing"),  # what is left of it: checking, choosing folders, grouping
        (sweep, "train_part", "training"),
        (sweep, "write_hydra_folder", "outputs"),
        (stores, "claim", "outputs"),
        (writer.FolderWriter, "members_ended", "outputs"),
        (sweep.Sweep, "finish", "outputs"),  # the leaderboard
    ):
        timers.put_around(owner, attribute, part)
    sys.argv = list(command)
    try:
        train()
    except SystemExit as end:
        if end.code:
            raise
    return timers.seconds


if __name__ == "__main__":
    main()
