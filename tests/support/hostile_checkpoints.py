"""Checkpoints that somebody has made to harm who loads them, or that hold something else than they should.

Each is made from the content of a real one.
"""

from __future__ import annotations

import copy
import io
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Content = dict[str, Any]
#: Bytes that no hostile file may make a process allocate.
MOST_MEMORY = 2 << 30


class _Runs:
    """Makes a folder when it is unpickled by one who runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


class _Called:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _changed(*path: str | int, to: Any) -> Callable[[Content], None]:
    """Replaces what is at a path of names."""

    def change(content: Content) -> None:
        place: Any = content
        for one in path[:-1]:
            place = place[one]
        place[path[-1]] = to

    return change


def _without(*path: str | int) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        place: Any = content
        for one in path[:-1]:
            place = place[one]
        del place[path[-1]]

    return change


def _weights(of: Callable[[torch.Tensor], Any]) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["state_dict"] = OrderedDict((name, of(one)) for name, one in content["state_dict"].items())

    return change


def _shared(depth: int = 60) -> list[Any]:
    """A short file whose text would be longer than any disk."""
    value: list[Any] = [0]
    for _ in range(depth):
        value = [value] * 10
    return value


def _deep(depth: int = 300) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


def _sized(**model: Any) -> Callable[[Content], None]:
    """Asks for a larger network, everywhere."""

    def change(content: Content) -> None:
        for section in (content["hyper_parameters"]["model"], content["config"]["model"]):
            section.update(model)

    return change


def _expanded(one: torch.Tensor) -> torch.Tensor:
    return one.flatten()[:1].expand(100_000, 100_000) if one.numel() else one


_MANY = [*map(str, range(100_000))]
HYPER, FIRST = "hyper_parameters", "mlp.layers.linear_1.weight"
CHANGES: dict[str, Callable[[Content], None]] = {
    "residuals of classes": lambda content: content.update(
        calibration={"residuals": torch.ones(9, 3).double(), "folds": None, "fold_of_member": [], "used_for": []}
    ),
    "shared lists in the configuration": lambda content: content["config"]["model"].update(hidden_units=_shared()),
    "shared lists as the seed": lambda content: content["config"].update(seed=_shared()),
    "shared lists in the hyperparameters": lambda content: content[HYPER]["model"].update(hidden_units=_shared()),
    "lists 300 deep": lambda content: content["config"].update(name=_deep()),
    "a dict in itself": lambda content: content["config"].update(model=_cyclic()),
    "a number of a million digits": _changed("config", "seed", to=10**1_000_000),
    "a width of two billion": _sized(hidden_units=2_000_000_000),
    "a width that takes 30 GB": _sized(hidden_units=[80_000, 100_000]),
    "a billion layers": _sized(hidden_units=3, depth=1_000_000_000),
    "a hundred thousand layers in a list": _sized(hidden_units=[1] * 100_000),
    "a billion outputs": _changed(HYPER, "out_features", to=1_000_000_000),
    "a hundred thousand classes": _changed(HYPER, "preprocessing", "target", "columns", 0, "classes", to=_MANY),
    "a hundred thousand categories": _changed(
        HYPER, "preprocessing", "columns", 0, "vocabulary", to=[*map(str, range(10**5))]
    ),
    "tensors without their bytes": _weights(_expanded),
    "weights that are texts": _weights(lambda one: "weight"),
    "complex weights": _weights(lambda one: one.to(torch.complex64)),
    "sparse weights": _weights(lambda one: one.to_sparse() if one.dim() == 2 else one),
    "weights of another shape": _weights(lambda one: one.flatten()),
    "no weights": _changed("state_dict", to={}),
    "one weight missing": _without("state_dict", FIRST),
    "a list of weights": _changed("state_dict", to=[1, 2]),
    "no optimizer": _without("optimizer_states"),
    "an optimizer of texts": _changed("optimizer_states", to=["Adam"]),
    "moments of another shape": lambda content: content["optimizer_states"][0]["state"][0].update(
        exp_avg=torch.zeros(3, 3)
    ),
    "steps as a text": _changed("global_step", to="12"),
    "no step": _without("global_step"),
    "no generators": _without("callbacks", "RandomState"),
    "generators of texts": _changed("callbacks", "RandomState", "torch", to="state"),
    "generators too short": _changed("callbacks", "RandomState", "torch", to=torch.zeros(3, dtype=torch.uint8)),
    "a best step that is a list": _changed("callbacks", "CheckpointKeeper", "best_step", to=[1]),
    "a configuration that is a list": _changed("config", to=[]),
    "a configuration with a wrong value": _changed("config", "optimizer", "lr", to="fast"),
    "a task that there is not": _changed(HYPER, "task", to="clustering"),
    "an activation that there is not": _changed(HYPER, "model", "activation", to="swoosh"),
    "hyperparameters that are texts": _changed(HYPER, to="none"),
    "an unknown hyperparameter": _changed(HYPER, "surprise", to=1),
    "a column that is a number": _changed(HYPER, "preprocessing", "columns", to=[1]),
    "a column of an unknown type": _changed(HYPER, "preprocessing", "columns", 0, "type", to="tensor"),
    "an unknown scaling": _changed(HYPER, "preprocessing", "scaling", to="cubic"),
    "a preprocessing that is a list": _changed(HYPER, "preprocessing", to=[]),
    "a fingerprint that is a text": _changed("fingerprint", to="abc"),
    "a fingerprint of something else": _changed("fingerprint", to={"rows": "many", "columns": 3}),
    "bytes of nine gigabytes": _changed("config", "name", to=_Called(bytearray, 9_000_000_000)),
    "a tensor of nine gigabytes": _changed("config", "name", to=_Called(torch.Tensor, 9_000_000_000 // 4)),
}
_CODE = ("code in the configuration", "code in the weights", "code at the top")
_FILES = ("deflated", "overlapping members", "empty", "a text", "a pickle", "cut in half", "a zip of something else")
NAMES = [*CHANGES, *_CODE, *_FILES]


def write(name: str, genuine: Path, path: Path, marker: Path) -> None:
    """Write a hostile checkpoint.

    Args:
        name: one of :data:`NAMES`.
        genuine: a real one.
        path: of the hostile one.
        marker: a folder that its code makes, where it has some.
    """
    content = torch.load(genuine, weights_only=True)
    if name in CHANGES:
        CHANGES[name](content)
        torch.save(content, path)
    elif name in _CODE:
        place = {_CODE[0]: content["config"], _CODE[1]: content["state_dict"], _CODE[2]: content}[name]
        place[next(iter(place))] = _Runs(marker)
        torch.save(content, path)
    else:
        path.write_bytes(_file(name, genuine, copy.deepcopy(content), marker))


def _file(name: str, genuine: Path, content: Content, marker: Path) -> bytes:
    import pickle

    whole = genuine.read_bytes()
    if name == "deflated":
        content["state_dict"] = {one: torch.zeros(5_000_000) for one in content["state_dict"]}
        return _rewritten(content, zipfile.ZIP_DEFLATED)
    if name == "overlapping members":
        return _overlapping(whole)
    if name == "a zip of something else":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("notes.txt", "no tensors")
        return buffer.getvalue()
    others = {"empty": b"", "a text": b"weights: none\n", "a pickle": pickle.dumps(_Runs(marker))}
    return others.get(name, whole[: len(whole) // 2])


def _rewritten(content: Content, compression: int) -> bytes:
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", compression) as new:
        for one in old.infolist():
            new.writestr(one.filename, old.read(one))
    return packed.getvalue()


def _overlapping(whole: bytes) -> bytes:
    """Many members at one place of the file: it is small, and what it holds is large."""
    buffer = io.BytesIO(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        largest = max(archive.infolist(), key=lambda one: one.file_size)
        for number in range(2000):
            twin = copy.copy(largest)
            twin.filename = f"archive/data/{1000 + number}"
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive._didModify = True  # type: ignore[attr-defined]  # there is no other way to write such an archive
    return buffer.getvalue()
