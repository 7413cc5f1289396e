"""Several operators become one: what Keras, tf2onnx and older PyTorch spell out, in the form engines have kernels for.

Each function rewrites a model in place and is exact up to float rounding. None looks into
subgraphs, and none touches a value that something else still reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import (
    bypass,
    constant,
    initializer,
    input_at,
    like,
    only_reader,
    operator,
    producer,
    remove_dead,
    replace,
    supersede,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def hard_activations(model: ir.Model) -> None:
    """clip(x + 3, 0, 6) / 6 is HardSigmoid, x times that is HardSwish: Keras and Paddle spell both out."""
    import onnx_ir as ir

    for node in list(model.graph):
        value = _sixth_of(node)
        clip, product = producer(value, "Clip"), producer(value, "Mul")
        if product is not None:  # x * clip / 6
            clip = next((clip for factor in product.inputs if (clip := producer(factor, "Clip"))), None)
        source = _clipped_plus_three(clip) if clip is not None else None
        if source is None or (product is not None and source not in product.inputs):
            continue
        if product is not None and model.opset_imports[""] < 14:
            continue
        new, attributes = "HardSwish", list[ir.Attr]()
        if product is None:
            new, attributes = "HardSigmoid", [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
        fused = ir.Node("", new, [source], attributes, name=node.name, outputs=[like(node.outputs[0])])
        model.graph.insert_after(node, fused)
        supersede(node.outputs[0], fused.outputs[0])
    if model.opset_imports[""] >= 14:
        _hard_swishes(model.graph)
    remove_dead(model.graph, "Add", "Clip", "Mul", "Div", "HardSigmoid")


def _hard_swishes(graph: ir.Graph) -> None:
    """x * HardSigmoid(x), as PyTorch's exporter wrote it before there was an operator for it."""
    import onnx_ir as ir

    for node in list(graph):
        source, product = node.inputs[0] if node.inputs else None, only_reader(node.outputs[0])
        if operator(node) != "HardSigmoid" or operator(product) != "Mul" or product is None or source is None:
            continue
        if source.dtype not in (None, ir.DataType.FLOAT):
            continue
        slope, middle = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        if source in product.inputs and abs(6 * slope - 1) < 2e-7 and middle == 0.5:
            swish = ir.Node("", "HardSwish", [source], name=node.name, outputs=[like(product.outputs[0])])
            graph.insert_after(product, swish)
            supersede(product.outputs[0], swish.outputs[0])


def fold_affine(model: ir.Model) -> None:
    """A per-channel Mul or Add behind a Conv goes into its weights: the BatchNorm of depthwise layers."""
    for node in list(model.graph):
        if operator(node) not in ("Mul", "Add"):
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            conv = producer(value, "Conv")
            weights = constant(conv.inputs[1]) if conv is not None else None
            if conv is None or weights is None or only_reader(conv.outputs[0]) is None:
                continue
            vector = _per_channel(constant(other), weights)
            given = input_at(conv, 2)
            bias = constant(given) if given is not None else np.zeros(len(weights), weights.dtype)
            if vector is None or bias is None:
                continue
            if operator(node) == "Mul":
                weights = weights * vector.reshape(-1, *(1,) * (weights.ndim - 1))
                bias = bias * vector
            else:
                bias = bias + vector
            _set_weights(model.graph, conv, weights, bias)
            replace(node.outputs[0], conv.outputs[0])
            model.graph.remove(node, safe=True)
            break


