"""What a checkpoint or a saved stack holds: its structure, checked once when the file is read.

Rules are nested: a type or several, ``[rule]`` for a list of any length, ``{name: rule}`` for a dict that has these
names (and perhaps more; one that ends in ``?`` may be missing), :class:`Each` for a dict with any names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mlp_lightning.errors import CheckpointError, shown
from mlp_lightning.runs.checkpoint_files import open_whole

OF_ANOTHER = "was made by another version of this package, or has been changed"
# Lists that hold each other count as often as they would be printed.
_MOST_VALUES, _DEEPEST, _LONGEST_NUMBER = 10_000_000, 50, 64
_MOST_SHARED, _SMALL = 16, 2**26
SCALARS = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)
_TENSORS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_TENSORS |= {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}


class Each(NamedTuple):
    """A dict of texts to what follows one rule."""

    rule: Any


NUMBER = (int, float)
_COLUMN = {"name": str, "kind": str, "type": str, "vocabulary": [(str, int, float, bool)], "parts": [str]}
_TARGET = {"name": str, "type": str, "classes": [(str, int, float, bool)]}
_PREPROCESSING = {
    "columns": [_COLUMN],
    "scaling": str,
    "target": {"task": str, "columns": [_TARGET]},
    "quartiles?": Each([NUMBER]),
}
HYPERPARAMETERS = {
    "in_features": int,
    "out_features": int,
    "task": str,
    "model": Each((*SCALARS, list, dict)),
    "optimizer": Each((*SCALARS, list, dict)),
    "scheduler": Each((*SCALARS, list, dict)),
    "seed?": int,
    "preprocessing?": (_PREPROCESSING, type(None)),
}
#: A checkpoint that any Trainer wrote of our module.
MODULE = {"state_dict": Each(Tensor), "hyper_parameters": HYPERPARAMETERS}
_GENERATORS = {
    "torch": Tensor,
    "python": [(int, float, Tensor, type(None))],
    "numpy": [(int, float, Tensor)],
}
#: Names the residuals of rows that the model did not train on: see :mod:`mlp_lightning.runs.calibration`.
CALIBRATION_KEY = "calibration"
CALIBRATION = {"residuals": Tensor, "folds": (Tensor, type(None)), "fold_of_member": [int], "used_for": [str]}
#: A checkpoint of a training run.
RUN = {
    **MODULE,
    "global_step": int,
    "epoch": int,
    "config": Each((*SCALARS, list, dict)),
    "callbacks": {
        "RandomState": _GENERATORS,
        "CheckpointKeeper": {"monitor": str, "best_value": (*NUMBER, type(None)), "best_step": (int, type(None))},
    },
    "optimizer_states": [{"state": dict, "param_groups": [{"params": [int], "lr": NUMBER}]}],
    "lr_schedulers": [dict],
    "epoch_loss?": NUMBER,
    "validation_pending?": bool,
    "fingerprint?": (Each({"rows": int, "columns": Each(str), "as_set": str}), type(None)),
    "dropout_masks?": str,
    f"{CALIBRATION_KEY}?": CALIBRATION,
    "snapshots?": {"steps": [int], "weights": Each(Tensor)},
}
#: Names what a checkpoint of an ensemble says of its members: see :mod:`mlp_lightning.runs.ensembles`.
ENSEMBLE_KEY = "ensemble"
#: A checkpoint of an ensemble.
ENSEMBLE = {
    "state_dict": Each(Tensor),
    "config": RUN["config"],
    ENSEMBLE_KEY: {
        "members": [{**HYPERPARAMETERS, "preprocessing?": int, "preprocessing": int}],
        "preprocessings": [_PREPROCESSING],
        "weights": [NUMBER],
        "temperature?": NUMBER,
    },
    "fingerprint?": RUN["fingerprint?"],
    f"{CALIBRATION_KEY}?": CALIBRATION,
}


class _Wrong(ValueError):  # noqa: N818  # becomes a CheckpointError, which names the file
    """What is wrong and where."""


def read_content(
    path: Path, rule: Mapping[str, Any], what: str, prefix: str = "ckpt_path: ", or_ensemble: bool = False
) -> dict[str, Any]:
    """The content of a file of torch's, on the CPU; never runs code that may be in it.

    Args:
        path: of the file.
        rule: of its structure.
        what: the file is to be, such as "a checkpoint of a training run of this package".
        prefix: what messages begin with.
        or_ensemble: whether it may be a checkpoint of an ensemble instead.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is something else.
    """
    with open_whole(path, prefix, what) as file:
        content = _loaded(file, f"{prefix}{path} cannot be read as {what}")
    try:
        refuse_unbounded(content)
        if isinstance(content, dict) and ENSEMBLE_KEY in content:
            if not or_ensemble:
                raise CheckpointError(
                    f"{prefix}{path} is an ensemble, and not {what}. Evaluate it, predict with it or export it;"
                    " training continues from the checkpoints of its members alone."
                )
            rule = ENSEMBLE
        missing = [
            name for name in rule if not name.endswith("?") and not (isinstance(content, dict) and name in content)
        ]
        if missing:
            raise CheckpointError(f"{prefix}{path} is not {what} (it has no {', '.join(missing)}).")
        check(content, rule, "")
    except _Wrong as error:
        raise CheckpointError(f"{prefix}{path} is not {what}: {error}.") from None
    return content


def _loaded(file: BinaryIO, refused: str) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{refused} ({type(error).__name__}). The file is damaged, or it"
            " holds more than numbers and plain data and is not opened for safety."
        ) from error


def refuse_unbounded(content: Any) -> None:
    """Refuse what is no plain data, or would be without end if it were printed.

    Raises:
        ValueError: saying what and where.
    """
    left, waiting, storages, bytes_of_all = _MOST_VALUES, [(content, 0)], dict[int, int](), 0
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        if isinstance(value, Tensor):
            bytes_of_all += _check_tensor(value)
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            continue
        if isinstance(value, Mapping):
            inside = [*value, *value.values()]
        elif isinstance(value, (list, tuple, set)):
            inside = list(value)
        elif isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
            raise _Wrong(f"it holds a number of {value.bit_length():,} bits, and the limit is {_LONGEST_NUMBER}")
        elif isinstance(value, SCALARS):
            left -= len(value) // 100 if isinstance(value, (str, bytes)) else 0
            inside = []
        else:
            raise _Wrong(f"it holds a {type(value).__name__}, which is no plain data")
        if depth > _DEEPEST:
            raise _Wrong(f"its lists are nested more than {_DEEPEST} deep, which is the limit")
        if left - len(inside) < 0:
            raise _Wrong(f"it holds more than {_MOST_VALUES:,} values, which is the limit")
        if inside and set(map(type, inside)) == {str}:
            left -= len(inside) + sum(map(len, inside)) // 100
        else:
            waiting += [(one, depth + 1) for one in inside]
    # Layers may share weights; a small file must not become a large model.
    if bytes_of_all > _SMALL + _MOST_SHARED * (there := sum(storages.values())):
        raise _Wrong(f"it holds {bytes_of_all:,} bytes of tensors that share {there:,} bytes")


def _check_tensor(tensor: Tensor) -> int:
    """The bytes that it takes."""
    if tensor.dtype not in _TENSORS or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise _Wrong(f"it holds a tensor of {tensor.dtype} ({tensor.layout}), which no model of this package has")
    there, wanted = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size()
    if wanted > there:
        raise _Wrong(f"it holds a tensor of {wanted:,} bytes {tuple(tensor.shape)}, and {there:,} of them are there")
    return wanted


def check(value: Any, rule: Any, where: str) -> None:
    """Compare a value with a rule.

    Raises:
        ValueError: naming the place, the value and the rule.
    """
    if isinstance(rule, tuple) and not isinstance(rule, Each):
        parts = [one for one in rule if isinstance(one, (dict, list, Each))]
        types = tuple(one for one in rule if isinstance(one, type))
        if isinstance(value, types) or not parts:
            _check_type(value, types, where)
        else:
            check(value, parts[0], where)
    elif isinstance(rule, Each):
        _check_type(value, dict, where)
        for name, one in value.items():
            _check_type(name, str, f"a name in {where}")
            check(one, rule.rule, f"{where}.{name}")
    elif isinstance(rule, dict):
        _check_type(value, dict, where)
        for name, inner in rule.items():
            key = name.removesuffix("?")
            if key in value:
                check(value[key], inner, f"{where}.{key}")
            elif key == name:
                raise _Wrong(f"{where.removeprefix('.')} has no {key}")
    elif isinstance(rule, list):
        _check_type(value, (list, tuple), where)
        if isinstance(rule[0], tuple) and set(map(type, value)) <= set(filter(_is_type, rule[0])):
            return
        for number, one in enumerate(value):
            check(one, rule[0], f"{where}[{number}]")
    else:
        _check_type(value, rule, where)


def _is_type(rule: Any) -> bool:
    return isinstance(rule, type)


def _check_type(value: Any, wanted: type | tuple[type, ...], where: str) -> None:
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    # A truth value is a number to Python alone.
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        names = " or ".join(dict.fromkeys("null" if one is type(None) else one.__name__ for one in wanted))
        what = f"a {type(value).__name__}" if isinstance(value, (Tensor, dict, list)) else shown(value)
        raise _Wrong(f"{where.removeprefix('.')} is {what}, and must be {names}")
