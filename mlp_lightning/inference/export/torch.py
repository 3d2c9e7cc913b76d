"""A trained model as a program of PyTorch, which runs without this package.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``C`` classes or outputs.

To run it::

    program = torch.export.load("model.pt2").module()
    program({"bill length (mm)": lengths_B, "island": codes_B})

``torch.export.load`` may run code that is in the file: never load one of a stranger.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlp_lightning.inference.export.check import Checked, check
from mlp_lightning.inference.export.description import code_input, describe, description_bytes
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.networks.ensemble import Ensemble
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.runs.module import MLPModule
from mlp_lightning.runs.surroundings import quiet_libraries
from mlp_lightning.tables.columns import Column
from mlp_lightning.tables.encoding import FIRST_CATEGORY, UNKNOWN

# Rows of the example with which a model is traced; not 0 or 1, which torch would treat as constants.
_ROWS_OF_EXAMPLE = 3


class PredictionNetwork(nn.Module):
    """From raw numbers ``(B, F)`` to predictions, as :meth:`Task.predictions` has them.

    Args:
        module: trained; its parameters no longer require gradients.
    """

    def __init__(self, module: MLPModule | Ensemble) -> None:
        super().__init__()
        self.module = module
        self.eval().requires_grad_(False)

    def forward(self, raw_BF: Tensor) -> Tensor:
        """Predictions ``(B, C)``."""
        return self.module.predict(raw_BF)


class ColumnNetwork(nn.Module):
    """The same, with columns by name.

    Args:
        module: trained.
        columns: that it takes.
    """

    def __init__(self, module: MLPModule | Ensemble, columns: tuple[Column, ...]) -> None:
        super().__init__()
        self.network = PredictionNetwork(module)
        self.columns = columns

    def forward(self, columns: dict[str, Tensor]) -> Tensor:
        """Predictions ``(B, C)`` of columns ``(B,)``, as :func:`tensors` has them."""
        return self.network(torch.stack([self._numbers(one, columns[one.name]) for one in self.columns], dim=1))

    @staticmethod
    def _numbers(column: Column, values_B: Tensor) -> Tensor:
        if column.kind == "categorical":
            # No code reads beyond the end of an embedding.
            known = (values_B >= 0) & (values_B < FIRST_CATEGORY + len(column.vocabulary))
            values_B = torch.where(known, values_B, UNKNOWN)
        return values_B.to(torch.float64)


def tensors(raw_BF: NDArray[np.float64], columns: tuple[Column, ...]) -> dict[str, Tensor]:
    """The inputs of an exported program, by name of the column, ``(B,)``: doubles, and 64-bit integers as codes."""
    types = {True: torch.int64, False: torch.float64}
    return {
        column.name: torch.from_numpy(raw_BF[:, number].copy()).to(types[column.kind == "categorical"])
        for number, column in enumerate(columns)
    }


def write_torch(model: TrainedModel, path: Path) -> tuple[tuple[Path, ...], Checked]:
    """Write ``path`` and its ``.json``; returns both and the result of the check."""
    network = ColumnNetwork(model.module, model.columns)
    example = tensors(np.ones((_ROWS_OF_EXAMPLE, len(model.columns))), model.columns)
    rows = torch.export.Dim("batch")
    with quiet_exporters():
        program = torch.export.export(
            network, (example,), dynamic_shapes=({name: {0: rows} for name in example},), strict=False
        )
        for part in program.graph_module.modules():
            if isinstance(part, torch.fx.GraphModule):
                for node in part.graph.nodes:
                    # It names files and folders of this machine.
                    node.meta.pop("stack_trace", None)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()

    def predict(table: pa.Table, raw_BF: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return loaded(tensors(raw_BF, model.columns)).numpy()

    checked = check(model, predict)
    content = {
        **describe(model),
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "inputs": [code_input(column) for column in model.columns],
    }
    # Not .json alone, which is the name in an export as safetensors.
    json_path = path.with_name(path.name + ".json")
    for file_path, data in ((path, buffer.getvalue()), (json_path, description_bytes(content))):
        with atomic_write(file_path) as file:
            file.write(data)
    return (path, json_path), checked


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silence messages of PyTorch's exporters about their internals, which a user cannot act on."""
    # It reports that torchvision is not installed, which nothing here uses.
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with quiet_libraries(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.disabled = was_disabled
