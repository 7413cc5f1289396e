"""Small readers and builders of graphs, shared by everything that rewrites one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir


def operator(node: ir.Node | None) -> str:
    """The node's operator, if it is one of ONNX itself; "" for other domains and for no node."""
    return node.op_type if node is not None and node.domain == "" else ""


def producer(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that makes a value, if it is one of these operators."""
    node = value.producer() if value is not None else None
    return node if operator(node) in operators else None


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out, in the middle or at the end."""
    return node.inputs[index] if index < len(node.inputs) else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads a value, if there is one use, in the same graph, and the value is no graph output."""
    uses = list(value.uses())
    alone = len(uses) == 1 and not value.is_graph_output() and uses[0].node.graph is value.graph
    return uses[0].node if alone else None


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """The array a value always holds; None when it is computed or absent."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():  # an initializer that is also an input is only a default
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def reduction_axes(node: ir.Node) -> list[int] | None:
    """The axes of a Reduce operator or a Squeeze, wherever its opset keeps them; None when not constant."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    axes = constant(input_at(node, 1))
    return None if axes is None else [int(axis) for axis in axes]


def initializer(graph: ir.Graph, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """A new weight of the graph, under a name that nothing else has."""
    import onnx_ir as ir

    # No exporter writes "::"; looking through all names for each weight would take seconds on a large network.
    name = next(free for count in itertools.count() if (free := f"{name}::{count}") not in graph.initializers)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def like(value: ir.Value) -> ir.Value:
    """A new value, nameless, of the same type and shape."""
    import onnx_ir as ir

    return ir.Value(name=None, shape=value.shape, type=value.type)


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let everything that reads ``old``, the graph's output included, read ``new``."""
    import onnx_ir as ir

    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def supersede(old: ir.Value, new: ir.Value) -> None:
    """The same for a value just made, which takes over the name as well; ``old`` has to go."""
    replace(old, new)
    new.name, old.name = old.name, None


def bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> bool:
    """Drop a node that gives what ``value`` is already; False where ``value`` cannot be the graph's output."""
    output = node.outputs[0]
    if output.is_graph_output() and (value.producer() is None or value.is_graph_output()):
        return False
    replace(output, value)
    graph.remove(node, safe=True)
    return True


def remove_dead(graph: ir.Graph, *operators: str) -> None:
    """Drop the nodes of these operators whose outputs nobody reads, and so on upwards."""
    for node in reversed(graph):
        unread = not any(output.uses() or output.is_graph_output() for output in node.outputs)
        if unread and operator(node) in operators:
            graph.remove(node, safe=True)
