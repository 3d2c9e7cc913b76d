"""XOR, wide_deep: what a step costs in a hand-written loop, in an obvious Lightning module and in this project.

    python benchmarks/xor.py [--steps 10001] [--steps-lightning 1000] [--repeats 3] [--output FILE.md]

All contenders train the same 2-10-10-10-1 network (sigmoid after every layer, binary cross-entropy, all four
points in each step, SGD with learning rate 1, seed 777) on one CPU thread, each in a separate process:

- (a) the plain loop: only the loop is timed, with the loss printed every 100 steps;
- (b) an obvious Lightning module with Lightning's defaults, one epoch per step: ``Trainer.fit`` is timed.
  It is slow, so it trains fewer steps, and the time per step is compared, its set-up spread over as many steps as
  the others train;
- (c) this project with the defaults of its configuration, TensorBoard, CSV and checkpoints included: the result's
  ``fit_time_s`` is compared, from the first step to the end of the last.

They run in turn (a b c a b c …), so that a drift of the machine affects all of them; the ratios count. The
losses are compared too: a contender that trains something else has not won.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SEED = 777
STEPS_BETWEEN_LOSSES = 100
PUBLISHED_STEP, PUBLISHED_LOSS = 10_000, 0.0001565046259202063
MOST_OF_PLAIN_LOOP = 1.10
LEAST_GAIN_OVER_LIGHTNING = 15.0
# PYTHONUTF8: what libraries draw on a pipe is the same on every system.
CONTENDER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUTF8": "1"}


@dataclasses.dataclass(frozen=True)
class Timing:
    """One training, as the contender's process reports it.

    Attributes:
        steps: optimizer steps made.
        fit_s: seconds of the loop, of the Trainer's ``fit`` (b), or from the first step to the last (c).
        setup_s: seconds of ``fit_s`` before the first step; 0 where they are not measured.
        run_s: seconds of the whole run with its folder, graph and evaluation; 0 for a contender without them.
        losses: training loss at steps 0, 100, 200, …, each measured before the step's update.
        remark: what the libraries chose by default.
    """

    steps: int
    fit_s: float
    losses: list[float]
    setup_s: float = 0.0
    run_s: float = 0.0
    remark: str = ""

    def us_per_step(self, steps: int) -> float:
        """Microseconds per step of a run of ``steps`` steps.

        A shorter run would charge each of its steps too much of the set-up, which is paid once.
        """
        return (self.setup_s / steps + (self.fit_s - self.setup_s) / self.steps) * 1e6


def xor_rows() -> tuple[Tensor, Tensor]:
    """The four points and their labels."""
    import torch

    features_BF = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float32)
    return features_BF, torch.tensor([[0], [1], [1], [0]], dtype=torch.float32)


def wide_deep(hidden_units: int = 10, seed: int = SEED) -> nn.Sequential:
    """The network; by default with its published width and initial weights."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((2, hidden_units, hidden_units, hidden_units, 1)):
        layers += [nn.Linear(inputs, outputs), nn.Sigmoid()]
    return nn.Sequential(*layers)


def time_plain_loop(steps: int, hidden_units: int = 10, lr: float = 1, seed: int = SEED) -> Timing:
    import torch
    from torch import nn

    features_BF, labels_B1 = xor_rows()
    model, criterion = wide_deep(hidden_units, seed), nn.BCELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    started = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        loss = criterion(model(features_BF), labels_B1)
        loss.backward()
        optimizer.step()
        if step % STEPS_BETWEEN_LOSSES == 0:
            losses.append(loss.item())
            print(step, losses[-1])
    return Timing(steps, time.perf_counter() - started, losses)


def time_obvious_lightning(steps: int) -> Timing:
    import lightning.pytorch as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    class XORModule(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = wide_deep(), nn.BCELoss()
            self.losses: list[float] = []
            self.first_step_at = 0.0

        def on_train_start(self) -> None:
            self.first_step_at = time.perf_counter()

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            features_BF, labels_B1 = batch
            loss = self.criterion(self.model(features_BF), labels_B1)
            self.log("loss", loss)
            if self.global_step % STEPS_BETWEEN_LOSSES == 0:
                self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1)

    module = XORModule()
    trainer = pl.Trainer(max_epochs=steps, accelerator="cpu")
    loader = DataLoader(TensorDataset(*xor_rows()), batch_size=4)
    started = time.perf_counter()
    trainer.fit(module, loader)
    fit_s = time.perf_counter() - started
    chosen = [
        type(one).__name__ for one in (trainer.logger, trainer.progress_bar_callback, trainer.checkpoint_callback)
    ]
    return Timing(steps, fit_s, module.losses, module.first_step_at - started, remark=", ".join(chosen))


