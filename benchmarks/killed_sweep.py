"""A sweep that is killed repeatedly: how much work each kill costs, and whether the results stay bit-identical.

One stack of XOR runs trains for about half a minute with ``callbacks.checkpoint.every_n_seconds=1``. It is killed with
SIGKILL at random moments of its training and continued by the same command, until it has been killed ``--kills`` times
and has ended. Then every run is compared with the same sweep without interruption: ``metrics.csv`` byte by byte, the
weights and the state of the optimizer in ``last.ckpt`` and ``best.ckpt`` bit by bit.

The time lost is that between the last saved state (or the start of the training, if that came later) and the kill.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xor import publish, surroundings

ROOT = Path(__file__).resolve().parents[1]


def command(runs: int, steps: int) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "data=xor", "model=wide_deep"),
        *(f"seed=range(0,{runs})", f"trainer.max_steps={steps}", "trainer=cpu", "trainer.threads=1"),
        *("logger.graph=false", "callbacks.checkpoint.every_n_seconds=1", "sweep.name=killed", "sweep.resume=true"),
    ]


def sweep_of(folder: Path) -> Path:
    return folder / "lightning_logs" / "xor" / "killed"


def started(folder: Path, words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def training_begun(folder: Path, process: subprocess.Popen[bytes], log_size: int) -> float:
    """Wait until the sweep logs what it trains; return the time."""
    log = sweep_of(folder) / "sweep.log"
    while process.poll() is None and (log.stat().st_size if log.exists() else 0) <= log_size:
        time.sleep(0.01)
    return time.time()


def killed(folder: Path, words: list[str], delay: float) -> float | None:
    """Start or continue the sweep, kill it after ``delay`` seconds of training; seconds lost, ``None`` if it ended."""
    log = sweep_of(folder) / "sweep.log"
    process = started(folder, words)
    begun = training_begun(folder, process, log.stat().st_size if log.exists() else 0)
    try:
        process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        now = time.time()
        process.communicate()
        saved = [file.stat().st_mtime for file in (sweep_of(folder) / "stacks").glob("*.stack")]
        return now - max([begun, *saved])
    if process.returncode:
        raise SystemExit(f"The sweep failed with {process.returncode}")
    return None


def differences(sweep: Path, other: Path) -> list[str]:
    """The files of all runs that differ."""
    import torch

    def same(one: object, two: object) -> bool:
        if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
            return torch.equal(one, two)
        if isinstance(one, dict) and isinstance(two, dict):
            return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
        if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
            return len(one) == len(two) and all(map(same, one, two))
        return one == two

    found = []
    for run in sorted(other.glob("[0-9]*")):
        mine = sweep / run.name
        if (mine / "metrics.csv").read_bytes() != (run / "metrics.csv").read_bytes():
            found.append(f"{run.name}/metrics.csv")
        for name in ("last", "best"):
            contents = [torch.load(one / "checkpoints" / f"{name}.ckpt", weights_only=True) for one in (mine, run)]
            for content in contents:
                content.pop("config")  # it has the name of the sweep's folder, which differs
            if not same(*contents):
                found.append(f"{run.name}/{name}.ckpt")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--output", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    words, draw = command(options.runs, options.steps), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        whole, disturbed = Path(name, "whole"), Path(name, "disturbed")
        whole.mkdir()
        process = started(whole, words)
        begun = training_begun(whole, process, 0)
        if process.wait():
            raise SystemExit("The undisturbed sweep failed")
        seconds = time.time() - begun
        lost: list[float] = []
        sweeps, wrong = 0, []
        while len(lost) < options.kills or not (disturbed / "ended").exists():
            if not disturbed.exists():
                disturbed.mkdir()
                sweeps += 1
            delay = draw.uniform(0, seconds / 5) if len(lost) < options.kills else 3600
            one = killed(disturbed, words, delay)
            if one is not None:
                lost.append(one)
                continue
            wrong += differences(sweep_of(disturbed), sweep_of(whole))
            if len(lost) < options.kills:
                disturbed.rename(disturbed.with_name(f"ended-{sweeps}"))
            else:
                (disturbed / "ended").touch()
    lines = [
        f"# Killed sweeps: {options.runs} runs as one stack, {options.steps:,} steps, saved every second",
        "",
        f"- undisturbed: {seconds:.1f} s from the start of the training to the end of the sweep",
        f"- kills: {len(lost)}, in {sweeps} sweeps",
        f"- lost: median {statistics.median(lost):.2f} s, most {max(lost):.2f} s",
        f"- files that differ from the undisturbed sweep: {len(wrong)} {wrong[:5] if wrong else ''}",
    ]
    publish([*lines, *surroundings()], options.output)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
