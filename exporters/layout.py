"""Channels-last graphs become channels-first: transposes sink through the graph until they cancel.

tf2onnx wraps each NCHW operator in a pair of Transposes and cannot always remove them (a scalar
constant stops its optimizer). Each rule here moves a Transpose below one operator without
changing a single value, so whatever the graph, the result is exact. An operator without a rule
keeps its Transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import (
    bypass,
    constant,
    initializer,
    input_at,
    only_reader,
    operator,
    producer,
    reduction_axes,
    remove_dead,
    replace,
)
from exporters.transposes import (
    Perm,
    can_undo,
    inverse,
    order_kept,
    perm_of,
    permuted,
    permuted_target,
    source_of,
    transpose,
    undone,
)

if TYPE_CHECKING:
    import onnx_ir as ir

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)


def to_channels_first(model: ir.Model) -> None:
    """Give the graph an NCHW input in place of its NHWC one and sink every Transpose it can, in place.

    The graph has one input, of four axes, and at least one node.
    """
    import onnx_ir as ir

    graph = model.graph
    (old,) = graph.inputs
    new = ir.Value(name=old.name, shape=permuted(old.shape, TO_NCHW), type=old.type)
    restore = transpose(new, TO_NHWC)
    old.name = None
    replace(old, restore.outputs[0])
    graph.inputs[0] = new
    graph.insert_before(graph[0], restore)
    sink_transposes(graph)


def sink_transposes(graph: ir.Graph) -> None:
    """Move every Transpose down as far as it goes, dropping those that cancel; in place.

    Shapes of the values must be known where they are to be used; operators are those of opset 13 and later.
    """
    changed = True
    while changed:
        changed = sum(_sink(graph, node) for node in list(graph)) > 0  # all of them, unlike any()
        remove_dead(graph, "Transpose", "Reshape")


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    rule = _RULES.get(operator(node))
    return rule is not None and rule(graph, node)


# ---- rules: True when the graph changed. Each change moves a Transpose down or drops one, so they come to an end.


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    """Transpose of Transpose: one, or none; Transpose of a Reshape that only moves unit axes: a Reshape."""
    import onnx_ir as ir

    source, perm, output = node.inputs[0], perm_of(node.outputs[0]), node.outputs[0]
    if source is None or perm is None:
        return False
    if perm == tuple(range(len(perm))):
        return bypass(graph, node, source)
    inner = perm_of(source)
    if inner is not None:
        node.replace_input_with(0, source_of(source))
        node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in perm])
        return True
    before = producer(source, "Reshape")
    target = permuted_target(before, perm) if before is not None else None
    if before is None or target is None or only_reader(source) is None:
        return False
    _set_input(graph, before, 1, "shape", target)
    source.shape = output.shape
    replace(output, source)
    return True


def _into_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Reshape and Flatten read in the order of memory, which a Transpose of axes of length 1 leaves alone."""
    perm, source = perm_of(node.inputs[0]), source_of(node.inputs[0])
    if perm is None or source is None or source.shape is None or not order_kept(list(source.shape), perm):
        return False
    if operator(node) == "Flatten":
        axis = node.attributes.get_int("axis", 1)
        first = range(axis if axis >= 0 else axis + len(perm))
        kept = sorted(perm[: len(first)]) == list(first)
    else:
        target = constant(node.inputs[1])
        moved = [axis for axis in range(len(perm)) if perm[axis] != axis]
        # Where the target is 0 it copies an axis of the transposed input.
        kept = target is not None and not any(size == 0 and axis in moved for axis, size in enumerate(target))
    if kept:
        node.replace_input_with(0, source)
    return kept


def _elementwise(graph: ir.Graph, node: ir.Node) -> bool:
    perm = perm_of(node.inputs[0])
    if perm is None:
        return False
    node.replace_input_with(0, source_of(node.inputs[0]))
    _transpose_outputs(graph, node, perm)
    return True


