"""The graph of a network for TensorBoard: the operations of one forward pass, in the scopes of their modules.

``SummaryWriter.add_graph`` traces with ``torch.jit``, which is deprecated and keeps half a megabyte of every trace for
as long as the process lives. Here a mode of torch's sees every call of its functions, and leaves nothing behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from tensorboard.compat.proto import attr_value_pb2 as _attr_value_pb2
from tensorboard.compat.proto import graph_pb2 as _graph_pb2
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from mlp_lightning.errors import shown

# protobuf makes the classes in these modules when they are imported, so type checkers do not see them.
attr_value_pb2: Any = _attr_value_pb2
graph_pb2: Any = _graph_pb2
_PRODUCER = 22  # the version of the format that torch's writer names, too


def model_graph(network: nn.Module, example: Tensor, name: str) -> bytes:
    """The operations that a network applies to an example, as a serialized ``GraphDef``.

    Args:
        network: in any mode; it is left in evaluation mode.
        example: what it is applied to.
        name: scope of all of it.
    """
    recorder = _Recorder(network, name)
    recorder.add("input", "Input", example, ())
    with ExitStack() as hooks, torch.no_grad():
        for module in network.modules():
            for handle in (
                module.register_forward_pre_hook(recorder.enter),
                module.register_forward_hook(recorder.leave, always_call=True),
            ):
                hooks.callback(handle.remove)
        network.eval()
        with recorder:
            output = network(example)
    recorder.add("output", "Output", output, (output,))
    return recorder.graph.SerializeToString()


class _Recorder(TorchFunctionMode):
    """Adds a node to a graph for every tensor that a function of torch's returns."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.graph = graph_pb2.GraphDef()
        self.graph.versions.producer = _PRODUCER
        self._scopes = {module: "/".join([name, *path.split(".")]) for path, module in network.named_modules() if path}
        self._scopes[network] = name
        self._inside = [name]
        self._used = set(self._scopes.values())
        self._node_of: dict[int, str] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets the identity of one that is gone
        kinds = ("Parameter", network.named_parameters()), ("Buffer", network.named_buffers())
        self._stored = {id(one): (f"{name}.{path}".replace(".", "/"), kind) for kind, of in kinds for path, one in of}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        returned = func(*args, **(kwargs or {}))
        tensors = list(_tensors(returned))
        if tensors:
            called = getattr(func, "__name__", "function")
            if called == "__get__":  # an attribute, such as Tensor.T
                called = str(resolve_name(func)).split(".")[-2]
            # In evaluation mode some functions return what they were given.
            for one in tensors:
                self.add(f"{self._inside[-1]}/{called.strip('_')}", called, one, given)
        return returned

    def enter(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._scopes[module])

    def leave(self, *_: Any) -> None:
        self._inside.pop()

    def add(self, name: str, operation: str, tensor: Tensor, given: Sequence[Any]) -> None:
        """Add the node of a tensor that was made of what was ``given``."""
        node = self.graph.node.add(name=self._unused(name), op=operation)
        node.input.extend(self._known(one) for one in _tensors(given))
        _set_shape(node, tensor)
        if numbers := [one for one in given if isinstance(one, (bool, int, float, str))]:
            node.attr["arguments"].CopyFrom(attr_value_pb2.AttrValue(s=shown(numbers).encode()))
        self._node_of[id(tensor)] = node.name
        self._alive.append(tensor)

    def _known(self, tensor: Tensor) -> str:
        """The node of a tensor; what no function returned is a parameter, a buffer or a constant."""
        if id(tensor) not in self._node_of:
            name, kind = self._stored.get(id(tensor), (f"{self._inside[-1]}/constant", "Constant"))
            self.add(name, kind, tensor, ())
        return self._node_of[id(tensor)]

    def _unused(self, name: str) -> str:
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        chosen = next(one for one in names if one not in self._used)
        self._used.add(chosen)
        return chosen


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def _set_shape(node: Any, tensor: Tensor) -> None:
    shape = node.attr["_output_shapes"].list.shape.add()
    for size in tensor.shape:
        shape.dim.add(size=size)
