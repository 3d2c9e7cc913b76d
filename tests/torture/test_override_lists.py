"""Random command lines: each is a run, or one message with exit code 2 that leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import command_fuzz
from support.commands import environment


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize("seed", [1, 2])
def test_every_command_is_a_run_or_one_message(seed: int, torture: int) -> None:
    words = [sys.executable, command_fuzz.__file__, str(seed), str(60 * torture)]
    done = subprocess.run(words, env=environment(), capture_output=True, encoding="utf-8")
    wrong = [json.loads(line) for line in done.stdout.splitlines()]
    assert not wrong, "\n".join(f"{' '.join(one['command'])}: {one['wrong']}" for one in wrong)
    assert done.returncode == 0, done.stderr
