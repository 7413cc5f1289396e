"""Rules of operators that work element by element; y is the output, g its gradient.

Masks are made of the output where it tells enough: then the input need not exist, and a convolution stays fused with
its activation. At a kink they follow torch: ReLU'(0) = 0, ReLU6'(0) = ReLU6'(6) = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from runtime.gradients.builder import FLOATS, Builder, Tensor
from runtime.gradients.graph import Node

Grads = Sequence[Tensor | None]
Rule = Callable[..., Grads]


def unary(derivative: Callable[[Tensor, Tensor, Builder], Tensor]) -> Rule:
    """The rule of y = f(x), from its derivative given x and y."""

    def rule(node: Node, b: Builder, g: Tensor) -> Grads:
        return [g * derivative(node_input(node, b), node_output(node, b), b)]

    return rule


def node_input(node: Node, b: Builder, index: int = 0) -> Tensor:
    """An input of the node as a tensor."""
    return b.tensor(node.proto.input[index])


def node_output(node: Node, b: Builder) -> Tensor:
    """The node's first output as a tensor."""
    return b.tensor(node.proto.output[0])


def same(node: Node, b: Builder, g: Tensor) -> Grads:
    return [g]


def add(node: Node, b: Builder, g: Tensor) -> Grads:
    """An operand that is repeated needs all of the gradient, to sum it."""
    y = node_output(node, b)
    shapes = [node_input(node, b, index).shape for index in range(len(node.proto.input))]
    return [g if shape == y.shape else b.expand(g, y) for shape in shapes]


def mean(node: Node, b: Builder, g: Tensor) -> Grads:
    return add(node, b, g / float(len(node.proto.input)))


def subtract(node: Node, b: Builder, g: Tensor) -> Grads:
    first, second = add(node, b, g)
    return [first, -second if second else None]


def multiply(node: Node, b: Builder, g: Tensor) -> Grads:
    left, right = node_input(node, b), node_input(node, b, 1)
    if _is_swish(node, b):  # at once, in four steps instead of six
        return [g * (right + node_output(node, b) * (1.0 - right)), None]
    return [g * right if node.wants(0) else None, g * left if node.wants(1) else None]


def _is_swish(node: Node, b: Builder) -> bool:
    """x sigmoid(x), whose sigmoid nothing else reads."""
    x, gate = node.proto.input
    maker = b.graph.maker.get(gate)
    alone = len(b.graph.readers[gate]) == 1 and gate not in b.sources
    return maker is not None and maker.op_type == "Sigmoid" and maker.input[0] == x and alone


def divide(node: Node, b: Builder, g: Tensor) -> Grads:
    first = g / node_input(node, b, 1)
    return [first, -(first * node_output(node, b)) if node.wants(1) else None]


def power(node: Node, b: Builder, g: Tensor) -> Grads:
    x, exponent = node_input(node, b), node_input(node, b, 1)
    fixed = node.constant(1)
    first = second = None
    if node.wants(0) and fixed is not None and fixed.size == 1:
        value = float(fixed.reshape(-1)[0])
        slope = 1.0 if value == 1 else 2.0 * x if value == 2 else value * b.add("Pow", x, value - 1)
        first = g * slope
    elif node.wants(0):
        exponent = b.cast(exponent, x.dtype)
        first = g * exponent * b.add("Pow", x, exponent - 1.0)
    if node.wants(1):
        second = g * node_output(node, b) * b.add("Log", x)
    return [first, second]


def extreme(node: Node, b: Builder, g: Tensor) -> Grads:
    """Min and Max; equals share the gradient."""
    y = b.exact(node.proto.output[0])
    if len(node.proto.input) == 1:
        return [g]
    masks = [equal(node_input(node, b, index), y, b) for index in range(len(node.proto.input))]
    total = b.add_up(masks)
    return [g * (mask / total) for mask in masks]


def equal(x: Tensor, y: Tensor, b: Builder) -> Tensor:
    """[x == y]; before opset 11 Equal takes no floats."""
    if b.opset >= 11:
        return b.compare("Equal", x, y)
    return 1.0 - b.compare("Less", x, y) - b.compare("Greater", x, y)


def where(node: Node, b: Builder, g: Tensor) -> Grads:
    condition, zero = node_input(node, b), b.constant(0, g.dtype)
    _, first, second = add(node, b, g)
    return [
        None,
        b.add("Where", condition, first, zero, dtype=g.dtype) if node.wants(1) else None,
        b.add("Where", condition, zero, second, dtype=g.dtype) if node.wants(2) else None,
    ]


def cast(node: Node, b: Builder, g: Tensor) -> Grads:
    """Through integers as if they were real numbers; into them there is no slope."""
    given, made = b.graph.dtype(node.proto.input[0]), int(node.get("to", 1))
    if made not in FLOATS and given in FLOATS:
        return [None]
    return [b.cast(g, given) if given in FLOATS else g]


# ---- activations


def relu(node: Node, b: Builder, g: Tensor) -> Grads:
    return [g * b.above(b.cast(node_output(node, b), g.dtype))]


