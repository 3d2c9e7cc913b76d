"""What a validation after every epoch costs, against hand-written loops that validate as often.

    python benchmarks/validation.py [--repeats 5] [--output FILE.md]

Two trainings, each on one CPU thread, each contender in a separate process:

- iris: 90 training rows in one step, 2,000 epochs with a validation on 30 rows after each;
- table: 20,000 rows of 20 features (60 % for training), 20-64-64-2, batch 256, Adam, 20 epochs, likewise.

Contenders:

- (a) the hand-written loop: shuffled batches, after every epoch loss and accuracy of the validation rows without
  gradients, and a copy of the weights whenever the loss is the best so far. The loop is timed;
- (b) this project with its defaults: it also logs every training loss of iris (every tenth of the table) and all
  validations to TensorBoard and CSV, keeps the optimizer's state with the best weights, and writes checkpoints.
  ``fit_time_s`` is compared: from the first step to the end of the last.

They run in turn, so that a drift of the machine affects both; the ratios count. Both start from the same
weights, and the losses of iris, whose step sees all rows, are compared too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from xor import CONTENDER_ENVIRONMENT, by_round, median_and_range, publish, surroundings, verdict

MOST_OF_HAND_WRITTEN = 1.2
CASES = {
    "iris": ["data=iris", "trainer.max_epochs=2000"],
    "table": [
        *("data=table", "data.path=table.parquet", "data.target=label", "data.batch_size=256"),
        *("data.val_fraction=0.2", "data.test_fraction=0.2", "model=mlp", "model.hidden_units=[64,64]"),
        *("optimizer=adam", "scheduler=none", "trainer.label_smoothing=0", "trainer.max_epochs=20"),
    ],
}
TITLES = {"a": "hand-written loop", "b": "mlp_lightning"}


@dataclasses.dataclass(frozen=True)
class Timing:
    """One training: seconds, epochs made, and the best validation loss."""

    seconds: float
    epochs: int
    best_loss: float


def write_table(path: Path) -> None:
    """20,000 rows of 20 features, which separate two classes in part."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import make_classification

    made: Any = make_classification(20_000, 20, n_informative=12, flip_y=0.1, random_state=0)
    features, labels = made
    columns = {f"x{number}": column for number, column in enumerate(features.astype("float32").T)}
    pq.write_table(pa.table({**columns, "label": [f"class {label}" for label in labels]}), path)


def configuration(case: str) -> Any:
    import hydra
    from omegaconf import OmegaConf

    from mlp_lightning.config import conf_dir, parse_config

    overrides = [*CASES[case], "trainer.accelerator=cpu", "trainer.threads=1", "verbosity=0"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base=None):
        composed: Any = OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)
    return parse_config(composed)


def time_hand_written(case: str) -> Timing:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from mlp_lightning.runs.build import build_data

    config = configuration(case)
    data = build_data(config)
    rows = {split: (part.features_BF, part.targets) for split, part in data.splits.items()}
    binary = data.task == "binary"
    loss_of = F.binary_cross_entropy_with_logits if binary else F.cross_entropy
    widths = [data.in_features, *config.model.layer_widths, data.out_features]
    activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}
    torch.manual_seed(config.seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation[config.model.activation]()]
    model = nn.Sequential(*layers[:-1])
    optimizer = getattr(torch.optim, config.optimizer.name)(model.parameters(), lr=config.optimizer.lr)
    features_BF, targets = rows["train"]
    val_features_BF, val_targets = rows["val"]
    batch_size = data.training_steps.batch_size
    best_loss, best_weights, accuracy = float("inf"), {}, 0.0
    started = time.perf_counter()
    for _ in range(config.trainer.max_epochs):
        model.train()
        order = torch.randperm(len(targets)) if batch_size < len(targets) else None
        for start in range(0, len(targets), batch_size):
            batch = slice(None) if order is None else order[start : start + batch_size]
            optimizer.zero_grad()
            loss = loss_of(model(features_BF[batch]), targets[batch])
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(val_features_BF)
            val_loss = loss_of(logits, val_targets).item()
            guesses = (logits > 0) == (val_targets > 0.5) if binary else logits.argmax(1) == val_targets
            accuracy = guesses.float().mean().item()
        if val_loss < best_loss:
            best_loss = val_loss
            best_weights = {name: value.clone() for name, value in model.state_dict().items()}
    seconds = time.perf_counter() - started
    assert best_weights
    assert accuracy > 0.5
    return Timing(seconds, config.trainer.max_epochs, best_loss)


def time_this_project(case: str) -> Timing:
    from mlp_lightning import train

    result = train(configuration(case), Path("run").absolute())
    assert result.best is not None
    return Timing(result.fit_time_s, result.epochs, result.best["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender")
    parser.add_argument("--output", type=Path, help="also write the result to this Markdown file")
    parser.add_argument("--contender", choices=TITLES, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        import torch

        torch.set_num_threads(1)
        timing = {"a": time_hand_written, "b": time_this_project}[arguments.contender](arguments.case)
        print("\n" + json.dumps(dataclasses.asdict(timing)))
        return
    facts = surroundings()
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder) / "table.parquet")
        timings = {case: measure(case, arguments.repeats, Path(folder)) for case in CASES}
    publish([*_report(timings), *facts], arguments.output)


def measure(case: str, repeats: int, tables: Path) -> dict[str, list[Timing]]:
    """Time both contenders ``repeats`` times, in turn."""
    timings: dict[str, list[Timing]] = {letter: [] for letter in TITLES}
    for repeat in range(repeats):
        for letter, title in TITLES.items():
            timing = _time_in_own_process(letter, case, tables)
            timings[letter].append(timing)
            per_epoch = timing.seconds / timing.epochs * 1e6
            print(f"{case} {repeat + 1}/{repeats} {title}: {per_epoch:,.0f} µs per epoch", file=sys.stderr)
    return timings


def _time_in_own_process(letter: str, case: str, tables: Path) -> Timing:
    command = [sys.executable, str(Path(__file__).resolve()), "--contender", letter, "--case", case]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.parquet").write_bytes((tables / "table.parquet").read_bytes())
        environment = {**os.environ, **CONTENDER_ENVIRONMENT}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}\n({letter}) of {case} ended with exit code {done.returncode}")
    return Timing(**json.loads(done.stdout.splitlines()[-1]))


def _report(timings: dict[str, dict[str, list[Timing]]]) -> list[str]:
    lines = [
        "# A validation after every epoch",
        "",
        "One CPU thread. Medians, with the least and the most in brackets.",
        "",
        "| training | contender | seconds | µs per epoch | best validation loss |",
        "|---|---|--:|--:|--:|",
    ]
    verdicts = []
    for case, of_case in timings.items():
        for letter, title in TITLES.items():
            own = of_case[letter]
            seconds = [one.seconds for one in own]
            per_epoch = statistics.median(seconds) / own[0].epochs * 1e6
            cells = (case, f"({letter}) {title}", median_and_range(seconds), f"{per_epoch:,.0f}")
            lines.append("| " + " | ".join((*cells, f"{own[0].best_loss:.7f}")) + " |")
        pairs = zip(of_case["b"], of_case["a"], strict=True)
        each = [one.seconds / other.seconds for one, other in pairs]
        ratio = verdict(statistics.median(each), MOST_OF_HAND_WRITTEN)
        verdicts.append(f"- {case}: (b)/(a) = {ratio}; {by_round(each)}")
    return [*lines, "", *verdicts, ""]


if __name__ == "__main__":
    main()
