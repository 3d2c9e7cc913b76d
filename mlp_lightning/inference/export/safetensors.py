"""A trained model as two files without code: ``.safetensors`` with the numbers, ``.json`` with everything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mlp_lightning.config import parse_complete
from mlp_lightning.errors import CheckpointError, ConfigError
from mlp_lightning.inference.export.check import Checked, check
from mlp_lightning.inference.export.description import FORMAT_VERSION, describe, json_bytes
from mlp_lightning.inference.loading import TrainedModel, hyperparameters_of, rebuilt_module
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.own_parts import model_parts

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
    description = json_bytes(content)
    rebuilt = _rebuilt(json.loads(description), safetensors.torch.load(weights), path, model.module.own_parts)
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
    weights = weights_path.read_bytes()
    try:
        content = json.loads(json_path.read_bytes())
        version, digest = content["format_version"], content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{json_path} does not describe an exported model. Export the model again.") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{json_path} has format version {version}, and this version of the package reads {FORMAT_VERSION}. Export"
            " the model again with this version."
        )
    if hashlib.sha256(weights).hexdigest() != digest:
        raise CheckpointError(
            f"{weights_path} is not the file that {json_path.name} was written with: it is damaged, or the two are of"
            " different exports. Export the model again."
        )
    own = model_parts(hyperparameters_of(content, "hyperparameters").get("model"), allow_targets)
    try:
        return _rebuilt(content, safetensors.torch.load(weights), weights_path, own)
    except ConfigError:  # of the user's own network
        raise
    except (KeyError, TypeError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{weights_path} was made by another version of this package ({type(error).__name__}: {error})."
        ) from error


def _rebuilt(content: dict[str, Any], state: dict[str, Tensor], path: Path, own: Mapping[str, Any]) -> TrainedModel:
    module = rebuilt_module(content["hyperparameters"], state, own)
    return TrainedModel.of(module, parse_complete(content["config"], is_stored=True), path)
