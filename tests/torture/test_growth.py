"""A process that trains again and again does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "growth.py"
# Single runs, changing architectures, stacks and estimators: 200 trainings together; and the command in a long run.
CASES, LONG = ["run", "architectures", "stack", "estimator"], ["sweep"]
TRAININGS, MOST_TRAININGS = 50, 1000
# However many trainings: allocators keep some 25 MB of the first ones. A trace of torch's took 0.5 MB each.
MOST_MB = 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_trainings_in_one_process(torture: int, tmp_path: Path) -> None:
    parts = [(CASES, MOST_TRAININGS), (LONG, MOST_TRAININGS // 10)]
    for cases, most in parts if torture > 1 else parts[:1]:
        trainings = min(TRAININGS * torture, most)
        words = [sys.executable, str(SCRIPT), "--warm-up", "10", "--trainings", str(trainings), "--cases", *cases]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            found = json.loads(line)
            before, after = found["before"], found["after"]
            for what in ("classes", "threads", "files"):
                assert after[what] == before[what], found
            assert after["objects"] - before["objects"] < trainings, found  # less than one of each
            assert after["MB"] - before["MB"] < MOST_MB, found
