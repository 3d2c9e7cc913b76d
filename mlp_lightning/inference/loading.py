"""A trained model from its checkpoint, with what it needs to take raw rows of a table.

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
from torch import Tensor

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.errors import CheckpointError, ConfigError, shown_error
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import Task
from mlp_lightning.runs.checkpoint_content import OF_ANOTHER
from mlp_lightning.runs.checkpoints import CONFIG_KEY, FINGERPRINT_KEY, read_checkpoint
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.own_parts import model_parts
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.written_numbers import number_forms

# From this many weights in a layer on, more threads gain more than they slow down the threads that read.
_WEIGHTS_FOR_THREADS = 2**18


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict.

    Attributes:
        module: in evaluation mode.
        preprocessor: of it, for raw columns.
        target: what it predicts.
        config: what it was trained with.
        path: of its checkpoint.
        fingerprint: of the rows that it was trained on; ``None`` if it is not known.
    """

    module: MLPModule
    preprocessor: Preprocessor
    target: Target
    config: Config
    path: Path
    fingerprint: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, module: MLPModule, config: Config, path: Path, fingerprint: Mapping[str, Any] | None = None
    ) -> TrainedModel:
        """The model of a rebuilt module.

        Raises:
            ValueError: the module does not prepare raw rows.
        """
        if not isinstance(module.preprocessor, Preprocessor) or module.target is None:
            raise ValueError("it does not say what its columns are")
        return cls(module, module.preprocessor, module.target, config, path, fingerprint)

    @property
    def task(self) -> Task:
        """What it learned."""
        return self.module.task

    @property
    def number_forms(self) -> dict[str, NumberForm]:
        """How the numbers of its training rows are written, where not as programs write them."""
        return number_forms(self.module.hparams)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The raw columns that it takes, in order."""
        return self.preprocessor.columns

    @torch.no_grad()
    def predict(self, raw_BF: NDArray[np.float64]) -> NDArray[np.float64]:
        """What :meth:`Task.predictions` gives: probabilities, or values in their own units, ``(B, C)``."""
        return self.module.predict(torch.from_numpy(raw_BF)).double().cpu().numpy()

    @property
    def threads(self) -> int:
        """How many threads torch computes with: reading has its own threads, and small layers need only one."""
        largest = max(one.numel() for one in self.module.mlp.parameters())
        return 1 if largest < _WEIGHTS_FOR_THREADS else torch.get_num_threads()

    @property
    def run_dir(self) -> Path:
        """The folder of the run that wrote the checkpoint; that of the checkpoint if it was moved."""
        folder = self.path.parent
        return folder.parent if folder.name == "checkpoints" else folder


def load_model(path: str | Path, device: str = "cpu", allow_targets: Sequence[str] = ()) -> TrainedModel:
    """Load a checkpoint of a training run; never runs code from it.

    Args:
        path: of the checkpoint.
        device: where to bring the model.
        allow_targets: packages and modules that the network may be imported from, if it is one of the user's own, and
            later its data set, if its rows are asked for. What the checkpoint itself says of that does not count.

    Raises:
        ConfigError: the network or its activation is the user's own, and may not or cannot be imported.
        CheckpointError: there is no such file, or it is not a checkpoint of this package.
    """
    path = Path(path).expanduser().absolute()
    checkpoint = read_checkpoint(path)
    hyperparameters, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    own = model_parts(hyperparameters["model"], allow_targets)
    try:
        module = rebuilt_module(hyperparameters, state, own)
        config = parse_complete(checkpoint[CONFIG_KEY], is_stored=True)
        config = dataclasses.replace(config, allow_targets=list(allow_targets))  # for its data set
        model = TrainedModel.of(module, config, path, checkpoint.get(FINGERPRINT_KEY))
    except ConfigError:  # of the user's own network
        raise
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"ckpt_path: {path} {OF_ANOTHER} ({shown_error(error)}).") from error
    module.to(device)
    return model


def hyperparameters_of(content: Mapping[str, Any], key: str = "hyper_parameters") -> Mapping[str, Any]:
    """What a file says a module is made of; nothing if it does not say it."""
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def rebuilt_module(
    hyperparameters: Mapping[str, Any], state: Mapping[str, Tensor], own: Mapping[str, Any]
) -> MLPModule:
    """The module of these hyperparameters and weights, in the precision of the weights and in evaluation mode.

    Args:
        hyperparameters: what it is made of.
        state: its weights.
        own: parts of the user's own, as :func:`~mlp_lightning.runs.own_parts.model_parts` finds them.

    Raises:
        KeyError, TypeError, RuntimeError, ValueError: the two do not belong to a module of this version.
    """
    module = MLPModule(**hyperparameters, **own)
    # A new module is in single precision, to which loading would round the weights of a run with precision 64.
    name, _ = next(module.mlp.named_parameters())
    module.to(state[f"mlp.{name}"].dtype)
    module.load_state_dict(state)
    return module.eval()
