"""Imports go one way, and what must start quickly imports no torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mlp_lightning"
# A part may import from itself and from those before it.
ORDER = [
    *("errors", "version", "config", "tables", "networks", "engines", "data", "runs", "sweeps", "inference"),
    *("ensembles", "estimators", "commands"),
]
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(module: Path) -> Iterator[str]:
    """Every module of this package that ``module`` imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [node.module or ""]
        yield from (name for name in names if name.split(".")[0] == "mlp_lightning")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(module) -> None:
    part = part_of(module)
    if part == "__init__":
        return  # the root names public objects lazily; nothing may import the root itself
    assert part in ORDER, f"{part} has no place in the import order"
    for name in imports_of(module):
        parts = name.split(".")
        assert len(parts) > 1, f"{module} imports the package root"
        assert ORDER.index(parts[1]) <= ORDER.index(part), f"{part} imports {name}"


def test_no_circle() -> None:
    """Within a part too: every module can be imported before those that import it."""
    names = {".".join(one.relative_to(PACKAGE.parent).with_suffix("").parts): one for one in MODULES}
    graph = {
        name: {one for one in _modules_of(file) if one in names and one != name}
        for name, file in names.items()
        if file.name != "__init__.py"  # names what its part offers, some of it lazily
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def _modules_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix())
def test_files_and_functions_can_be_read(module) -> None:
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"


# All of sweeps: what is wrong with one is reported before torch is imported, and a leaderboard needs none.
SWEEPS = sorted(f"mlp_lightning.sweeps.{file.stem}" for file in (PACKAGE / "sweeps").glob("[a-z]*.py"))


@pytest.mark.parametrize(
    "module",
    [
        "mlp_lightning",
        "mlp_lightning.config.overrides",
        "mlp_lightning.commands.train",
        "mlp_lightning.errors",
        *SWEEPS,
    ],
)
def test_no_torch(module) -> None:
    code = f"import sys, {module}; print([one for one in ('torch', 'lightning', 'sklearn') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    import mlp_lightning

    for name in mlp_lightning.__all__:
        assert getattr(mlp_lightning, name).__name__ == name
    assert set(mlp_lightning.__all__) <= set(dir(mlp_lightning))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mlp_lightning.nothing


def test_scripts_hold_no_logic() -> None:
    for script in (PACKAGE.parent / "scripts").glob("*.py"):
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 40
