"""A process that trains again and again does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "growth.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_trainings_in_one_process(torture, tmp_path) -> None:
    trainings = 20 * torture
    words = [sys.executable, str(SCRIPT), "--warm-up", "10", "--trainings", str(trainings)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    before, after = (json.loads(done.stdout.splitlines()[-1])[when] for when in ("before", "after"))
    for what in ("classes", "threads", "files"):
        assert after[what] == before[what], (what, before, after)
    # A trace leaves 12 classes and 60 objects.
    assert after["objects"] - before["objects"] < 20 * trainings, (before, after)
