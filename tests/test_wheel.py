"""The wheel works in an environment that knows nothing of the checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support.commands import ROOT, environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_contents(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {file.relative_to(ROOT / "conf").as_posix() for file in (ROOT / "conf").rglob("*.yaml")}
    assert {f"mlp_lightning/conf/{name}" for name in conf} <= names
    assert "mlp_lightning/py.typed" in names
    report = ROOT / "mlp_lightning" / "inference" / "report"
    pages = {one.relative_to(ROOT).as_posix() for part in ("templates", "texts") for one in (report / part).iterdir()}
    assert pages
    assert pages <= names
    # A namespace package has no __init__.py: it belongs to all plugins of an environment.
    plugins = {name for name in names if name.startswith("hydra_plugins/")}
    assert "hydra_plugins/mlp_lightning_vectorized/vectorized.py" in plugins
    assert all(name.startswith("hydra_plugins/mlp_lightning_") for name in plugins)
    assert not any(name.startswith(("tests/", "scripts/", "benchmarks/", "conf/")) for name in names)


@pytest.mark.slow
def test_command_works_from_any_folder(wheel, tmp_path) -> None:
    """The dependencies are those of this environment; the package itself comes from the wheel alone."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A path in a .pth file is searched after the environment's own, and .pth files there are not read: the
    # editable install of the checkout stays out of sight.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    folder = tmp_path / "anywhere"
    folder.mkdir()
    command = [str(home / "bin" / "mlp-train"), "model=wide_deep", "data=xor", "trainer.max_steps=200"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = re.search(r"^step +100  loss (\S+)", done.stdout, re.MULTILINE)
    assert printed is not None
    assert float(printed[1]) == pytest.approx(0.6931558847, abs=1e-6)
    (run,) = (folder / "lightning_logs" / "xor").iterdir()
    assert json.loads((run / "result.json").read_text())["status"] == "finished"

    sweep = [str(home / "bin" / "mlp-train"), "-m", "data=xor", "seed=0,1", "trainer.max_steps=20", "name=sweep"]
    done = subprocess.run(sweep, cwd=folder, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Sweep of 2 runs: 2 in 1 stack." in done.stdout
    assert "  mlp-train -m data=xor seed=0,1 " in done.stdout, "the command that repeats the runs is this one"
    (made,) = (folder / "lightning_logs" / "sweep").iterdir()
    assert (made / "leaderboard.csv").is_file()
    paths = "import mlp_lightning.config as c, hydra_plugins.mlp_lightning_vectorized.vectorized as v;"
    where = subprocess.run(
        [python, "-c", f"{paths} print(c.__file__, c.conf_dir(), v.__file__, sep=chr(10))"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert len(where) == 3
    assert all(path.startswith(packages) for path in where)
