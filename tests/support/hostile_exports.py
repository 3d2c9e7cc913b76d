"""Exports that a stranger could hand over: damaged, of other structures, without bound, or with code in them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from mlp_lightning.inference.export.description import digest_of

#: What code in a hostile file would make.
MARK = "executed"
Change = Callable[[dict[str, Any]], object]


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / MARK),)


def described(good: dict[str, Any], change: Change) -> bytes:
    """A changed description with the right digest."""
    content = json.loads(json.dumps(good))
    change(content)
    return json.dumps({**content, "description_sha256": digest_of(content)}).encode()


def _set(*path: str | int, to: Any) -> Change:
    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return change


def _both(name: str, value: Any) -> Change:
    """An option of the model, in both places that say it."""

    def change(content: dict[str, Any]) -> None:
        content["config"]["model"][name] = content["hyperparameters"]["model"][name] = value

    return change


def _without(*path: str | int) -> Change:
    def change(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return change


PREPROCESSING = ("hyperparameters", "preprocessing")
COLUMN = (*PREPROCESSING, "columns", 0)
#: Changes of a description, each with its right digest.
CHANGES: dict[str, Change] = {
    "no hyperparameters": _without("hyperparameters"),
    "no configuration": _without("config"),
    "no digest of the tensors": _without("sha256"),
    "no columns": _set(*PREPROCESSING, "columns", to=[]),
    "a list for an object": _set("hyperparameters", to=[]),
    "a text for an object": _set("config", to="model"),
    "nothing for an object": _set(*PREPROCESSING, to=None),
    "a column that is a number": _set(*COLUMN, to=3),
    "a column without a name": _without(*COLUMN, "name"),
    "another column": _set(*COLUMN, "name", to="another"),
    "a column of an unknown kind": _set(*COLUMN, "kind", to="__import__('os').system('id')"),
    "a column of an unknown type": _set(*COLUMN, "type", to="object"),
    "an unknown task": _set("hyperparameters", "task", to="os.system"),
    "another target": _set("target", "columns", 0, "name", to="another"),
    "other classes": _set(*PREPROCESSING, "target", "columns", 0, "classes", to=["a", "b", "c"]),
    "a million classes": _set(*PREPROCESSING, "target", "columns", 0, "classes", to=list(map(str, range(1_000_000)))),
    "classes that are lists": _set(*PREPROCESSING, "target", "columns", 0, "classes", to=[[1], {"a": 2}]),
    "features without bound": _set("hyperparameters", "in_features", to=10**12),
    "outputs without bound": _set("hyperparameters", "out_features", to=10**30),
    "a feature that is a truth value": _set("hyperparameters", "in_features", to=True),
    "negative features": _set("hyperparameters", "in_features", to=-1),
    "units without bound": _both("hidden_units", 10**9),
    "units beyond any integer": _both("hidden_units", 10**40),
    "layers without bound": _both("depth", 10**9),
    "units that are texts": _both("hidden_units", ["8"]),
    "an embedding without bound": _both("embedding_frequencies", 10**11),
    "an activation that is code": _both("activation", "os.system"),
    "a network that is code": _both("_target_", "os.system"),
    "an unknown hyperparameter": _set("hyperparameters", "unknown", to=1),
    "another network in the configuration": _set("config", "model", "hidden_units", to=9),
    "an unknown option": _set("config", "unknown", to=1),
    "a learning rate of NaN": _set("config", "optimizer", "lr", to=float("nan")),
    "an interpolation": _set("config", "name", to="${oc.env:HOME}"),
}


def hostile_exports(good: Path, folder: Path) -> dict[str, Path]:
    """Hostile exports by what they are, made of a good one.

    Args:
        good: the ``.safetensors`` of it.
        folder: where to write them.
    """
    content, weights = json.loads(good.with_suffix(".json").read_bytes()), good.read_bytes()
    state = safetensors.torch.load(weights)
    made: dict[str, Path] = {}

    def add(name: str, description: bytes, tensors: bytes = weights) -> None:
        path = folder / f"{len(made)}.safetensors"
        path.with_suffix(".json").write_bytes(description)
        path.write_bytes(tensors)
        made[name] = path

    def with_tensors(name: str, tensors: bytes) -> None:
        add(name, described(content, _set("sha256", to=hashlib.sha256(tensors).hexdigest())), tensors)

    for name, change in CHANGES.items():
        add(name, described(content, change))
    add("a million brackets", b"[" * 1_000_000 + b"]" * 1_000_000)
    add("a million brackets inside", b'{"format_version": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}")
    add("a number of a million digits", b'{"format_version": ' + b"9" * 1_000_000 + b"}")
    add("a description that is a pickle", pickle.dumps(Executed(folder)))
    add("no text", b"\xff\xfe\x00")
    add("nothing", b"")
    add("an old digest", json.dumps({**content, "class_names": ["x", "y"]}).encode())
    with_tensors("tensors that are a pickle", pickle.dumps(Executed(folder)))
    with_tensors("a header without end", struct.pack("<Q", 2**63) + b"{" * 100)
    with_tensors("a header of brackets", struct.pack("<Q", 100_000) + b"[" * 100_000)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    with_tensors("a tensor that is not there", struct.pack("<Q", len(header)) + header)
    with_tensors("no tensors", safetensors.torch.save({}))
    with_tensors("tensors of integers", safetensors.torch.save({name: one.long() for name, one in state.items()}))
    with_tensors(
        "complex tensors", safetensors.torch.save({name: one.to(torch.complex64) for name, one in state.items()})
    )
    with_tensors("tensors of one number", safetensors.torch.save({name: torch.zeros(1) for name in state}))
    with_tensors("half of the tensors", safetensors.torch.save(dict(list(state.items())[::2])))
    with_tensors("half of the file", weights[: len(weights) // 2])
    return made
