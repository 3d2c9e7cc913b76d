"""A trained model from its checkpoint, with what it needs to take raw rows of a table.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``C`` classes or outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlp_lightning.config import Config, parse_complete
from mlp_lightning.errors import CheckpointError, ConfigError, shown_error
from mlp_lightning.networks.ensemble import Ensemble, union_of_columns
from mlp_lightning.networks.preprocessor import Preprocessor
from mlp_lightning.networks.tasks import Task
from mlp_lightning.networks.tasks.base import Floats
from mlp_lightning.runs.calibration import Calibration
from mlp_lightning.runs.checkpoint_content import ENSEMBLE_KEY, OF_ANOTHER
from mlp_lightning.runs.checkpoints import CONFIG_KEY, FINGERPRINT_KEY, read_checkpoint, saved_calibration
from mlp_lightning.runs.ensembles import SharedPreprocessing, assembled, parts_of
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.own_parts import model_parts
from mlp_lightning.runs.packed.resolving import unpacked
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import Surprises
from mlp_lightning.tables.reading.numbers import NumberForm
from mlp_lightning.tables.targets import Target
from mlp_lightning.tables.wild_values import WildValues
from mlp_lightning.tables.written_numbers import number_forms

# From this many weights in a layer on, more threads gain more than they slow down the threads that read.
_WEIGHTS_FOR_THREADS = 2**18
# An ensemble holds so many predictions of its members at once (128 MiB), and a few copies of them.
_MOST_PREDICTIONS = 2**24


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict.

    Attributes:
        module: in evaluation mode.
        preprocessors: of it, for raw columns; an ensemble may have several.
        columns: the raw columns that it takes, in order.
        target: what it predicts.
        preprocessing: what its columns are, as plain data; of an ensemble that of its first member.
        config: what it was trained with.
        path: of its checkpoint.
        fingerprint: of the rows that it was trained on; ``None`` if it is not known.
        wild: by column, what new numbers are compared with.
        calibration: for intervals of its predictions; ``None`` without.
        thresholds_T: from which probability on a row is of the second class of each target; ``None``: the most probable
            class.
    """

    module: MLPModule | Ensemble
    preprocessors: tuple[Preprocessor, ...]
    columns: tuple[Column, ...]
    target: Target
    preprocessing: Mapping[str, Any]
    config: Config
    path: Path
    fingerprint: Mapping[str, Any] | None = None
    wild: Mapping[str, WildValues] = dataclasses.field(default_factory=dict)
    calibration: Calibration | None = None
    thresholds_T: Floats | None = None

    @classmethod
    def of(
        cls, module: MLPModule | Ensemble, config: Config, path: Path, fingerprint: Mapping[str, Any] | None = None
    ) -> TrainedModel:
        """The model of a rebuilt module or ensemble.

        Raises:
            ValueError: the module does not prepare raw rows.
        """
        if isinstance(module, Ensemble):
            parts, preprocessing = [*module.preprocessors], module.hparams["preprocessings"][0]
        else:
            parts, preprocessing = [module.preprocessor], module.hparams["preprocessing"]
        preprocessors = tuple(one for one in parts if isinstance(one, Preprocessor))
        if not preprocessors:
            raise ValueError("it does not say what its columns are")
        columns, target = union_of_columns([one.columns for one in preprocessors]), preprocessing["target"]
        wild, of_target = WildValues.of_model(preprocessing), Target.from_dict(target)
        return cls(module, preprocessors, columns, of_target, preprocessing, config, path, fingerprint, wild)

    def surprises(self) -> Surprises:
        """Counts what new rows have that its training rows had not."""
        return Surprises(wild={name: one.unseen() for name, one in self.wild.items()})

    @property
    def is_ensemble(self) -> bool:
        """Whether it is the mean of several networks."""
        return isinstance(self.module, Ensemble)

    @property
    def task(self) -> Task:
        """What it learned."""
        return self.module.task

    @property
    def number_forms(self) -> dict[str, NumberForm]:
        """How the numbers of its training rows are written, where not as programs write them."""
        return number_forms(self.preprocessing)

    def decisions(self, predictions_BC: Tensor) -> Tensor | None:
        """The class number of each target, ``(B, T)``; ``None`` if targets have no classes."""
        if self.thresholds_T is None:
            return self.task.decisions(predictions_BC)
        of_second_BT = predictions_BC[:, -len(self.thresholds_T) :]
        return (of_second_BT >= torch.from_numpy(self.thresholds_T).to(of_second_BT.device)).long()

    @torch.no_grad()
    def predict(self, raw_BF: Floats) -> Floats:
        """What :meth:`Task.predictions` gives: probabilities, or values in their own units, ``(B, C)``."""
        if not isinstance(self.module, Ensemble):
            return self.module.predict(torch.from_numpy(raw_BF)).double().cpu().numpy()
        parts = torch.from_numpy(raw_BF).split(self._rows_at_once)
        return torch.cat([self.module.predict(part) for part in parts]).double().cpu().numpy()

    @torch.no_grad()
    def predict_with_spread(self, raw_BF: Floats) -> tuple[Floats, Floats | None]:
        """The same, and of an ensemble the standard deviation between its members for each target, ``(B, T)``.

        Of a class it is that of the probability of the predicted class; of several targets of two classes each that of
        the probability of the second class; of a number it is in its unit.
        """
        return self.predict_with(raw_BF, lambda of_members_KBC: of_members_KBC[0, :, :0])[:2]

    @torch.no_grad()
    def predict_with(self, raw_BF: Floats, further: Callable[[Tensor], Tensor]) -> tuple[Floats, Floats | None, Floats]:
        """The same, and what ``further`` makes ``(B, …)`` of the predictions of all members ``(K, B, C)``."""
        if not isinstance(self.module, Ensemble):
            predictions_BC = self.predict(raw_BF)
            return predictions_BC, None, further(torch.from_numpy(predictions_BC)[None]).numpy()
        parts, found = torch.from_numpy(raw_BF).split(self._rows_at_once), []
        for part in parts:
            of_members_KBC = self.module.member_predictions(part)
            found.append((*self._with_spread(self.module, of_members_KBC), further(of_members_KBC.cpu())))
        predictions_BC, spread_BT, further_BX = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        return predictions_BC, spread_BT, further_BX

    @property
    def _rows_at_once(self) -> int:
        """So many rows that the predictions of all members fit into little memory."""
        members = len(self.module.networks) if isinstance(self.module, Ensemble) else 1
        outputs = sum(max(1, len(one.classes)) for one in self.target.columns)
        return max(1, _MOST_PREDICTIONS // (members * outputs))

    def _with_spread(self, ensemble: Ensemble, of_members_KBC: Tensor) -> tuple[Tensor, Tensor]:
        predictions_BC, spread_BC = ensemble.mean(of_members_KBC), ensemble.spread(of_members_KBC)
        decisions_BT = self.decisions(predictions_BC)
        if decisions_BT is not None and decisions_BT.shape != spread_BC.shape:
            spread_BC = spread_BC.gather(1, decisions_BT)
        return predictions_BC, spread_BC

    @property
    def threads(self) -> int:
        """How many threads torch computes with: reading has its own threads, and small layers need only one."""
        largest = max(one.numel() for one in self.module.parameters())
        return 1 if largest < _WEIGHTS_FOR_THREADS else torch.get_num_threads()

    @property
    def run_dir(self) -> Path:
        """The folder of the run that wrote the checkpoint; that of the checkpoint if it was moved."""
        return run_dir_of(self.path)


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
    path = unpacked(Path(path).expanduser().absolute())
    checkpoint = read_checkpoint(path, or_ensemble=True)
    state, fingerprint = checkpoint["state_dict"], checkpoint.get(FINGERPRINT_KEY)
    try:
        config = parse_complete(checkpoint[CONFIG_KEY], is_stored=True)
        config = dataclasses.replace(config, allow_targets=list(allow_targets))  # for its data set
        hyperparameters = checkpoint.get(ENSEMBLE_KEY) or checkpoint["hyper_parameters"]
        module = rebuilt(hyperparameters, state, own_parts(hyperparameters, allow_targets))
        model = TrainedModel.of(module, config, path, fingerprint)
        model = dataclasses.replace(model, calibration=saved_calibration(checkpoint))
    except ConfigError:  # of the user's own network
        raise
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"ckpt_path: {path} {OF_ANOTHER} ({shown_error(error)}).") from error
    model.module.to(device)
    return model


