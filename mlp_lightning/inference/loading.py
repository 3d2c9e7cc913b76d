"""A trained model from its checkpoint, with what is needed to feed it raw rows of a table.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlp_lightning.config import Config, parse_config
from mlp_lightning.data import data_module_class
from mlp_lightning.errors import CheckpointError
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.runs.checkpoints import CONFIG_KEY, read_checkpoint
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.own_parts import network_class
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.targets import Target

# From this many weights in a layer on, further threads gain more than they cost the threads that read.
_WEIGHTS_FOR_THREADS = 2**18


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict.

    Attributes:
        module: in evaluation mode.
        columns: the raw columns that it takes, in order.
        target: what it predicts.
        config: what it was trained with.
        path: of its checkpoint.
    """

    module: MLPModule
    columns: tuple[Column, ...]
    target: Target
    config: Config
    path: Path

    @torch.no_grad()
    def predict(self, raw_BF: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of all classes ``(B, C)`` (of both classes of a binary task), or values in their own units."""
        predicted_BC = self.module.predict(torch.from_numpy(raw_BF)).double().cpu().numpy()
        if self.target.task == "binary":
            return np.concatenate([1 - predicted_BC, predicted_BC], axis=1)
        return predicted_BC

    @property
    def threads(self) -> int:
        """How many threads torch computes with: reading has its own threads, and small layers need only one."""
        largest = max(one.numel() for one in self.module.mlp.parameters())
        return 1 if largest < _WEIGHTS_FOR_THREADS else torch.get_num_threads()

    @property
    def run_dir(self) -> Path:
        """The folder of the run that made the checkpoint; that of the checkpoint if it was moved."""
        folder = self.path.parent
        return folder.parent if folder.name == "checkpoints" else folder


def load_model(path: str | Path, device: str = "cpu", allow_targets: Sequence[str] = ()) -> TrainedModel:
    """Load a checkpoint of a training run; never runs code in it.

    Args:
        path: of the checkpoint.
        device: where to bring the model.
        allow_targets: packages and modules that the network may be imported from, if it is one of the user's own. What
            the checkpoint itself says of that does not count.

    Raises:
        ConfigError: the network is the user's own, and may not or cannot be imported.
        CheckpointError: there is no such file, or it is not a checkpoint of this package.
    """
    path = Path(path).expanduser().absolute()
    checkpoint = read_checkpoint(path)
    network = network_class(hyperparameters_of(checkpoint).get("model"), allow_targets)
    try:
        module = rebuilt_module(checkpoint["hyper_parameters"], checkpoint["state_dict"], network)
        config = parse_config(checkpoint[CONFIG_KEY], is_stored=True)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"ckpt_path: {path} was made by another version of this package ({type(error).__name__}: {error})."
        ) from error
    module.to(device)
    columns, target = _raw_columns(module, config)
    return TrainedModel(module, columns, target, config, path)


def hyperparameters_of(content: Mapping[str, Any], key: str = "hyper_parameters") -> Mapping[str, Any]:
    """What a file says a module is made of; nothing if it does not say it."""
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def rebuilt_module(
    hyperparameters: Mapping[str, Any], state: Mapping[str, Tensor], network: type[nn.Module] | None = None
) -> MLPModule:
    """The module of these hyperparameters and weights, in the precision of the weights and in evaluation mode.

    Args:
        hyperparameters: what it is made of.
        state: its weights.
        network: the class of a network of the user's own.

    Raises:
        KeyError, TypeError, RuntimeError, ValueError: the two do not belong to a module of this version.
    """
    module = MLPModule(**hyperparameters, network=network)
    # A new module is in single precision, to which loading would round the weights of a run with precision 64.
    name, _ = next(module.mlp.named_parameters())
    module.to(state[f"mlp.{name}"].dtype)
    module.load_state_dict(state)
    return module.eval()


def _raw_columns(module: MLPModule, config: Config) -> tuple[tuple[Column, ...], Target]:
    """What the model takes and gives; data sets that are not tables have columns of numbers."""
    if isinstance(module.preprocessor, Preprocessor):
        assert module.target is not None
        return module.preprocessor.columns, module.target
    data = data_module_class(config.data.name)
    names = data.feature_names or tuple(f"x{number}" for number in range(1, module.hparams["in_features"] + 1))
    task = module.task.name
    # Classes that are numbers in the data set are numbers in a table.
    whole = all(name.isdecimal() for name in data.class_names)
    classes = tuple(int(name) if whole else name for name in data.class_names)
    kind = "float64" if task == "regression" else "int64" if whole else "string"
    return tuple(Column(name, "numeric", "float64") for name in names), Target((data.target_name,), task, kind, classes)
