"""A process that trains again and again does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "growth.py"
# Trainings of the bounded run, at most those of the long one, and what all of them together may take in MB: allocators
# keep some of what they had, the more the larger the training is.
CASES = {"run": (200, 1000, 25), "architectures": (60, 1000, 25), "stack": (60, 1000, 25), "estimator": (60, 1000, 25)}
LONG = {"sweep": (10, 100, 60)}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_trainings_in_one_process(torture: int, tmp_path: Path) -> None:
    for case, (trainings, most, most_mb) in {**CASES, **(LONG if torture > 1 else {})}.items():
        count = min(trainings * torture, most)
        words = [sys.executable, str(SCRIPT), "--warm-up", "10", "--trainings", str(count), "--cases", case]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        before, after = found["before"], found["after"]
        for what in ("classes", "threads", "files"):
            assert after[what] == before[what], found
        assert after["objects"] - before["objects"] < 50, found  # a leak of one object a training is more
        assert after["MB"] - before["MB"] < most_mb, found
