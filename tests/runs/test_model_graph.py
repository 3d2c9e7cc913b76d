"""The model graph in TensorBoard, against what the modules themselves say and torch's own trace of the operations."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.configurations import ComposeConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import mlp_lightning
from mlp_lightning.networks.mlp import MLP
from mlp_lightning.runs.model_graph import graph_pb2, model_graph


class Own(nn.Module):
    """Views, attributes, a constant, several results, in-place operations, a layer that is used twice."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.Linear(4, 4)  # the name of an operation
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.relu(x).chunk(2, dim=1)
        joined = torch.cat([left, right.mul(2.5)], 1).add_(self.shift)
        return self.relu(torch.relu(joined)).T.T + torch.full((4,), 0.5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (lambda: MLP(2, 3, [5, 4], "tanh"), 2),
    "norm and dropout": (lambda: MLP(3, 1, [4, 4, 4], "gelu", dropout=0.2, norm="batch"), 3),
    "residual": (lambda: MLP(4, 4, [6, 6], "relu", norm="layer", residual=True), 4),
    "linear": (lambda: MLP(7, 2, []), 7),
    "own": (Own, 4),
}


def nodes_of(network: nn.Module, width: int, name: str = "net") -> dict[str, Any]:
    graph = graph_pb2.GraphDef.FromString(model_graph(network, torch.zeros(1, width), name))
    nodes = {one.name: one for one in graph.node}
    assert len(nodes) == len(graph.node)
    return nodes


def shape_of(node: Any) -> list[int]:
    return [one.size for one in node.attr["_output_shapes"].list.shape[0].dim]


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_a_graph_has(kind: str) -> None:
    make, width = NETWORKS[kind]
    network = make()
    nodes = nodes_of(network, width)
    stored = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    stored = {name: one for name, one in stored.items() if not name.endswith("num_batches_tracked")}  # unused
    by_name = {name: one for name, one in nodes.items() if one.op in ("Parameter", "Buffer")}
    assert {name: shape_of(one) for name, one in by_name.items()} == {
        f"net/{name.replace('.', '/')}": list(one.shape) for name, one in stored.items()
    }
    # A graph: every input is there, nothing is before what it is made of, and all of it leads to the output.
    reached, waiting = set(), ["output"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += nodes[name].input
    assert reached | set(nodes) == set(nodes)
    assert reached >= {*by_name, "input"}
    scopes = {name.rpartition("/")[0] for name in nodes}
    assert not scopes & set(nodes)  # TensorBoard shows a node with a scope's name twice


@pytest.mark.parametrize("kind", NETWORKS)
def test_its_operations_are_those_that_torch_traces(kind: str) -> None:
    make, width = NETWORKS[kind]
    network = make().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        traced = torch.jit.trace(network, torch.zeros(1, width))
    assert isinstance(traced, torch.jit.ScriptModule)
    expected = Counter(
        one.kind().removeprefix("aten::") for one in traced.inlined_graph.nodes() if "aten" in one.kind()
    )
    ours = Counter(one.op for one in nodes_of(network, width).values())
    for name in ("Input", "Output", "Parameter", "Buffer", "Constant"):
        ours.pop(name, None)
    if kind == "own":
        assert ours.pop("chunk") == 2 * expected.pop("chunk")  # one call with two results
        assert ours.pop("T") == expected.pop("numpy_T")  # an attribute
    assert ours == expected


def test_a_graph_says_what_differs() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    def graph(*args: Any, **named: Any) -> bytes:
        network = MLP(2, 1, *args, **named)
        return model_graph(network, torch.zeros(1, 2), "mlp")

    graphs = [
        graph([3, 4]),
        graph([4, 3]),
        graph([3, 4], "tanh"),
        graph([3, 4], dropout=0.5),
        graph([3, 4], dropout=0.25),
        graph([3, 4], norm="layer"),
        graph([3, 4], bias=False),
        graph([3, 4], lambda: Scaled(2.5)),
        graph([3, 4], lambda: Scaled(3.5)),
    ]
    assert len(set(graphs)) == len(graphs)
    assert graph([3, 4]) == graphs[0]


def test_it_leaves_no_hooks_and_no_draws() -> None:
    network = MLP(2, 1, [3], dropout=0.5)
    state = torch.get_rng_state()
    model_graph(network, torch.zeros(1, 2), "mlp")
    assert torch.equal(torch.get_rng_state(), state)
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_tensorboard_reads_it(tmp_path: Path, compose_config: ComposeConfig) -> None:
    case = ["model=deep", "model.dropout=0.5", "trainer.max_steps=2"]
    result = mlp_lightning.train(compose_config(*case), tmp_path / "run")
    events = EventAccumulator(str(result.run_dir))
    events.Reload()
    nodes = {node.name: node for node in events.Graph().node}
    assert {"mlp/layers/linear_1/linear", "mlp/layers/norm_1/weight", "mlp/layers/gelu_1/gelu"} <= set(nodes)
    assert list(nodes["output"].input) == ["mlp/layers/output/linear"]
    assert not any("preprocessor" in name for name in nodes)  # nothing in it learns
