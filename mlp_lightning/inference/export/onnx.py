"""A trained model for ONNX runtimes, which takes the columns of a table as they are.

Shapes: ``B`` rows, ``F`` columns that the model sees, ``C`` classes, ``T`` targets.

One input ``(B, 1)`` for each column, with its name; :func:`feeds` makes them from a table:

- numbers, truth values (0 and 1) and moments (seconds since 1970) are doubles, NaN if missing;
- categories are texts, empty if missing, or 64-bit integers, the least one (-2**63) if missing; values that no training
  row had are unknown. Categories that are truth values are booleans if none was missing in training; a boolean cannot
  be missing, so you have to fill in such a value before.

Outputs: ``probabilities (B, C)`` and ``label (B,)`` of a classification, ``prediction (B, T)`` of a regression; of
several targets of two classes each ``probabilities (B, T)``, of the second class of each, and ``label_<target> (B,)``
for each. If a column has the name of an output, the output's name gets a ``_`` at its end. The model's
``metadata_props`` record all this.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnxruntime
import onnxscript  # noqa: F401 - torch's exporter needs it; a missing package must fail first
import pyarrow as pa
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from mlp_lightning.errors import DataError, ExportError, counted
from mlp_lightning.inference.export.check import Checked, check
from mlp_lightning.inference.export.description import describe, missing_integer, missing_text, value_input, value_type
from mlp_lightning.inference.export.torch import PredictionNetwork, quiet_exporters
from mlp_lightning.inference.loading import TrainedModel
from mlp_lightning.runs.files import atomic_write
from mlp_lightning.tables.columns import Column, to_seconds
from mlp_lightning.tables.encoding import FIRST_CATEGORY, MISSING, UNKNOWN, as_typed

_OPSET = 18
_OPSET_OF_LABEL_ENCODER = 3
_ELEMENT_TYPES = {
    "double": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def write_onnx(model: TrainedModel, path: Path) -> tuple[tuple[Path, ...], Checked]:
    """Write ``path``; returns it and the result of the check."""
    made = onnx_model(model)
    try:
        onnx.checker.check_model(made, full_check=True)
        data = made.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; printing them adds nothing
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise _cannot_run(model, error) from error
    names = [output.name for output in session.get_outputs()]

    def predict(table: pa.Table, raw_BF: NDArray[np.float64]) -> NDArray[Any]:
        inputs = feeds(table, model.columns)
        try:
            predicted_BC, *labels = (np.asarray(one) for one in session.run(names, inputs))
        except Exception as error:  # as above
            raise _cannot_run(model, error) from error
        decisions_BT = model.task.decisions(torch.from_numpy(predicted_BC))
        if decisions_BT is not None:
            for column, decided_B, given_B in zip(model.target.columns, decisions_BT.T, labels, strict=True):
                if given_B.tolist() != column.values(decided_B.numpy()).to_pylist():
                    raise ExportError(f"The labels of the exported model of {model.path} do not fit its probabilities.")
        return predicted_BC

    # The exported model cannot take a missing truth value, so it cannot be compared.
    complete = {column.name for column in model.columns if value_type(column) == "bool"}
    checked = check(model, predict, complete=complete)
    with atomic_write(path) as file:
        file.write(data)
    return (path,), checked


def _cannot_run(model: TrainedModel, error: Exception) -> ExportError:
    return ExportError(
        f"The model of {model.path} cannot be run as ONNX ({type(error).__name__}: {error}). Nothing was written;"
        " export it with format=torch or format=safetensors."
    )


def feeds(table: pa.Table, columns: Iterable[Column]) -> dict[str, NDArray[Any]]:
    """The inputs of the exported model for the rows of a table: arrays ``(B, 1)`` by name.

    Raises:
        DataError: a truth value is missing that the model cannot take as missing.
    """
    return {column.name: _values(table.column(column.name), column)[:, None] for column in columns}


def _values(values: pa.ChunkedArray, column: Column) -> NDArray[Any]:
    values = as_typed(values, column, lambda row: f"row {row + 1}")
    kind = value_type(column)
    if kind == "string":
        return np.array(values.fill_null(missing_text(column)).to_pylist(), dtype=object)
    if kind == "int64":
        return values.fill_null(missing_integer(column)).to_numpy()
    if kind == "bool":
        if values.null_count:
            raise DataError(
                f"Column {column.name!r} has no value in {counted(values.null_count, 'row')}. The exported model takes"
                " it as a boolean, which cannot be missing, as no training row was without one. Fill the gaps, or leave"
                " out these rows."
            )
        return values.to_numpy()
    if column.kind == "datetime":
        return to_seconds(values)
    return (values.cast(pa.int8()) if column.type == "bool" else values).cast(pa.float64()).to_numpy()


class _DecidingNetwork(PredictionNetwork):
    """The same, and the class number of each target ``(B, T)`` where targets have classes."""

    def forward(self, raw_BF: Tensor) -> Any:
        predictions_BC = super().forward(raw_BF)
        decisions_BT = self.module.task.decisions(predictions_BC)
        return predictions_BC if decisions_BT is None else (predictions_BC, decisions_BT)


def onnx_model(model: TrainedModel) -> onnx.ModelProto:
    """The whole model: columns to codes, codes to predictions, predictions to labels."""
    names = [column.name for column in model.columns]
    # Names within the graph must not clash with names of columns.
    prefix = "network/"
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    network = onnx.compose.add_prefix(_network(model), prefix)
    graph = network.graph
    graph_in, (graph_out, *decided) = graph.input[0].name, graph.output
    nodes = _encoding(model.columns, prefix, graph_in) + list(graph.node)
    inputs = [
        helper.make_tensor_value_info(column.name, _ELEMENT_TYPES[value_type(column)], ["batch", 1])
        for column in model.columns
    ]
    outputs, more_nodes, initializers = _outputs(model, prefix, graph_out, decided[0] if decided else None)
    whole = helper.make_graph(nodes + more_nodes, "mlp_lightning", inputs, outputs, [*graph.initializer, *initializers])
    made = helper.make_model(
        whole,
        producer_name="mlp_lightning",
        ir_version=network.ir_version,
        functions=list(network.functions),
        opset_imports=[*network.opset_import, helper.make_opsetid("ai.onnx.ml", _OPSET_OF_LABEL_ENCODER)],
    )
    described = {**describe(model), "inputs": [value_input(column) for column in model.columns]}
    as_texts = {
        name: one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for name, one in described.items()
    }
    helper.set_model_props(made, as_texts)
    return made


def _network(model: TrainedModel) -> onnx.ModelProto:
    """From raw numbers ``(B, F)`` to predictions, by PyTorch's exporter."""
    network = _DecidingNetwork(model.module)
    example_BF = torch.ones(3, len(model.columns), dtype=torch.float64)
    with quiet_exporters():
        program = torch.onnx.export(
            network,
            (example_BF,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    made = program.model_proto
    _cosine_as_sine(made.graph)
    # Traces that name files and folders of this machine.
    del made.graph.value_info[:]
    for part in (*made.graph.node, *made.graph.initializer, *made.graph.input, *made.graph.output):
        part.ClearField("metadata_props")
        part.doc_string = ""
    if next(model.module.parameters()).dtype == torch.float64:
        _lower_erf(made.graph)
    return made


def _cosine_as_sine(graph: onnx.GraphProto) -> None:
    """Replace cosines of doubles (of times of day and the like) by sines: onnxruntime up to 1.23 has only those."""
    types = {one.name: one.type.tensor_type.elem_type for one in graph.value_info}
    nodes = []
    for number, node in enumerate(graph.node):
        if node.op_type != "Cos" or types[node.input[0]] != TensorProto.DOUBLE:
            nodes.append(node)
            continue
        quarter, shifted = f"cos_{number}_quarter", f"cos_{number}_shifted"
        graph.initializer.append(helper.make_tensor(quarter, TensorProto.DOUBLE, [], [math.pi / 2]))
        nodes += [
            helper.make_node("Add", [node.input[0], quarter], [shifted]),
            helper.make_node("Sin", [shifted], [node.output[0]]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _lower_erf(graph: onnx.GraphProto) -> None:
    """Compute the error function (of ``gelu``) in single precision: onnxruntime has no other."""
    nodes = []
    for number, node in enumerate(graph.node):
        if node.op_type != "Erf":
            nodes.append(node)
            continue
        low, high = f"erf_{number}_of_single", f"erf_{number}_single"
        nodes += [
            helper.make_node("Cast", [node.input[0]], [low], to=TensorProto.FLOAT),
            helper.make_node("Erf", [low], [high]),
            helper.make_node("Cast", [high], [node.output[0]], to=TensorProto.DOUBLE),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _encoding(columns: Iterable[Column], prefix: str, output: str) -> list[onnx.NodeProto]:
    """Nodes from the inputs to the raw numbers ``(B, F)``."""
    nodes, parts = [], []
    for number, column in enumerate(columns):
        part = column.name
        if column.kind == "categorical":
            part = f"{prefix}column_{number}"
            nodes += _codes(column, part)
        parts.append(part)
    return [*nodes, helper.make_node("Concat", parts, [output], axis=1)]


def _codes(column: Column, output: str) -> list[onnx.NodeProto]:
    """Nodes from a category to its code, as a double."""
    codes = [FIRST_CATEGORY + index for index in range(len(column.vocabulary))]
    kind, nodes, values = value_type(column), [], column.name
    keys: dict[str, Any]
    if kind == "string":
        keys = {"keys_strings": [*column.vocabulary, missing_text(column)]}
    else:
        keys = {"keys_int64s": [*map(int, column.vocabulary), missing_integer(column)]}
    if kind == "double":
        # NaN cannot be a key; the value it is cast to is not used.
        gap, known = f"{output}_gap", f"{output}_known"
        least = helper.make_tensor("", TensorProto.INT64, [], [missing_integer(column)])
        whole, marker = f"{output}_cast", f"{output}_marker"
        nodes += [
            helper.make_node("IsNaN", [values], [gap]),
            helper.make_node("Cast", [values], [whole], to=TensorProto.INT64),
            helper.make_node("Constant", [], [marker], value=least),
            helper.make_node("Where", [gap, marker, whole], [known]),
        ]
        values = known
    elif kind == "bool":
        nodes.append(helper.make_node("Cast", [values], [f"{output}_cast"], to=TensorProto.INT64))
        values = f"{output}_cast"
    encoder = helper.make_node(
        "LabelEncoder",
        [values],
        [f"{output}_code"],
        domain="ai.onnx.ml",
        values_int64s=[*codes, MISSING],
        default_int64=UNKNOWN,
        **keys,
    )
    return [*nodes, encoder, helper.make_node("Cast", [f"{output}_code"], [output], to=TensorProto.DOUBLE)]


def _outputs(
    model: TrainedModel, prefix: str, predicted: onnx.ValueInfoProto, decided: onnx.ValueInfoProto | None
) -> tuple[list[onnx.ValueInfoProto], list[onnx.NodeProto], list[TensorProto]]:
    """The outputs with their nodes and constants."""
    taken = {column.name for column in model.columns}
    target = model.target
    name = _free("probabilities" if model.task.has_classes else "prediction", taken)
    shape = ["batch", len(model.task.prediction_names(target))]
    infos = [helper.make_tensor_value_info(name, predicted.type.tensor_type.elem_type, shape)]
    nodes, constants = [helper.make_node("Identity", [predicted.name], [name])], []
    if decided is None:
        return infos, nodes, constants
    for number, column in enumerate(target.columns):
        name = "label" if len(target.columns) == 1 else f"label_{column.name}"
        name = _free(name, {*taken, *(info.name for info in infos)})
        values = np.array(column.classes, dtype=object if column.type == "string" else None)
        classes = numpy_helper.from_array(values, f"{prefix}classes_{number}")
        which = numpy_helper.from_array(np.array(number), f"{prefix}target_{number}")
        infos.append(helper.make_tensor_value_info(name, classes.data_type, ["batch"]))
        nodes += [
            helper.make_node("Gather", [decided.name, which.name], [f"{prefix}class_{number}"], axis=1),
            helper.make_node("Gather", [classes.name, f"{prefix}class_{number}"], [name], axis=0),
        ]
        constants += [classes, which]
    return infos, nodes, constants


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
