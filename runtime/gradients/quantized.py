"""Rules of integers: straight through the rounding, as if the integers were real numbers.

The gradient of an integer tensor is a float, per step of its grid. Where a value left the grid it is 0, and that is
read off the integers: a mask of the float before QuantizeLinear would take the integer kernel away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.gradients.builder import Builder, Tensor
from runtime.gradients.elementwise import Grads, Rule, node_input
from runtime.gradients.graph import Node
from runtime.gradients.integers import along, inside, real

WITHIN = frozenset(
    "AveragePool Clip Concat DepthToSpace Flatten Gather GlobalAveragePool GlobalMaxPool HardSigmoid Identity "
    "LeakyRelu MaxPool Relu Reshape Resize Sigmoid Slice Softmax SpaceToDepth Split Squeeze Tanh Transpose "
    "Unsqueeze".split()
)
"""Operators whose result has a grid made for it: what lies at an end of it has not left it."""


def quantize(node: Node, b: Builder, g: Tensor) -> Grads:
    _check(node)
    scale, x = node_input(node, b, 1), b.graph.shape(node.proto.input[0])
    unscaled, by = b.scaled.get(g.name, (g, ""))
    same = by == scale.name  # what DequantizeLinear has multiplied by is not divided by again
    maker = b.graph.maker.get(node.proto.input[0])
    g = unscaled if same else g
    if maker is None or maker.op_type not in WITHIN:
        g = g * inside(node.proto.output[0], b, g.dtype)
    return [g if same else g / along(scale, len(x), int(node.get("axis", 1)), b)]


def dequantize(node: Node, b: Builder, g: Tensor) -> Grads:
    _check(node)
    x, scale = b.graph.shape(node.proto.input[0]), node_input(node, b, 1)
    steps = g * along(scale, len(x), int(node.get("axis", 1)), b)
    b.scaled[steps.name] = g, scale.name
    return [steps]


def dynamic_quantize(node: Node, b: Builder, g: Tensor | None, *scale: Tensor | None) -> Grads:
    """The scale follows the input's range; it is taken as given."""
    return [g / b.tensor(node.proto.output[1]) if g else None]


def matmul_integer(node: Node, b: Builder, g: Tensor) -> Grads:
    """(a - a0) (b - b0), exact."""
    from runtime.gradients.linear import matmul

    operands = [_real(node, index, None, index + 2, -1, b) for index in (0, 1)]
    return matmul(_float_node(node, "MatMul", operands, str(node.proto.output[0]), b), b, g)


def _check(node: Node) -> None:
    if node.get("block_size", 0):
        raise node.unsupported("it has one scale per block")
    if node.wants(1):
        raise node.unsupported("its scale is computed from what is differentiated")


# ---- operators that work on integers


@dataclass(frozen=True, slots=True)
class Form:
    """Where an integer operator keeps what the float one has: each operand is followed by its scale and zero point.

    result: the input with the scale of the result. axes: of the scales of the operands, where there are several.
    """

    float_op: str
    operands: tuple[int, ...]
    result: int
    axes: tuple[int, ...] = (0, 0)


FORMS = {
    "QLinearConv": Form("Conv", (0, 3), 6),
    "QLinearMatMul": Form("MatMul", (0, 3), 6, (-2, -1)),
    "QGemm": Form("Gemm", (0, 3), 7, (0, 1)),
    "QLinearAdd": Form("Add", (0, 3), 6),
    "QLinearMul": Form("Mul", (0, 3), 6),
    "QLinearAveragePool": Form("AveragePool", (0,), 3),
    "QLinearGlobalAveragePool": Form("GlobalAveragePool", (0,), 3),
    "QLinearSigmoid": Form("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": Form("LeakyRelu", (0,), 3),
    "QLinearSoftmax": Form("Softmax", (0,), 3),
    "QLinearConcat": Form("Concat", (), 0),
}


def integer(rules: dict[str, Rule]) -> Rule:
    """The rule of every operator in FORMS: that of the float operator, on what the integers stand for."""

    def rule(node: Node, b: Builder, g: Tensor) -> Grads:
        form, result = FORMS[node.op], str(node.proto.output[0])
        if node.get("channels_last", 0):
            raise node.unsupported("channels come last")
        starts = form.operands or tuple(range(2, len(node.proto.input), 3))
        axes = (0, 0) if node.get("transB", 0) else (*form.axes, *[0] * len(starts))
        operands = [
            _real(node, start, start + 1, start + 2, axis, b) for start, axis in zip(starts, axes, strict=False)
        ]
        if node.has(form.result):  # it makes integers too
            if form.float_op not in WITHIN:
                g = g * inside(result, b, g.dtype)
            steps, zero = node_input(node, b, form.result), node_input(node, b, form.result + 1)
            g = g / b.reshape(steps, ())
            result = real(b.tensor(result), steps, zero, 0, b).name
        grads = rules[form.float_op](_float_node(node, form.float_op, operands, result, b), b, g)
        back: list[Tensor | None] = [None] * len(node.proto.input)
        for start, grad in zip(starts, grads, strict=False):
            if grad is not None and node.wants(start):
                back[start] = grad * b.reshape(node_input(node, b, start + 1), ())
        return back

    return rule


def _real(node: Node, start: int, scale: int | None, zero: int, axis: int, b: Builder) -> Tensor:
    """What an operand's integers stand for."""
    steps = node_input(node, b, scale) if scale is not None else None
    offset = node_input(node, b, zero) if node.has(zero) else None
    tensor = real(node_input(node, b, start), steps, offset, axis, b)
    if node.wants(start):
        b.wanted_too.add(tensor.name)
    return tensor


def _float_node(node: Node, kind: str, operands: Sequence[Tensor], result: str, b: Builder) -> Node:
    """The node as its float operator would be, on tensors that the gradient's own nodes make."""
    from onnx import NodeProto

    proto = NodeProto(op_type=kind, name=node.proto.name, input=[entry.name for entry in operands], output=[result])
    proto.attribute.extend(node.proto.attribute)
    return Node(proto, node.graph, frozenset(b.wanted_too))
