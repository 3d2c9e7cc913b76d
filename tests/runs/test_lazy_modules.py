"""Modules that are executed when they are used, each once, and are then what they are otherwise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlp_lightning.runs.lazy_modules import LazyModules, Taken, is_executed

KNOWN: dict[str, Any] = {"Shape": Taken("slow", "Shape"), "area": Taken("slow", "area"), "gone": 7}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "__all__ = ['area']\nfrom slow import part\nclass Shape:\n    side = 3\ndef area(x): return x * x\n"
    )
    (folder / "part.py").write_text("import slow\nslow.count = getattr(slow, 'count', 0) + 1\n")
    (folder / "other.py").write_text("from slow import Shape\nside = Shape.side\n")
    (tmp_path / "broken.py").write_text("raise ValueError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [LazyModules({"slow": KNOWN, "broken": {}}), *sys.meta_path])
    yield folder
    for name in [one for one in sys.modules if one.partition(".")[0] in ("slow", "broken")]:
        del sys.modules[name]


def slow() -> Any:
    return importlib.import_module("slow")


def test_what_is_known_executes_nothing() -> None:
    from slow import Shape, area  # type: ignore[import-not-found]

    module = slow()
    assert (isinstance(3, Shape), isinstance(3, (str, Shape)), module.gone) == (False, False, 7)
    assert not hasattr(module, "__wrapped__")
    assert not is_executed("slow")
    assert area(5) == 25
    assert is_executed("slow")
    assert module is slow()
    assert type(module) is type(sys)
    assert (isinstance(module.Shape(), Shape), isinstance(3, Shape)) == (True, False)
    # A name that the module lacks is still there.
    assert (module.gone, module.count) == (7, 1)


@pytest.mark.parametrize("used", ["side", "Shape", "class", "all", "part", "other", "attribute"])
def test_any_use_executes_it_once(used: str) -> None:
    if used == "side":
        assert slow().part is sys.modules["slow.part"]
    elif used == "Shape":
        assert slow().Shape().side == 3
    elif used == "class":
        assert type("Square", (), {}) is not None
        taken: Any = slow().Shape

        class Square(taken):
            pass

        assert Square.__mro__[1].__name__ == "Shape"
    elif used == "all":
        names: dict[str, Any] = {}
        exec("from slow import *", names)
        assert names["area"](2) == 4
    elif used == "attribute":
        with pytest.raises(AttributeError, match="nothing"):
            slow().nothing  # noqa: B018
    else:
        part = importlib.import_module(f"slow.{used}")
        assert part is sys.modules[f"slow.{used}"] is getattr(slow(), used)
        assert part.__spec__ is not None
        assert part.__spec__.origin == part.__file__
    assert is_executed("slow")
    assert slow().count == 1
    before = slow().Shape
    assert importlib.reload(slow()).Shape is not before


def test_a_module_that_cannot_be_executed_can_be_tried_again() -> None:
    for _ in range(2):
        module = importlib.import_module("broken")
        with pytest.raises(ValueError, match="no"):
            module.anything  # noqa: B018
        assert "broken" not in sys.modules