def time_this_project(steps: int) -> Timing:
    import hydra
    from omegaconf import OmegaConf

    from mlp_lightning import train
    from mlp_lightning.config import conf_dir, parse_config

    overrides = ["model=wide_deep", "data=xor", f"trainer.max_steps={steps}", "trainer.accelerator=cpu"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base=None):
        composed: Any = OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)
    result = train(parse_config(composed), Path("run").absolute())
    with (result.run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) % STEPS_BETWEEN_LOSSES == 0]
    losses = [float(row["loss/train"]) for row in rows]
    return Timing(result.steps, result.fit_time_s, losses, run_s=result.wall_time_s)


CONTENDERS: dict[str, tuple[str, Callable[[int], Timing]]] = {
    "a": ("plain loop", time_plain_loop),
    "b": ("obvious Lightning module", time_obvious_lightning),
    "c": ("mlp_lightning", time_this_project),
}


def main() -> None:
    arguments = _arguments()
    if arguments.contender:
        _be_contender(arguments.contender, arguments.steps)
        return
    facts = surroundings()
    timings = measure(arguments.steps, arguments.steps_lightning, arguments.repeats)
    publish([*_report(timings), *facts], arguments.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_001, help="optimizer steps of (a) and (c)")
    parser.add_argument("--steps-lightning", type=int, default=1_000, help="optimizer steps of (b)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.steps_lightning, arguments.repeats) < 1:
        parser.error("--steps, --steps-lightning and --repeats must be at least 1")
    return arguments


def _be_contender(letter: str, steps: int) -> None:
    """Train in this process and print the timing as the last line."""
    import torch

    torch.set_num_threads(1)
    timing = CONTENDERS[letter][1](steps)
    print("\n" + json.dumps(dataclasses.asdict(timing)))


def measure(steps: int, steps_lightning: int, repeats: int) -> dict[str, list[Timing]]:
    """Time every contender ``repeats`` times, in turn."""
    timings: dict[str, list[Timing]] = {letter: [] for letter in CONTENDERS}
    for repeat in range(repeats):
        for letter, (title, _) in CONTENDERS.items():
            timing = _time_in_own_process(letter, steps_lightning if letter == "b" else steps)
            timings[letter].append(timing)
            print(f"{repeat + 1}/{repeats} {title}: {timing.us_per_step(steps):,.0f} µs per step", file=sys.stderr)
    return timings


def _time_in_own_process(letter: str, steps: int) -> Timing:
    command = [sys.executable, str(Path(__file__).resolve()), "--contender", letter, "--steps", str(steps)]
    # What a run writes goes to a temporary folder, what it prints to a pipe, of which one line is read.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **CONTENDER_ENVIRONMENT},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    if done.returncode:
        sys.exit(f"{done.stderr}\n({letter}) ended with exit code {done.returncode}")
    return Timing(**json.loads(done.stdout.splitlines()[-1]))


def _report(timings: dict[str, list[Timing]]) -> list[str]:
    return [
        "# XOR, wide_deep: cost of a step",
        "",
        "2-10-10-10-1, sigmoid, full batch of four points, SGD with learning rate 1, one CPU thread."
        " Medians, with the least and the most in brackets.",
        "",
        "| contender | steps | fit, seconds | µs per step | ratio to (a) |",
        "|---|--:|--:|--:|--:|",
        *(_row(letter, timings) for letter in CONTENDERS),
        "",
        *_verdicts(timings),
        "",
        *_remarks(timings),
        "",
        *_losses(timings),
        "",
    ]


def _row(letter: str, timings: dict[str, list[Timing]]) -> str:
    own = timings[letter]
    cells = [
        f"({letter}) {CONTENDERS[letter][0]}",
        f"{own[0].steps:,}",
        median_and_range([one.fit_s for one in own]),
        f"{statistics.median(_us_per_step(letter, timings)):,.0f}",
        f"{_ratio(letter, 'a', timings):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _verdicts(timings: dict[str, list[Timing]]) -> list[str]:
    lines = []
    for above, below, target, at_most in (
        ("c", "a", MOST_OF_PLAIN_LOOP, True),
        ("b", "c", LEAST_GAIN_OVER_LIGHTNING, False),
    ):
        pairs = zip(_us_per_step(above, timings), _us_per_step(below, timings), strict=True)
        each = [one / other for one, other in pairs]
        ratio = _ratio(above, below, timings)
        lines.append(f"- ({above})/({below}) = {verdict(ratio, target, at_most=at_most)}; {by_round(each)}")
    return lines


def _remarks(timings: dict[str, list[Timing]]) -> list[str]:
    plain, lightning, project = timings["a"][0], timings["b"][0], timings["c"]
    lines = [f"- (b) with what Lightning chose by default: {lightning.remark}"]
    if lightning.steps != plain.steps:
        setup_s = statistics.median(one.setup_s for one in timings["b"])
        lines.append(
            f"- (b) trained {lightning.steps:,} steps, the others {plain.steps:,}; its µs per step are for as many"
            f" steps as theirs: the {setup_s:.2f} s before its first step once, every step as long as measured"
        )
    whole_runs = median_and_range([one.run_s for one in project])
    lines.append(f"- (c) whole run with folder, graph and evaluation (`wall_time_s`), seconds: {whole_runs}")
    return lines


def _losses(timings: dict[str, list[Timing]]) -> list[str]:
    """The losses of the contenders next to each other, and next to the published one if the run got that far."""
    a, b, c = (timings[letter][0].losses for letter in "abc")
    last, last_of_all = min(len(a), len(c)) - 1, min(len(a), len(b), len(c)) - 1
    step = last * STEPS_BETWEEN_LOSSES
    lines = [f"- loss at step {step}: (a) {a[last]:.10f}, (c) {c[last]:.10f}, apart by {abs(a[last] - c[last]):.1e}"]
    if step == PUBLISHED_STEP:
        lines.append(
            f"- published loss at step {step}: {PUBLISHED_LOSS:.10f};"
            f" (a) is off by {abs(a[last] - PUBLISHED_LOSS):.1e}, (c) by {abs(c[last] - PUBLISHED_LOSS):.1e}"
        )
    else:
        lines.append(f"- published loss: known for step {PUBLISHED_STEP}, where these runs do not end")
    apart = abs(a[last_of_all] - b[last_of_all])
    lines.append(
        f"- loss at step {last_of_all * STEPS_BETWEEN_LOSSES}: (a) {a[last_of_all]:.10f},"
        f" (b) {b[last_of_all]:.10f}, apart by {apart:.1e}"
    )
    return lines


def _us_per_step(letter: str, timings: dict[str, list[Timing]]) -> list[float]:
    """Microseconds per step of a contender in each round, all contenders at as many steps as (a) trained."""
    steps = timings["a"][0].steps
    return [one.us_per_step(steps) for one in timings[letter]]


def _ratio(above: str, below: str, timings: dict[str, list[Timing]]) -> float:
    return statistics.median(_us_per_step(above, timings)) / statistics.median(_us_per_step(below, timings))


def median_and_range(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def verdict(value: float, target: float, *, at_most: bool = True) -> str:
    """A number with its target and whether it meets it."""
    met = value <= target if at_most else value >= target
    return f"{value:.3f}  target {'<=' if at_most else '>='} {target:g}: {'met' if met else 'missed'}"


def by_round(ratios: Sequence[float]) -> str:
    """The ratio in each round, which shows how noisy the machine was."""
    return "by round " + ", ".join(f"{one:.2f}" for one in ratios)


def surroundings() -> list[str]:
    """What a result depends on besides the code, and the command that repeats it."""
    packages = ("torch", "lightning", "mlp_lightning")
    versions = ", ".join(f"{one} {importlib.metadata.version(one)}" for one in packages)
    load = f", load average {os.getloadavg()[0]:.2f} at the start" if hasattr(os, "getloadavg") else ""
    return [
        f"- python {platform.python_version()}, {versions}",
        f"- {_cpu_model()}, {os.cpu_count()} cores{load}",
        f"- {platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        f"- {datetime.date.today().isoformat()}, `python {shlex.join(sys.argv)}`",
    ]


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown CPU"


def publish(lines: Sequence[str], output: Path | None) -> None:
    """Print the report, and write it to ``output`` if given."""
    text = "\n".join(lines)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
