"""The layer table of a network, from its ONNX graph: shapes, parameters, multiply-accumulates.

**Parameters** are the numbers stored in weights: tensors of floats, and quantized weights and biases, each counted
once however many layers share it. Not parameters: scales, zero points, shapes, axes, the bounds of a Clip, the sizes
of a Resize, the mean and deviation of pixels, and single numbers without an axis (the 6 of a formula).
BatchNormalization stores four numbers per channel and counts four, though frameworks call only two of them trainable.
A table of floats that is no weight, the anchor boxes of a detector say, looks like one and is counted.

**MACs** are the multiply-accumulates of convolutions and matrix products, the attention of a transformer's included;
one is two floating-point operations. Biases, element-wise work, pooling, normalisation and resizing are not counted,
as in the papers, in torchvision's table (whose "GFLOPS" are these) and in thop and fvcore. A transposed convolution
counts one product for each input number and each weight it meets, even where padding then cuts the output off.

What cannot be known is None, never a guess, and then the totals are incomplete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal

from runtime.pixel_input import PREFIX
from zoo.macs import Convolution, Shapes, convolution_of, macs_of, product_of
from zoo.separable import Separable, compare
from zoo.shapes import free_inputs, infer, skeleton, subgraphs
from zoo.stand_ins import Shape, attributes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Kind = Literal[
    "convolution", "depthwise", "pointwise", "grouped", "transposed", "dense", "product", "control", "plumbing", "other"
]
"""depthwise: a group per input channel. pointwise: every kernel axis is 1. grouped: other groups. dense: a matrix
product with a stored matrix; product: one of activations. control: a branch or a loop. plumbing: moves or converts
numbers and computes none."""

_PLUMBING = frozenset(
    "Identity Cast CastLike Shape Size Reshape Flatten Squeeze Unsqueeze Transpose Expand Gather Slice Split Dropout "
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear ConstantOfShape Range Pad Crop Concat QLinearConcat".split()
)

# Inputs that hold floats or quantized numbers and yet no weights.
_NO_WEIGHTS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Dropout": (1, 2),
    "Pad": (2,),
    "OneHot": (2,),
    "Upsample": (1,),
    "Resize": (1, 2),
    "NonMaxSuppression": (3, 4),
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearWhere": (2, 3, 5, 6, 7, 8),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearSigmoid": (1, 2, 3, 4),
    "QLinearLeakyRelu": (1, 2, 3, 4),
    "QLinearSoftmax": (1, 2, 3, 4),
    "QLinearAveragePool": (1, 2, 3, 4),
    "QLinearGlobalAveragePool": (1, 2, 3, 4),
    "QLinearReduceMean": (1, 2, 3, 4),
}

# Inputs that hold weights even where they are integers.
_INTEGER_WEIGHTS: dict[str, tuple[int, ...]] = {
    "DequantizeLinear": (0,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "MatMulIntegerToFloat": (1,),
    "DynamicQuantizeMatMul": (1,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "QGemm": (3, 6),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One node. output_shape: of its first output, None where unknown. macs: None where they cannot be told."""

    name: str
    operator: str
    detail: str
    output_shape: Shape | None
    parameters: int
    macs: int | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class LayerTable:
    """All layers in the order they run. What only prepares weights (dequantizes, transposes) is no layer.

    parameters, macs: totals. complete: whether every layer's MACs are known, and so in ``macs``.
    inputs: name -> shape that the table is of, None where axes stayed free.
    unread: stored numbers that no layer reads; not among ``parameters``.
    problem: what onnx's shape inference said where it refused the graph; then no shape is known but those stored.
    separable: the depthwise-separable convolutions beside standard ones, None where nothing is depthwise.
    """

    layers: tuple[Layer, ...]
    parameters: int
    macs: int
    complete: bool
    inputs: dict[str, Shape | None]
    unread: int
    problem: str | None
    separable: Separable | None


@dataclass(frozen=True, slots=True)
class _Weights:
    """What is known of stored tensors while the graph is walked.

    sizes: tensor -> how many numbers. origins: constant value -> the float tensors it is made of.
    read, counted: the tensors that a node has read at all, and as weights. bytes: the stored ones of 8 bits.
    unpacked: floats that such were cast to, whose factor is their scale.
    """

    sizes: dict[str, int]
    origins: dict[str, frozenset[str]]
    read: set[str]
    counted: set[str]
    bytes: set[str] = field(default_factory=set)
    unpacked: set[str] = field(default_factory=set)


def count(proto: ModelProto, *, batch: int = 1, size: tuple[int, int] | None = None) -> LayerTable:
    """The layer table of a model; its weights' values are not looked at, and may be missing.

    batch: pictures per run where the file leaves that free. size: (height, width) of the picture where that is free.

    Raises InvalidInput for a size that the network does not take.
    """
    thin = skeleton(proto)
    shapes, problem = infer(thin, batch=batch, size=size)
    weights = _Weights({}, {}, set(), set())
    layers = tuple(_walk(thin.graph, shapes, weights))
    macs = [layer.macs for layer in layers if layer.macs is not None]
    complete = len(macs) == len(layers)
    floats = frozenset[str]().union(*weights.origins.values())
    return LayerTable(
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        macs=sum(macs),
        complete=complete,
        inputs={value.name: shapes.get(value.name) for value in free_inputs(thin.graph)},
        unread=sum(weights.sizes[name] for name in floats - weights.read),
        problem=problem,
        separable=compare(thin.graph.node, shapes, weights.origins.keys(), sum(macs) if complete else None),
    )


