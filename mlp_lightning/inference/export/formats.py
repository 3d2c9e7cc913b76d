"""Trained models as files for other programs.

Three formats, all made from a checkpoint, and all checked against it before anything is written:

- ``safetensors``: weights and statistics, and a ``.json`` with everything else; :func:`load_exported` makes the
  model from both. No code, no pickle.
- ``torch``: a program of :func:`torch.export.export` for PyTorch without this package, and a ``.pt2.json``. Loading
  one may run code: never load one of a stranger.
- ``onnx``: a model that takes the columns of the table as they are, texts too, for any ONNX runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mlp_lightning.config.parsing import unknown_name
from mlp_lightning.errors import ConfigError, ExportError, MLPLightningError
from mlp_lightning.inference.export.check import Checked
from mlp_lightning.inference.export.safetensors import load_exported, write_safetensors
from mlp_lightning.inference.export.torch import write_torch
from mlp_lightning.inference.loading import TrainedModel, load_model
from mlp_lightning.networks.own import OwnNetwork

__all__ = ["ENDINGS", "ExportReport", "export_model", "load_exported"]

#: Ending of the main file of each format.
ENDINGS = {"safetensors": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export has written.

    Attributes:
        path: the main file.
        files: all files, ``path`` first.
        checked_rows: number of rows for which the exported model was compared with the checkpoint.
        largest_difference: between two predictions; as :func:`~mlp_lightning.inference.export.check.difference` has it.
        not_exported: what the model can do and the files cannot; empty if they can all.
    """

    path: Path
    files: tuple[Path, ...]
    checked_rows: int
    largest_difference: float
    not_exported: str


def export_model(
    ckpt_path: str | Path, format: str, output: str | Path | None = None, allow_targets: Sequence[str] = ()
) -> ExportReport:
    """Export the model of a checkpoint; existing files are replaced, whole or not at all.

    Args:
        ckpt_path: of a training run.
        format: ``safetensors``, ``torch`` or ``onnx``.
        output: the main file, whose ending is added if it is missing, or an existing folder. ``None``:
            ``model.safetensors``, ``model.pt2`` or ``model.onnx`` in the folder of the run.
        allow_targets: as for :func:`~mlp_lightning.inference.loading.load_model`.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        ConfigError: the format is not one of the three.
        ExportError: a package that the format needs is missing, the model cannot be expressed in the format, or what
            was exported does not predict as the model does. Nothing is written then.
    """
    if format not in ENDINGS:
        rule = f"must be one of {', '.join(ENDINGS)}"
        raise ConfigError([unknown_name("format", format, rule, ENDINGS)])
    model = load_model(ckpt_path, allow_targets=allow_targets)
    path = _main_file(output, model, ENDINGS[format])
    write = {"safetensors": write_safetensors, "torch": write_torch}.get(format) or _onnx_writer()
    try:
        files, checked = write(model, path)
    except Exception as error:
        has_own = any(isinstance(one, OwnNetwork) for one in model.module.modules())
        if not has_own or isinstance(error, MLPLightningError):
            raise
        # PyTorch's exporters cannot express all that the code of a network may do.
        cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ExportError(
            f"The network of {model.path} cannot be exported with format={format} ({cause})."
            " Nothing was written; export it with format=safetensors, or change its forward."
        ) from error
    return ExportReport(files[0], files, checked.rows, checked.largest_difference, _not_exported(model))


def _not_exported(model: TrainedModel) -> str:
    further = {
        "the spread between the members (std_<target>)": model.is_ensemble,
        "intervals (interval=…)": model.calibration is not None,
    }
    named = " and ".join(what for what, is_there in further.items() if is_there)
    return named and f"{named}; predict.py (mlp-predict) has them"


def _onnx_writer() -> Callable[[TrainedModel, Path], tuple[tuple[Path, ...], Checked]]:
    try:
        # An extra, and slow to import.
        from mlp_lightning.inference.export.onnx import write_onnx
    except ImportError as error:
        raise ExportError(
            f"format=onnx needs onnx, onnxscript and onnxruntime: pip install 'mlp-lightning[onnx]' ({error})"
        ) from error
    return write_onnx


def _main_file(output: str | Path | None, model: TrainedModel, ending: str) -> Path:
    if output is None:
        return model.run_dir / f"model{ending}"
    path = Path(output).expanduser().absolute()
    if path.is_dir():
        return path / f"model{ending}"
    return path if path.suffix == ending else path.with_name(path.name + ending)
