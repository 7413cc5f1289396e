"""Channels-last graphs become channels-first: transposes sink through the graph until they cancel.

tf2onnx wraps each NCHW operator in a pair of Transposes and cannot always remove them (a scalar
constant stops its optimizer). Each rule here moves a Transpose below one operator without
changing a single value, so whatever the graph, the result is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

TO_NHWC = (0, 2, 3, 1)

_UNARY = frozenset(
    "Relu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu LeakyRelu Softplus Softsign Erf Gelu Exp Log Neg Abs "
    "Sqrt Reciprocal Cast Identity".split()
)
_BROADCASTING = frozenset("Add Sub Mul Div Pow Max Min PRelu".split())
_REDUCING = frozenset("ReduceMean ReduceSum ReduceMax ReduceMin".split())


def to_channels_first(model: ir.Model) -> None:
    """Give the graph an NCHW input in place of its NHWC one and sink every Transpose it can, in place."""
    import onnx_ir as ir

    graph = model.graph
    (old,) = graph.inputs
    assert old.shape is not None
    batch, height, width, channels = old.shape
    new = ir.Value(name=old.name, shape=ir.Shape([batch, channels, height, width]), type=old.type)
    restore = _transpose(new, TO_NHWC, old.shape)
    old.name = None
    ir.convenience.replace_all_uses_with(old, restore.outputs[0])
    graph.inputs[0] = new
    graph.insert_before(graph[0], restore)
    sink_transposes(graph)


def sink_transposes(graph: ir.Graph) -> None:
    """Move every Transpose down as far as it goes, dropping those that cancel; in place."""
    moved = True
    while moved:
        moved = sum(_sink(graph, node) for node in list(graph)) > 0  # all of them, unlike any()
        for node in reversed(list(graph)):  # a Transpose nobody reads any more
            if node.op_type == "Transpose" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                graph.remove(node, safe=True)


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    if node.op_type == "Transpose":
        return _merge(graph, node)
    if node.op_type in ("Reshape", "Squeeze", "Flatten"):
        return _drop_before_reshape(node)
    sources = [value for value in node.inputs if value is not None and _perm(value)]
    if not sources or any(output.is_graph_output() for output in node.outputs):
        return False
    perm = _perm(sources[0])
    assert perm is not None
    if node.op_type in _UNARY:
        inputs = [_source(node.inputs[0]), *node.inputs[1:]] if node.inputs[0] is sources[0] else None
    elif node.op_type in _BROADCASTING or node.op_type == "Concat":
        inputs = [_untransposed(graph, value, perm, node.op_type) for value in node.inputs]
        inputs = None if any(value is None for value in inputs) else inputs
        if inputs and node.op_type == "Concat":
            node.attributes["axis"] = _int_attribute("axis", perm[node.attributes["axis"].as_int() % len(perm)])
    elif node.op_type in _REDUCING:
        return _sink_reduction(graph, node, perm)
    elif node.op_type == "Pad":
        inputs = _pad_inputs(graph, node, perm)
    else:
        return False
    if inputs is None:
        return False
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    _transpose_output(graph, node, perm)
    return True


def _transpose_output(graph: ir.Graph, node: ir.Node, perm: tuple[int, ...]) -> None:
    """Let the node compute in the old layout and transpose what it gives."""
    import onnx_ir as ir

    (output,) = node.outputs
    after = _transpose(output, perm, output.shape)
    ir.convenience.replace_all_uses_with(output, after.outputs[0])
    after.replace_input_with(0, output)
    if output.shape is not None:
        output.shape = ir.Shape([output.shape[perm.index(axis)] for axis in range(len(perm))])
    graph.insert_after(node, after)


def _merge(graph: ir.Graph, node: ir.Node) -> bool:
    """Transpose of Transpose: one, or none; Transpose of a Reshape that only moves unit axes: a Reshape."""
    import onnx_ir as ir

    source, perm = node.inputs[0], _perm(node.outputs[0])
    assert source is not None and perm is not None
    before = source.producer()
    if before is None:
        return False
    if before.op_type == "Transpose":
        inner = _perm(source)
        assert inner is not None and before.inputs[0] is not None
        together = tuple(inner[axis] for axis in perm)
        if together == tuple(range(len(perm))) and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], before.inputs[0])
        else:
            node.replace_input_with(0, before.inputs[0])
            node.attributes["perm"] = _ints_attribute("perm", together)
        return True
    if before.op_type == "Reshape" and len(source.uses()) == 1 and not node.outputs[0].is_graph_output():
        shape = constant(before.inputs[1])
        if shape is None or 0 in shape or not _order_kept(list(shape), perm):
            return False
        before.replace_input_with(1, initializer(graph, f"{source.name}_shape", shape[list(perm)]))
        source.shape = node.outputs[0].shape
        ir.convenience.replace_all_uses_with(node.outputs[0], source)
        return True
    return False


def _drop_before_reshape(node: ir.Node) -> bool:
    """A Transpose that only moves axes of length 1 leaves the order in memory: Reshape needs none."""
    value = node.inputs[0]
    perm = _perm(value)
    source = _source(value)
    if perm is None or source is None or source.shape is None or node.op_type == "Squeeze":
        return False
    if node.op_type == "Flatten" and node.attributes.get_int("axis", 1) != 1:
        return False
    if node.op_type == "Reshape":
        shape = constant(node.inputs[1])
        if shape is None or 0 in shape[1:]:  # 0 copies an axis of the transposed input
            return False
    if not _order_kept([1 if size == 1 else 2 for size in source.shape], perm):
        return False
    node.replace_input_with(0, source)
    return True


def _sink_reduction(graph: ir.Graph, node: ir.Node, perm: tuple[int, ...]) -> bool:
    axes = reduction_axes(node)
    if axes is None or _perm(node.inputs[0]) != perm:
        return False
    reduced = sorted(perm[axis % len(perm)] for axis in axes)
    keep = node.attributes.get_int("keepdims", 1)
    left = [axis for axis in perm if axis not in reduced]
    if not keep and left != sorted(left):
        return False  # the axes that stay would come out in another order
    node.replace_input_with(0, _source(node.inputs[0]))
    if len(node.inputs) > 1:
        node.replace_input_with(1, initializer(graph, f"{node.outputs[0].name}_axes", np.array(reduced, np.int64)))
    else:
        node.attributes["axes"] = _ints_attribute("axes", tuple(reduced))
    if keep:
        _transpose_output(graph, node, perm)
    return True


def reduction_axes(node: ir.Node) -> list[int] | None:
    """The axes of a Reduce operator, wherever its opset keeps them; None when not constant."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"].as_ints())
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None else [int(axis) for axis in axes]


