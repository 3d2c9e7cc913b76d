"""The launcher in any Hydra program: Hydra's test suites for launchers, and the imports of its discovery."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.version import Version, VersionBase
from support.commands import ROOT

PLUGIN = ROOT / "hydra_plugins" / "mlp_lightning_vectorized" / "vectorized.py"
# The programs of Hydra's suite use deprecated behaviour of Hydra, about which Hydra warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Future Hydra versions will no longer change working directory:UserWarning"),
]


@pytest.fixture(autouse=True)
def _old_version_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version that the suite expects, independent of earlier tests."""
    monkeypatch.setattr(VersionBase.instance(), "version_base", Version("1.1"))


@pytest.fixture(autouse=True)
def _plain_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite writes the folder's name into overrides, whose grammar has no ``~`` as in Windows' short names."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("launcher_name, overrides", [("vectorized", [])])  # noqa: PT006  # as the suite asks for it
class TestLauncher(LauncherTestSuite):
    """Any task: here one that only returns a number."""


@pytest.mark.parametrize(
    "launcher_name, overrides",  # noqa: PT006  # as the suite asks for it
    [("vectorized", ["hydra.sweeper.max_batch_size=2"])],
)
class TestLauncherInBatches(BatchedSweeperTestSuite):
    """Numbers and folders of jobs continue from batch to batch."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags",  # noqa: PT006  # as the suite asks for it
    [({}, ["-m", "hydra/launcher=vectorized", "hydra/sweeper=vectorized"])],
)
class TestLauncherOfPrograms(IntegrationTestSuite):
    """Programs in separate processes."""

    @pytest.fixture(autouse=True)
    def _hydra_on_every_python(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        """On Python 3.14, Hydra needs the same patch that the commands apply."""
        folder = tmp_path_factory.mktemp("site")
        code = "from mlp_lightning.config.hydra_arguments import allow_lazy_help\nallow_lazy_help()\n"
        (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        monkeypatch.setenv("PYTHONPATH", path)


def test_hydra_finds_launcher_and_sweeper() -> None:
    assert "VectorizedLauncher" in [one.__name__ for one in Plugins.instance().discover(Launcher)]
    assert "VectorizedSweeper" in [one.__name__ for one in Plugins.instance().discover(Sweeper)]


def test_plugin_is_thin() -> None:
    assert len(PLUGIN.read_text(encoding="utf-8").splitlines()) < 100
    # The namespace package belongs to all plugins of an environment.
    assert not (PLUGIN.parents[1] / "__init__.py").exists()


def test_discovery_imports_nothing_heavy(tmp_path: Path) -> None:
    """Hydra imports all plugins for every Hydra program of the environment."""
    code = """
import sys
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
assert any(one.__name__ == "VectorizedLauncher" for one in Plugins.instance().discover(Launcher))
heavy = ("torch", "lightning", "torchmetrics", "sklearn", "matplotlib", "numpy", "rich", "tensorboard", "mlp_lightning")
import hydra_plugins.mlp_lightning_vectorized.vectorized
print([one for one in heavy if one in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
