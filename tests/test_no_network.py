"""The commands need no network: they do their work where every attempt to reach one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, environment, run_forked

pytestmark = pytest.mark.slow

# Runs another script. Attempts are also written down: a library could swallow the error and continue.
REFUSING = """
import os, runpy, socket, sys

def refuse(event, arguments):
    if event == "socket.__new__" and arguments[1] not in (socket.AF_INET, socket.AF_INET6):
        return  # between processes of this machine
    if event in ("socket.__new__", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["ATTEMPTS"], "a", encoding="utf-8") as file:
            file.write(f"{event} {arguments[1:]} in {sys.argv}\\n")
        raise PermissionError("there is no network here")

sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TABLE = "size,colour,y\n" + "".join(f"{one % 7},{'red' if one % 3 else 'blue'},{one % 2}\n" for one in range(60))


@pytest.fixture
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("refusing") / "refusing.py"
    script.write_text(REFUSING, encoding="utf-8")
    return script


@pytest.mark.parametrize("attempt", ["socket()", "getaddrinfo('localhost', 80)", "gethostbyname('localhost')"])
def test_an_attempt_is_refused_and_seen(attempt, refusing, tmp_path) -> None:
    (tmp_path / "script.py").write_text(f"import socket; socket.{attempt}", encoding="utf-8")
    done = run_forked(str(refusing), "script.py", folder=tmp_path, ATTEMPTS="attempts.txt")
    assert "PermissionError: there is no network here" in done.stderr
    assert (tmp_path / "attempts.txt").read_text(encoding="utf-8").startswith("socket.")


def test_nor_do_imports(refusing, tmp_path) -> None:
    command = [sys.executable, str(refusing), str(ROOT / "scripts" / "train.py"), "data=xor", "trainer.max_steps=20"]
    variables = {**environment(), "ATTEMPTS": str(tmp_path / "attempts.txt")}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "attempts.txt").exists()


def test_all_commands(refusing, tmp_path) -> None:
    (tmp_path / "table.csv").write_text(TABLE, encoding="utf-8")
    for script, *words in (
        ["train.py", "-m", "data=iris", "model.hidden_units=2,3", "trainer.max_epochs=2"],
        ["train.py", "data=table", "data.path=table.csv", "data.target=y", "trainer.max_epochs=2"],
        ["evaluate.py", "ckpt_path=last", "data.path=table.csv"],
        ["explain.py", "ckpt_path=last", "repeats=2"],
        ["report.py", "last"],
        ["predict.py", "ckpt_path=last", "data.path=table.csv", "output=predictions.csv"],
        *(["export.py", "ckpt_path=last", f"format={one}"] for one in ("safetensors", "torch", "onnx")),
    ):
        command = [str(refusing), str(ROOT / "scripts" / script), *words]
        done = run_forked(*command, folder=tmp_path, ATTEMPTS=str(tmp_path / "attempts.txt"))
        assert done.returncode == 0, f"{script} {' '.join(words)}\n{done.stdout}{done.stderr}"
    assert not (tmp_path / "attempts.txt").exists()
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 61