def _pad_inputs(graph: ir.Graph, node: ir.Node, perm: tuple[int, ...]) -> list[ir.Value | None] | None:
    pads = constant(node.inputs[1])
    if pads is None or (len(node.inputs) > 3 and node.inputs[3] is not None) or _perm(node.inputs[0]) is None:
        return None
    inverse = [perm.index(axis) for axis in range(len(perm))]
    moved = pads.reshape(2, len(perm))[:, inverse].reshape(-1)
    return [
        _source(node.inputs[0]),
        initializer(graph, f"{node.outputs[0].name}_pads", moved),
        *node.inputs[2:],
    ]


def _untransposed(graph: ir.Graph, value: ir.Value | None, perm: tuple[int, ...], op_type: str) -> ir.Value | None:
    """The value as it was before the Transpose: through it, or a constant laid out the other way."""
    if value is None:
        return None
    if _perm(value) == perm:
        return _source(value)
    array = constant(value)
    if array is None or op_type == "Concat" or array.ndim > len(perm):
        return None
    if array.size == 1 and array.ndim <= 1:
        return value
    full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    inverse = [perm.index(axis) for axis in range(len(perm))]
    return initializer(graph, f"{value.name}_nchw", np.ascontiguousarray(full.transpose(inverse)))


# ---- small readers and builders


def _perm(value: ir.Value | None) -> tuple[int, ...] | None:
    node = value.producer() if value is not None else None
    return tuple(node.attributes["perm"].as_ints()) if node is not None and node.op_type == "Transpose" else None


def _source(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None else None


def constant(value: ir.Value | None) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    """The array a value always holds; None when it is computed or absent."""
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def _order_kept(sizes: list[int], perm: tuple[int, ...]) -> bool:
    """True when the permutation only moves axes of length 1."""
    moving = [axis for axis in perm if sizes[axis] != 1]
    return moving == sorted(moving)


def _transpose(value: ir.Value, perm: tuple[int, ...], shape: ir.Shape | None) -> ir.Node:
    import onnx_ir as ir

    output = ir.Value(name=None, shape=shape, type=value.type)
    return ir.Node("", "Transpose", [value], [_ints_attribute("perm", perm)], outputs=[output])


def initializer(graph: ir.Graph, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
    """A new weight of the graph, under a name that is free."""
    import onnx_ir as ir

    while name in graph.initializers:
        name += "_"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _int_attribute(name: str, number: int) -> ir.Attr:
    import onnx_ir as ir

    return ir.AttrInt64(name, number)


def _ints_attribute(name: str, numbers: tuple[int, ...]) -> ir.Attr:
    import onnx_ir as ir

    return ir.AttrInt64s(name, numbers)
