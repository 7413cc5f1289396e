"""What is multiplied and added in front of layers, per channel or to all, becomes part of the layers.

As behind the activations of PP-LCNet and PP-HGNet, which learn a factor and a term for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import bypass, constant, initializer, input_at, like, only_reader, operator, producer

if TYPE_CHECKING:
    import onnx_ir as ir

Vector = npt.NDArray[np.float32]


def affine_ahead(model: ir.Model) -> None:
    """A Mul or an Add with constants, that nothing but convolutions read, goes into their weights and biases.

    A term does where nothing is padded: a border of zeros would be of other numbers. Where something is, a factor for
    all changes places with it. What is done to pictures before the first layer stays as it is.
    """
    for node in list(model.graph)[::-1]:
        if not _fold(model.graph, node) and (swapped := _swapped(model.graph, node)) is not None:
            _fold(model.graph, swapped)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    """Whether a node has gone into its readers."""
    readers = _convolutions(node)
    for kind, take in (("Mul", _take_in_factor), ("Add", _take_in_term)):
        value, vector = _with_constants(node, kind)
        if value is None or vector is None or not readers or (kind == "Add" and not all(map(_unpadded, readers))):
            continue
        for reader in readers:
            take(graph, reader, vector)
        return bypass(graph, node, value)
    return False


def _swapped(graph: ir.Graph, node: ir.Node) -> ir.Node | None:
    """x * factor + term as (x + term / factor) * factor, where convolutions read it: its new last node."""
    import onnx_ir as ir

    value, term = _with_constants(node, "Add")
    mul = producer(value, "Mul")
    if value is None or term is None or mul is None or only_reader(value) is None or not _convolutions(node):
        return None
    source, factor = _with_constants(mul, "Mul")
    if source is None or factor is None or not term.size == factor.size == 1 or not factor.all():
        return None
    moved = initializer(graph, f"{node.outputs[0].name}_moved", (term.astype(np.float64) / factor).astype(np.float32))
    add = ir.Node("", "Add", [source, moved], name=node.name, outputs=[like(value)])
    (given,) = (other for other in mul.inputs if other is not source)
    last = ir.Node("", "Mul", [add.outputs[0], given], name=mul.name, outputs=[like(node.outputs[0])])
    graph.insert_after(node, [add, last])
    bypass(graph, node, last.outputs[0])
    graph.remove(mul, safe=True)
    return last


def _with_constants(node: ir.Node | None, kind: str) -> tuple[ir.Value | None, Vector | None]:
    """The map that a node adds to or multiplies, and the (channels, 1, 1) or (1, 1, 1) numbers; else (None, None)."""
    for value, other in (node.inputs, node.inputs[::-1]) if node is not None and operator(node) == kind else ():
        array = constant(other)
        if value is None or value.shape is None or len(value.shape) != 4 or _is_picture(value):
            continue
        if array is None or array.dtype != np.float32 or array.ndim > 4:
            continue
        shape = (1,) * (4 - array.ndim) + array.shape
        if shape[1] in (1, value.shape[1]) and array.size == shape[1]:
            return value, array.reshape(shape[1:])
    return None, None


def _is_picture(value: ir.Value) -> bool:
    """Whether nothing but numbers and places of the network's input were changed on the way to this."""
    while (node := producer(value, "Mul", "Add", "Sub", "Div", "Cast", "Transpose", "Pad")) is not None:
        computed = [given for given in node.inputs if given is not None and constant(given) is None]
        if len(computed) != 1:
            return False
        (value,) = computed
    return value.is_graph_input()


def _convolutions(node: ir.Node) -> list[ir.Node]:
    """The readers of what a node gives, if all are convolutions with constant weights and biases."""
    output = node.outputs[0]
    if output.is_graph_output():
        return []
    readers = list(dict.fromkeys(use.node for use in output.uses()))
    for reader in readers:
        fits = operator(reader) == "Conv" and reader.inputs[0] is output and reader.inputs.count(output) == 1
        given = input_at(reader, 2)
        fits &= reader.graph is node.graph
        if not fits or constant(reader.inputs[1]) is None or (given is not None and constant(given) is None):
            return []
    return readers


def _unpadded(node: ir.Node) -> bool:
    padded = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return not padded and not any(node.attributes.get_ints("pads", []))


def _of_inputs(node: ir.Node) -> npt.NDArray[Any]:
    """The weights of a convolution as (groups, outputs of one, inputs of one, *kernel)."""
    weights, groups = constant(node.inputs[1]), node.attributes.get_int("group", 1)
    assert weights is not None
    return weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])


def _by_input(vector: Vector, weights: npt.NDArray[Any]) -> Vector:
    """One number for each input, in the form of such weights."""
    groups, _, inputs, *kernel = weights.shape
    return np.broadcast_to(vector.reshape(-1), groups * inputs).reshape(groups, 1, inputs, *[1] * len(kernel))


def _take_in_factor(graph: ir.Graph, node: ir.Node, factor: Vector) -> None:
    weights, stored = _of_inputs(node), constant(node.inputs[1])
    assert stored is not None
    _set(graph, node, 1, (weights * _by_input(factor, weights)).reshape(stored.shape))


def _take_in_term(graph: ir.Graph, node: ir.Node, term: Vector) -> None:
    weights, given = _of_inputs(node).astype(np.float64), input_at(node, 2)
    added = (weights * _by_input(term, weights)).sum(axis=tuple(range(2, weights.ndim))).reshape(-1)
    bias = constant(given) if given is not None else np.zeros(len(added), np.float32)
    assert bias is not None
    _set(graph, node, 2, bias + added)


def _set(graph: ir.Graph, node: ir.Node, index: int, array: npt.NDArray[Any]) -> None:
    node.resize_inputs(max(index + 1, len(node.inputs)))
    name = f"{node.outputs[0].name}_ahead_{index}"
    node.replace_input_with(index, initializer(graph, name, array.astype(np.float32)))