def _broadcasting(graph: ir.Graph, node: ir.Node) -> bool:
    """All inputs were transposed alike, or can be had the other way round."""
    perm = next((perm for value in node.inputs if (perm := perm_of(value))), None)
    if perm is None or not all(can_undo(value, perm) for value in node.inputs):
        return False
    for index, value in enumerate(node.inputs):
        assert value is not None
        node.replace_input_with(index, undone(graph, value, perm))
    if operator(node) == "Concat":
        _move_axis(node, perm)
    _transpose_outputs(graph, node, perm)
    return True


def _along_axis(graph: ir.Graph, node: ir.Node) -> bool:
    """One tensor in, an attribute that names one of its axes."""
    perm = perm_of(node.inputs[0])
    if perm is None:
        return False
    _move_axis(node, perm)
    return _elementwise(graph, node)


def _reduction(graph: ir.Graph, node: ir.Node) -> bool:
    """Reduce operators and Squeeze: the same axes by their old numbers."""
    import onnx_ir as ir

    axes, perm = reduction_axes(node), perm_of(node.inputs[0])
    if axes is None or perm is None:
        return False
    moved = sorted(perm[axis] for axis in axes)
    keep = operator(node) != "Squeeze" and node.attributes.get_int("keepdims", 1) == 1
    left = [axis for axis in perm if axis not in moved]
    if not keep and left != sorted(left):
        return False  # the axes that stay would come out in another order
    if "axes" in node.attributes:
        node.attributes["axes"] = ir.AttrInt64s("axes", moved)
    else:
        _set_input(graph, node, 1, "axes", np.array(moved, np.int64))
    if keep:
        return _elementwise(graph, node)
    node.replace_input_with(0, source_of(node.inputs[0]))
    return True


def _pad(graph: ir.Graph, node: ir.Node) -> bool:
    perm, pads = perm_of(node.inputs[0]), constant(input_at(node, 1))
    if perm is None or pads is None or input_at(node, 3) is not None:
        return False
    _set_input(graph, node, 1, "pads", pads.reshape(2, len(perm))[:, inverse(perm)].reshape(-1))
    return _elementwise(graph, node)


def _slice(graph: ir.Graph, node: ir.Node) -> bool:
    perm, starts, axes = perm_of(node.inputs[0]), constant(input_at(node, 1)), constant(input_at(node, 3))
    if perm is None or starts is None or (axes is None and input_at(node, 3) is not None):
        return False
    moved = [perm[axis] for axis in (range(len(starts)) if axes is None else axes)]
    _set_input(graph, node, 3, "axes", np.array(moved, starts.dtype))
    return _elementwise(graph, node)


_RULES: dict[str, Callable[[ir.Graph, ir.Node], bool]] = {
    "Transpose": _merge,
    "Pad": _pad,
    "Slice": _slice,
    **dict.fromkeys(("Reshape", "Flatten"), _into_reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "Split"), _along_axis),
    **dict.fromkeys("Add Sub Mul Div Pow Max Min Sum Mean PRelu Concat".split(), _broadcasting),
    **dict.fromkeys(
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare Squeeze".split(),
        _reduction,
    ),
    **dict.fromkeys(
        "Relu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu Celu LeakyRelu ThresholdedRelu Softplus Softsign Mish "
        "Gelu Erf Exp Log Neg Abs Sqrt Reciprocal Sign Floor Ceil Round Cast Identity".split(),
        _elementwise,
    ),
}


# ---- what the rules do to a node


def _move_axis(node: ir.Node, perm: Perm) -> None:
    import onnx_ir as ir

    axis = node.attributes.get_int("axis", 0 if operator(node) == "Split" else -1)
    node.attributes["axis"] = ir.AttrInt64("axis", perm[axis])


def _set_input(graph: ir.Graph, node: ir.Node, index: int, name: str, array: npt.NDArray[Any]) -> None:
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, initializer(graph, f"{node.outputs[0].name}_{name}", array))


def _transpose_outputs(graph: ir.Graph, node: ir.Node, perm: Perm) -> None:
    """Let the node compute in the old layout and transpose what it gives."""
    for output in node.outputs:
        output.shape = permuted(output.shape, inverse(perm))
        after = transpose(output, perm)
        replace(output, after.outputs[0])
        after.replace_input_with(0, output)
        graph.insert_after(node, after)
