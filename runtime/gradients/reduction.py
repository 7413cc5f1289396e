"""Rules of reductions and of softmax, which is one."""

from __future__ import annotations

import math

import numpy as np

from runtime.gradients.builder import Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, equal, node_input, node_output
from runtime.gradients.graph import Node


def _reduced(node: Node, b: Builder) -> list[int]:
    x = node_input(node, b)
    axes = node.axes(x.rank)
    if axes:
        return axes
    return [] if node.get("noop_with_empty_axes", 0) else list(range(x.rank))


def _keeping(node: Node, b: Builder, small: Tensor) -> Tensor:
    """The output, or its gradient, with the reduced axes as ones again."""
    x, axes = node_input(node, b), _reduced(node, b)
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape))
    if small.rank == x.rank or not axes:
        return small
    # The gradient may be smaller than the output.
    left = [axis for axis in range(x.rank) if axis not in axes]
    for place, axis in enumerate(left):
        shape = (*shape[:axis], small.shape[place], *shape[axis + 1 :])
    return b.reshape(small, shape)


def reduce_sum(node: Node, b: Builder, g: Tensor) -> Grads:
    """The same for every term: it is broadcast where it is used."""
    return [_keeping(node, b, g)]


def reduce_mean(node: Node, b: Builder, g: Tensor) -> Grads:
    x = node_input(node, b)
    return [_keeping(node, b, g) * (1 / math.prod(extents(x, axes=_reduced(node, b))))]


def reduce_extreme(node: Node, b: Builder, g: Tensor) -> Grads:
    """ReduceMax and ReduceMin; equals share the gradient."""
    x, y = node_input(node, b), _keeping(node, b, b.exact(node.proto.output[0]))
    mask = equal(x, y, b)
    return [_keeping(node, b, g) / b.sum(mask, _reduced(node, b)) * mask]


def reduce_l1(node: Node, b: Builder, g: Tensor) -> Grads:
    x = node_input(node, b)
    return [_keeping(node, b, g) * (b.above(x) - b.below(x))]


def reduce_l2(node: Node, b: Builder, g: Tensor) -> Grads:
    return [_keeping(node, b, g / _not_zero(node_output(node, b), b)) * node_input(node, b)]


def _not_zero(length: Tensor, b: Builder) -> Tensor:
    """1 instead of 0: at the origin the gradient is 0 by convention, as torch's."""
    return length + b.is_zero(length)


def reduce_sum_square(node: Node, b: Builder, g: Tensor) -> Grads:
    return [_keeping(node, b, g * 2.0) * node_input(node, b)]


def reduce_log_sum_exp(node: Node, b: Builder, g: Tensor) -> Grads:
    x, y = node_input(node, b), node_output(node, b)
    return [_keeping(node, b, g) * b.add("Exp", x - _keeping(node, b, y))]


def reduce_log_sum(node: Node, b: Builder, g: Tensor) -> Grads:
    return [_keeping(node, b, g / b.add("Exp", node_output(node, b)))]


def reduce_prod(node: Node, b: Builder, g: Tensor) -> Grads:
    """Where no factor is 0."""
    return [_keeping(node, b, g * node_output(node, b)) / node_input(node, b)]


def lp_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = x / |x|: what of g lies along y changes nothing."""
    x, y, p = node_input(node, b), node_output(node, b), int(node.get("p", 2))
    axes = [int(node.get("axis", -1)) % x.rank]
    along = b.sum(g * y, axes)
    if p == 1:
        size = b.sum(b.add("Abs", x), axes)
        return [(g - along * (b.above(x) - b.below(x))) / _not_zero(size, b)]
    return [(g - along * y) / _not_zero(b.add("Sqrt", b.sum(x * x, axes)), b)]


def _softmax_axes(node: Node, rank: int) -> list[int]:
    """One axis since opset 13; before, all from that axis on."""
    axis = int(node.get("axis", -1 if node.opset >= 13 else 1)) % rank
    return [axis] if node.opset >= 13 else list(range(axis, rank))


def softmax(node: Node, b: Builder, g: Tensor) -> Grads:
    y = node_output(node, b)
    return [y * (g - b.sum(g * y, _softmax_axes(node, y.rank)))]


def log_softmax(node: Node, b: Builder, g: Tensor) -> Grads:
    y = node_output(node, b)
    return [g - b.add("Exp", y) * b.sum(b.expand(g, y), _softmax_axes(node, y.rank))]


def cumulative_sum(node: Node, b: Builder, g: Tensor) -> Grads:
    """Summed from the other end."""
    y = node_output(node, b)
    back = {"exclusive": node.get("exclusive", 0), "reverse": 1 - node.get("reverse", 0)}
    axis = node.constant(1)
    if axis is None:
        raise node.unsupported("its axis is computed while the model runs")
    return [b.add("CumSum", b.expand(g, y), b.constant(np.reshape(axis, ()), 7), shape=y.shape, **back)]