def clip(node: Node, b: Builder, g: Tensor) -> Grads:
    """Strictly between the bounds, as torch's ReLU6 and hardtanh."""
    y = b.cast(node_output(node, b), g.dtype)
    bounds = [node.setting("min", 1), node.setting("max", 2)]
    low, high = (None if bound is None else float(np.reshape(bound, -1)[0]) for bound in bounds)
    if low is not None and low > float(np.finfo(np.float32).min):
        g = g * b.above(y, low)
    if high is not None and high < float(np.finfo(np.float32).max):
        g = g * b.below(y, high)
    return [g]


def leaky_relu(node: Node, b: Builder, g: Tensor) -> Grads:
    slope = float(node.get("alpha", 0.01))
    side = node_output(node, b) if slope >= 0 else node_input(node, b)
    return [g * (b.above(side) * (1 - slope) + slope)]


def prelu(node: Node, b: Builder, g: Tensor) -> Grads:
    x, slope = node_input(node, b), node_input(node, b, 1)
    positive = b.above(x)
    negative = 1.0 - positive
    return [g * (positive + negative * slope), g * x * negative if node.wants(1) else None]


def thresholded_relu(node: Node, b: Builder, g: Tensor) -> Grads:
    return [g * b.above(node_input(node, b), float(node.get("alpha", 1.0)))]


def elu(node: Node, b: Builder, g: Tensor) -> Grads:
    return [g * _elu_slope(node_output(node, b), float(node.get("alpha", 1.0)), b)]


def selu(node: Node, b: Builder, g: Tensor) -> Grads:
    gamma = float(node.get("gamma", 1.05070102214813232421875))
    alpha = float(node.get("alpha", 1.67326319217681884765625))
    return [g * _elu_slope(node_output(node, b) / gamma, alpha, b) * gamma]


def celu(node: Node, b: Builder, g: Tensor) -> Grads:
    return [g * _elu_slope(node_output(node, b) / float(node.get("alpha", 1.0)), 1.0, b)]


def _elu_slope(y: Tensor, alpha: float, b: Builder) -> Tensor:
    """1 above 0, y + alpha below."""
    positive = b.above(y)
    return positive + (1.0 - positive) * (y + alpha)


def hard_sigmoid(node: Node, b: Builder, g: Tensor) -> Grads:
    y = node_output(node, b)
    return [g * (b.above(y * (1.0 - y)) * float(node.get("alpha", 0.2)))]


def hard_swish(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = x h, h = clip(x/6 + 1/2, 0, 1): h + x/6 where 0 < h < 1."""
    x = node_input(node, b)
    h = b.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    return [g * (h + x * (b.above(h * (1.0 - h)) * (1 / 6)))]


def gelu(node: Node, b: Builder, g: Tensor) -> Grads:
    x = node_input(node, b)
    if node.get("approximate", "none") == "tanh":
        # y = x (1 + t) / 2, t = tanh(u), u = a (x + c x^3)
        a, c = math.sqrt(2 / math.pi), 0.044715
        square = x * x
        t = b.add("Tanh", x * (square * (a * c) + a))
        inner = square * (3 * a * c) + a
        return [g * ((t + 1.0) * 0.5 + x * inner * (1.0 - t * t) * 0.5)]
    cdf = (b.add("Erf", x * math.sqrt(0.5)) + 1.0) * 0.5
    pdf = b.add("Exp", x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return [g * (cdf + x * pdf)]


def swish(node: Node, b: Builder, g: Tensor) -> Grads:
    """x sigmoid(a x)."""
    x, alpha = node_input(node, b), float(node.get("alpha", 1.0 if node.op == "Swish" else 1.702))
    gate = b.add("Sigmoid", x * alpha if alpha != 1 else x)
    return [g * (gate * (x * (1.0 - gate) * alpha + 1.0))]


def mish(node: Node, b: Builder, g: Tensor) -> Grads:
    """x t, t = tanh(softplus(x)): t + x (1 - t^2) sigmoid(x)."""
    x = node_input(node, b)
    t = b.add("Tanh", b.add("Softplus", x))
    return [g * (t + x * (1.0 - t * t) * b.add("Sigmoid", x))]


def _softsign(x: Tensor, y: Tensor, b: Builder) -> Tensor:
    shrunk = 1.0 - b.add("Abs", y)  # 1 / (1 + |x|)
    return shrunk * shrunk


UNARY: dict[str, Rule] = {
    "Abs": unary(lambda x, y, b: b.above(x) - b.below(x)),
    "Atan": unary(lambda x, y, b: 1.0 / (x * x + 1.0)),
    "Cos": unary(lambda x, y, b: -b.add("Sin", x)),
    "Erf": unary(lambda x, y, b: b.add("Exp", -(x * x)) * (2 / math.sqrt(math.pi))),
    "Exp": unary(lambda x, y, b: y),
    "Log": unary(lambda x, y, b: 1.0 / x),
    "Neg": lambda node, b, g: [-g],
    "Reciprocal": unary(lambda x, y, b: -(y * y)),
    "Sigmoid": unary(lambda x, y, b: y * (1.0 - y)),
    "Sin": unary(lambda x, y, b: b.add("Cos", x)),
    "Softplus": unary(lambda x, y, b: b.add("Sigmoid", x)),
    "Softsign": unary(_softsign),
    "Sqrt": unary(lambda x, y, b: 0.5 / y),
    "Tanh": unary(lambda x, y, b: 1.0 - y * y),
}