def affine_maps(model: ir.Model) -> None:
    """A Mul and an Add per channel that no layer took in are one depthwise Conv, of one place.

    A normalisation in front of its activation, as DenseNet and ResNetV2 have them. One kernel that takes in a Relu
    too, in the layout of the layers around it: in float32 densenet121 takes 0.85 of the time, resnet50_v2 0.93 (2 cores
    of an AMD EPYC, onnxruntime 1.31.1, 2026-11-22). What is done to pictures before the first layer stays as it is.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        product, term = _with_vector(node, "Add")
        if product is None or (mul := producer(product, "Mul")) is None or only_reader(product) is None:
            continue
        value, factor = _with_vector(mul, "Mul")
        if value is None or value.is_graph_input() or factor is None or term is None:
            continue
        weights = factor.reshape(-1, 1, 1, 1)
        attributes = [ir.AttrInt64("group", len(factor)), ir.AttrInt64s("kernel_shape", [1, 1])]
        conv = ir.Node("", "Conv", [value], attributes, name=node.name, outputs=[like(node.outputs[0])])
        model.graph.insert_after(node, conv)
        _set_weights(model.graph, conv, weights, term)
        supersede(node.outputs[0], conv.outputs[0])
        model.graph.remove([node, mul], safe=True)


def matmul_to_gemm(model: ir.Model) -> None:
    """A dense layer is one Gemm: MatMul with constant weights, and the Add of its bias."""
    import onnx_ir as ir

    for node in list(model.graph):
        value = node.inputs[0] if operator(node) == "MatMul" else None
        weights = constant(node.inputs[1]) if value is not None else None
        if value is None or _rank(value) != 2 or weights is None or weights.ndim != 2 or weights.dtype != np.float32:
            continue
        inputs, nodes = [value, node.inputs[1]], [node]
        reader = only_reader(node.outputs[0])
        if reader is not None and operator(reader) == "Add":
            (other,) = (operand for operand in reader.inputs if operand is not node.outputs[0])
            bias = constant(other)
            if other is not None and bias is not None and bias.shape in ((weights.shape[1],), (1, weights.shape[1])):
                inputs.append(initializer(model.graph, f"{other.name}_b", bias.reshape(-1)))
                nodes.append(reader)
        output = nodes[-1].outputs[0]
        gemm = ir.Node("", "Gemm", inputs, name=node.name, outputs=[like(output)])
        model.graph.insert_after(nodes[-1], gemm)
        supersede(output, gemm.outputs[0])
        model.graph.remove(nodes, safe=True)


def collapse_reshapes(model: ir.Model) -> None:
    """Of two reshapes in a row only the last counts; one that changes nothing is dropped."""
    for node in list(model.graph):
        target = constant(node.inputs[1]) if operator(node) == "Reshape" else None
        if target is None:
            continue
        while 0 not in target and (before := producer(node.inputs[0], *_RESHAPING)):
            node.replace_input_with(0, before.inputs[0])  # a 0 would copy an axis of what stands before
        value = node.inputs[0]
        if value is not None and _keeps_shape(value, target):
            bypass(model.graph, node, value)
    remove_dead(model.graph, *_RESHAPING)


def flat_concat(model: ir.Model) -> None:
    """A Concat of a Concat along the same axis is one."""

    for node in list(model.graph):
        if operator(node) != "Concat":
            continue
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            inner = producer(value, "Concat")
            joins = inner is not None and value is not None and only_reader(value) is node
            same = joins and inner is not None and inner.attributes["axis"].as_int() == node.attributes["axis"].as_int()
            inputs.extend(inner.inputs if same and inner is not None else [value])
        if len(inputs) > len(node.inputs):
            node.resize_inputs(len(inputs))
            for index, value in enumerate(inputs):
                node.replace_input_with(index, value)
    remove_dead(model.graph, "Concat")


# ---- helpers


def _sixth_of(node: ir.Node) -> ir.Value | None:
    """y, where the node computes y / 6 and nothing else reads y."""
    if operator(node) == "Div":
        pairs, factor = [(node.inputs[0], node.inputs[1])], 6.0
    elif operator(node) == "Mul":
        pairs, factor = [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])], 1 / 6
    else:
        return None
    for value, other in pairs:
        scalar = _scalar(other, value)
        # 1/6 has no exact float: two roundings away at most.
        if value is not None and scalar is not None and abs(scalar / factor - 1) < 2e-7 and only_reader(value):
            return value
    return None


def _clipped_plus_three(clip: ir.Node) -> ir.Value | None:
    """x, where the node computes clip(x + 3, 0, 6) and nothing else reads its parts."""
    add = producer(clip.inputs[0], "Add")
    if add is None or only_reader(add.outputs[0]) is None or only_reader(clip.outputs[0]) is None:
        return None
    if (_scalar(input_at(clip, 1), clip.inputs[0]), _scalar(input_at(clip, 2), clip.inputs[0])) != (0, 6):
        return None
    return next((x for x, other in (add.inputs, add.inputs[::-1]) if x is not None and _scalar(other, x) == 3), None)


def _scalar(value: ir.Value | None, beside: ir.Value | None) -> float | None:
    """The one float32 that a constant holds, if it leaves the shape of the operand beside it alone."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype != np.float32:
        return None
    return float(array.reshape(())) if array.ndim <= max(_rank(beside), 0) else None


def _rank(value: ir.Value | None) -> int:
    """Number of axes, -1 when unknown."""
    return len(value.shape) if value is not None and value.shape is not None else -1


def _per_channel(array: npt.NDArray[Any] | None, weights: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """An array that holds one value per output channel, or one for all, as a vector; else None."""
    if array is None or array.dtype != weights.dtype or array.ndim > weights.ndim:
        return None
    shape = (1,) * (weights.ndim - array.ndim) + array.shape
    if array.size not in (1, len(weights)) or shape[1] != array.size:
        return None
    return np.broadcast_to(array.reshape(-1), (len(weights),))


def _with_vector(node: ir.Node, kind: str) -> tuple[ir.Value | None, npt.NDArray[Any] | None]:
    """The map that the node adds to or multiplies, and the float32 of each of its channels; else (None, None)."""
    for value, other in (node.inputs, node.inputs[::-1]) if operator(node) == kind else ():
        width = value.shape[1] if value is not None and value.shape is not None and _rank(value) == 4 else None
        array = constant(other)
        if array is None or array.dtype != np.float32 or not isinstance(width, int):
            continue
        if array.shape in ((width, 1, 1), (1, width, 1, 1)):
            return value, array.reshape(-1)
    return None, None


def _set_weights(graph: ir.Graph, conv: ir.Node, weights: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
    conv.resize_inputs(3)
    for index, array in enumerate((weights, bias), start=1):
        conv.replace_input_with(index, initializer(graph, f"{conv.outputs[0].name}_{index}", array))


def _keeps_shape(value: ir.Value, target: npt.NDArray[Any]) -> bool:
    """True when a Reshape to this target gives the shape the value already has."""
    if value.shape is None or len(value.shape) != len(target):
        return False
    # The one -1 is what is left over, so it is right when all others are.
    return all(wanted in (-1, 0) or size == wanted for size, wanted in zip(value.shape, target, strict=True))
