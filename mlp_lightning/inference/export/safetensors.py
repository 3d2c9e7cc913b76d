"""A trained model as two files without code: ``.safetensors`` with the numbers, ``.json`` with everything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from mlp_lightning.errors import CheckpointError
from mlp_lightning.inference.export.check import Checked, check
from mlp_lightning.inference.export.description import describe, description_bytes, named, read_description, shortened
from mlp_lightning.inference.export.structure import check_description, rebuilt_model
from mlp_lightning.inference.loading import TrainedModel, own_parts
from mlp_lightning.runs.files import atomic_write

_ENDING = ".safetensors"


def write_safetensors(model: TrainedModel, path: Path) -> tuple[tuple[Path, ...], Checked]:
    """Write ``path`` and its ``.json``; returns both and the result of the check."""
    weights = safetensors.torch.save({name: one.contiguous() for name, one in model.module.state_dict().items()})
    content = {
        **describe(model),
        # If one of the two files was replaced, both may be complete and still not belong together.
        "sha256": hashlib.sha256(weights).hexdigest(),
        "hyperparameters": dict(model.module.hparams),
        "config": model.config.to_dict(),
    }
    description = description_bytes(content)
    rebuilt = rebuilt_model(json.loads(description), safetensors.torch.load(weights), path, model.module.own_parts)
    checked = check(model, lambda table, raw_BF: rebuilt.predict(raw_BF), tolerance=0.0)
    json_path = path.with_suffix(".json")
    for file_path, data in ((path, weights), (json_path, description)):
        with atomic_write(file_path) as file:
            file.write(data)
    return (path, json_path), checked


def load_exported(path: str | Path, allow_targets: Sequence[str] = ()) -> TrainedModel:
    """The model of an export as ``safetensors``: the same predictions, bit for bit. No code of the files is run.

    Args:
        path: of either file, or of both without the ending.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.

    Raises:
        CheckpointError: a file is missing or damaged, the two do not belong together, or another version made them.
    """
    path = Path(path).expanduser().absolute()
    if path.suffix not in (_ENDING, ".json"):
        path = path.with_name(path.name + _ENDING)
    weights_path, json_path = path.with_suffix(_ENDING), path.with_suffix(".json")
    for file in (weights_path, json_path):
        if not file.is_file():
            raise CheckpointError(
                f"There is no file {file}. A model exported as safetensors is a .safetensors and a .json."
            )
    content = read_description(json_path)
    check_description(content, json_path)
    with named(weights_path):
        weights = weights_path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != content["sha256"]:
        raise CheckpointError(
            f"{weights_path} is not the file that {json_path.name} was written with: it is damaged, or the two are of"
            " different exports. Export the model again."
        )
    own = own_parts(content["hyperparameters"], allow_targets)
    try:
        return rebuilt_model(content, safetensors.torch.load(weights), weights_path, own)
    except CheckpointError:
        raise
    except (
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        ValueError,
        SafetensorError,
    ) as error:
        raise CheckpointError(
            f"{weights_path} and its {json_path.name} were made by another version of this package, or do not fit"
            f" together ({type(error).__name__}: {shortened(error)}). Export the model again."
        ) from error
