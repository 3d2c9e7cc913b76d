"""What callbacks.snapshots=60 costs: fit times of the same training with and without, in turn.

python benchmarks/snapshots.py [REPEATS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlp_lightning.config import parse_config
from mlp_lightning.runs import train_stack

XOR = {"data": "xor", "model": "wide_deep"}
CASES: dict[str, list[dict[str, Any]]] = {
    "XOR, 10,001 steps, one network": [XOR],
    "XOR, 10,001 steps, 256 networks": [{**XOR, "seed": seed} for seed in range(256)],
    "breast_cancer, 45 epochs, 20,000 parameters": [{"data": {"option": "sklearn", "name": "breast_cancer"}}],
}


def seconds(configs: list[dict[str, Any]], snapshots: int | None) -> float:
    """From the start of the training to its end, files included."""
    plain = {"callbacks": {"snapshots": snapshots}, "verbosity": 0, "logger": {"graph": False}}
    parsed = [parse_config({**one, **plain, "trainer": {"accelerator": "cpu"}}) for one in configs]
    with tempfile.TemporaryDirectory() as folder:
        results = train_stack(parsed, [Path(folder, str(number)) for number in range(len(parsed))])
    stack = results[0].stack
    return results[0].wall_time_s if stack is None else max(one.wall_time_s for one in results)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"load average {os.getloadavg()[0]:.1f}; medians of {repeats}, in turn\n")
    print("| training | without | with | ratio |\n|---|---|---|---|")
    for name, configs in CASES.items():
        seconds(configs, 60)
        pairs = [(seconds(configs, None), seconds(configs, 60)) for _ in range(repeats)]
        without, with_them = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for other, one in pairs)
        print(f"| {name} | {without:.3f} s | {with_them:.3f} s | {ratio:.3f} |")


if __name__ == "__main__":
    main()