def _walk(graph: GraphProto, shapes: Shapes, weights: _Weights) -> Iterator[Layer]:
    for tensor in graph.initializer:
        _store(tensor, tensor.name, weights)
    for sparse in graph.sparse_initializer:
        _store(sparse.values, sparse.values.name, weights)
    for node in graph.node:
        inner = subgraphs(node)
        given = attributes(node)
        if node.op_type == "Constant" and "value" in given:
            _store(given["value"].t, node.output[0], weights)
        elif node.op_type == "Constant":
            weights.origins[node.output[0]] = frozenset()
        elif not inner and product_of(node) is None and _is_constant(node, weights):
            made = _reads(node, weights)
            if node.op_type == "Cast" and node.input[0] in weights.bytes:
                made = frozenset(node.input)
                weights.unpacked.update(node.output)
            elif node.op_type == "Mul" and (values := weights.unpacked & {*node.input}):
                made = weights.origins[min(values)]
            weights.origins.update((name, made) for name in node.output if name)
        else:
            yield _layer(node, shapes, weights, [layer for part in inner for layer in _walk(part, shapes, weights)])


def _layer(node: NodeProto, shapes: Shapes, weights: _Weights, inside: list[Layer]) -> Layer:
    """inside: the layers of the graphs inside the node, which run as often as the input says."""
    convolution = convolution_of(node, shapes)
    new = _reads(node, weights) - weights.counted
    weights.counted.update(new)
    control = bool(subgraphs(node))
    macs = (0 if all(layer.macs == 0 for layer in inside) else None) if control else macs_of(node, shapes)
    return Layer(
        name=node.name or next((name for name in node.output if name), ""),
        operator=node.op_type,
        detail=_control(inside, macs) if control else _detail(node, shapes, convolution),
        output_shape=shapes.get(node.output[0]) if node.output else None,
        parameters=sum(weights.sizes[name] for name in new) + sum(layer.parameters for layer in inside),
        macs=macs,
        kind="control" if control else _kind(node, weights, convolution),
    )


def _store(tensor: TensorProto, name: str, weights: _Weights) -> None:
    """Note a stored tensor. Whether an integer one is a weight, its reader tells."""
    weights.sizes[name] = prod(tensor.dims)
    if tensor.dims and tensor.data_type in (tensor.INT8, tensor.UINT8):
        weights.bytes.add(name)
    stored = tensor.dims and _is_float(tensor) and not name.startswith(PREFIX)
    weights.origins[name] = frozenset((name,)) if stored else frozenset()


def _is_float(tensor: TensorProto) -> bool:
    name = type(tensor).DataType.Name(tensor.data_type)
    return "FLOAT" in name or name in ("DOUBLE", "COMPLEX64", "COMPLEX128")


def _is_constant(node: NodeProto, weights: _Weights) -> bool:
    names = [name for name in node.input if name]
    return bool(names) and all(name in weights.origins for name in names)


def _reads(node: NodeProto, weights: _Weights) -> frozenset[str]:
    """The stored tensors that are weights of this node."""
    found: set[str] = set()
    for index, name in enumerate(node.input):
        weights.read.update(weights.origins.get(name, ()))
        if name in weights.sizes and index in _INTEGER_WEIGHTS.get(node.op_type, ()):
            found.add(name)
        elif index not in _NO_WEIGHTS.get(node.op_type, ()):
            found |= weights.origins.get(name, frozenset())
    return frozenset(found)


# ---- what is said of a layer


def _kind(node: NodeProto, weights: _Weights, convolution: Convolution | None) -> Kind:
    product = product_of(node)
    if product is None:
        return "plumbing" if node.op_type in _PLUMBING else "other"
    if product.rule == "transposed":
        return "transposed"
    if product.rule != "convolution":
        factors = (node.input[product.left], node.input[product.right])
        return "dense" if any(name in weights.origins for name in factors) else "product"
    if convolution is None:
        return "convolution"
    if convolution.depthwise:
        return "depthwise"
    return "grouped" if convolution.groups > 1 else "pointwise" if convolution.pointwise else "convolution"


def _detail(node: NodeProto, shapes: Shapes, convolution: Convolution | None) -> str:
    """ "3x3 / 2, groups 32" of a convolution or a pooling, "1280 -> 1000" of a matrix product."""
    given = attributes(node)
    product = product_of(node)
    if convolution is not None:
        groups = f"groups {convolution.groups}" if convolution.groups > 1 else ""
        return _window(convolution.kernel, convolution.strides, convolution.dilations, groups)
    if "kernel_shape" in given:
        ones = (1,) * len(given["kernel_shape"].ints)
        strides, dilations = (tuple(given[name].ints) if name in given else ones for name in ("strides", "dilations"))
        return _window(tuple(given["kernel_shape"].ints), strides, dilations)
    if product is None or product.rule == "attention":
        return ""
    if product.rule == "einsum":
        return str(given["equation"].s.decode())
    left, right = shapes.get(node.input[product.left]), shapes.get(node.input[product.right])
    if left is None or right is None:
        return ""
    if len(right) == 2:
        transposed = "transB" in given and given["transB"].i
        return f"{right[1] if transposed else right[0]} -> {right[0] if transposed else right[1]}"
    return f"{_times(left)} by {_times(right)}"


def _control(inside: list[Layer], macs: int | None) -> str:
    return f"{len(inside)} layers inside" + (", MACs not counted: they depend on the input" if macs is None else "")


def _window(kernel: Shape, strides: Shape, dilations: Shape, groups: str = "") -> str:
    step = strides[:1] if len(set(strides)) == 1 else strides
    spread = dilations[:1] if len(set(dilations)) == 1 else dilations
    text = _times(kernel) + (f" / {_times(step)}" if set(step) != {1} else "")
    return ", ".join(
        part for part in (text, f"dilation {_times(spread)}" if set(spread) != {1} else "", groups) if part
    )


def _times(lengths: Shape) -> str:
    return "x".join(map(str, lengths))