def run_dir_of(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint; that of the checkpoint if it was moved."""
    folder = checkpoint.expanduser().absolute().parent
    return folder.parent if folder.name == "checkpoints" else folder


def own_parts(hyperparameters: Mapping[str, Any], allow_targets: Sequence[str]) -> dict[str, Any]:
    """The parts of the user's own that a module, or every member of an ensemble, is made of.

    Raises:
        ConfigError: one may not or cannot be imported.
    """
    members = hyperparameters.get("members")
    of_first = members[0] if isinstance(members, list) and members else hyperparameters
    return model_parts(of_first.get("model"), allow_targets)


def rebuilt(
    hyperparameters: Mapping[str, Any], state: Mapping[str, Tensor], own: Mapping[str, Any]
) -> MLPModule | Ensemble:
    """The module or ensemble of these hyperparameters and weights, in their precision and in evaluation mode.

    Args:
        hyperparameters: what it is made of.
        state: its weights.
        own: parts of the user's own, as :func:`own_parts` finds them.

    Raises:
        KeyError, TypeError, RuntimeError, ValueError: the two do not belong to a module of this version.
    """
    if "members" not in hyperparameters:
        return _rebuilt_module(hyperparameters, state, own)
    sharing = SharedPreprocessing()
    modules = [sharing.shared(_rebuilt_module(*part, own)) for part in parts_of(hyperparameters, state)]
    return assembled(modules, hyperparameters["weights"], hyperparameters.get("temperature", 1.0))


def _rebuilt_module(
    hyperparameters: Mapping[str, Any], state: Mapping[str, Tensor], own: Mapping[str, Any]
) -> MLPModule:
    module = MLPModule(**hyperparameters, **own)
    # A new module is in single precision, to which loading would round the weights of a run with precision 64.
    name, _ = next(module.mlp.named_parameters())
    module.to(state[f"mlp.{name}"].dtype)
    module.load_state_dict(state)
    return module.eval()
