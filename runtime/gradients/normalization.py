"""Rules of normalisations, in the form they have at inference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from runtime.gradients.builder import Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Node


def batch_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = scale (x - mean) / sqrt(var + epsilon) + shift, a line with its own slope per channel."""
    if any(node.wants(index) for index in range(1, 5)):
        raise node.unsupported("its parameters are computed")
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise node.unsupported("it is not in the form of inference, one mean and variance per channel")
    x, scale, variance = node_input(node, b), node_input(node, b, 1), node_input(node, b, 4)
    slope = scale / b.add("Sqrt", variance + float(node.get("epsilon", 1e-5)))
    return [g * b.reshape(slope, (1, *slope.shape, *[1] * (x.rank - 2)))]


def _standardized(x: Tensor, axes: list[int], epsilon: float, g: Tensor, b: Builder) -> Tensor:
    """The gradient of (x - mean) / deviation: what changes the mean or the deviation is taken out of g."""
    centred = x - b.mean(x, axes)
    deviation = b.add("Sqrt", b.mean(centred * centred, axes) + epsilon)
    unit = centred / deviation
    g = b.expand(g, x)
    return (g - b.mean(g, axes) - unit * b.mean(g * unit, axes)) / deviation


def layer_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    x, scale = node_input(node, b), node_input(node, b, 1)
    _fixed(node, 1, 2)
    first = int(node.get("axis", -1)) % x.rank
    return [_standardized(x, list(range(first, x.rank)), float(node.get("epsilon", 1e-5)), g * scale, b)]


def rms_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = scale x / sqrt(mean(x^2) + epsilon)."""
    x, scale = node_input(node, b), node_input(node, b, 1)
    _fixed(node, 1)
    axes = list(range(int(node.get("axis", -1)) % x.rank, x.rank))
    size = b.add("Sqrt", b.mean(x * x, axes) + float(node.get("epsilon", 1e-5)))
    unit, g = x / size, b.expand(g * scale, x)
    return [(g - unit * b.mean(g * unit, axes)) / size]


def instance_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    x, scale = node_input(node, b), node_input(node, b, 1)
    _fixed(node, 1, 2)
    g = g * b.reshape(scale, (1, *scale.shape, *[1] * (x.rank - 2)))
    return [_standardized(x, list(range(2, x.rank)), float(node.get("epsilon", 1e-5)), g, b)]


def group_normalization(node: Node, b: Builder, g: Tensor) -> Grads:
    """The scale is one per group up to opset 20, one per channel since."""
    x, scale, groups = node_input(node, b), node_input(node, b, 1), int(node.get("num_groups", 1))
    _fixed(node, 1, 2)
    apart = (x.shape[0], groups, math.prod(extents(x, 1)) // groups)
    channels = extents(x, axes=[1])[0]
    if scale.shape[0] != channels:
        scale = b.gather(scale, np.repeat(np.arange(groups), channels // groups), 0)
    g = b.expand(g * b.reshape(scale, (1, channels, *[1] * (x.rank - 2))), x)
    split = b.reshape(g, apart)
    back = _standardized(b.reshape(x, apart), [2], float(node.get("epsilon", 1e-5)), split, b)
    return [b.reshape(back, x.shape, like=x)]


def _fixed(node: Node, *indices: int) -> None:
    if any(node.wants(index) for index in indices):
        raise node.unsupported("its scale or shift is computed")


def lrn(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = x d^-beta, d = bias + alpha / size (sum of x^2 over neighbouring channels)."""
    x, y, size = node_input(node, b), node_output(node, b), int(node.get("size", 1))
    alpha, beta, bias = (float(node.get(*entry)) for entry in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    low = (size - 1) // 2
    d = _neighbours(x * x, size, low, b) * alpha + bias
    g = b.expand(g, y)
    shared = _neighbours(g * y / d, size, size - 1 - low, b)
    return [g * b.add("Pow", d, -beta) - x * shared * (2 * alpha * beta)]


def _neighbours(x: Tensor, size: int, low: int, b: Builder) -> Tensor:
    """The mean over a window of channels, with zeros beyond the first and the last."""
    channels, *space = extents(x, 1)
    rows = b.reshape(x, (x.shape[0], 1, channels, math.prod(space)))
    rows = b.pad(rows, [0, 0, low, 0], [0, 0, size - 1 - low, 0])
    shape: tuple[Any, ...] = (x.shape[0], 1, channels, math.prod(space))
    return b.reshape(b.add("AveragePool", rows, shape=shape, kernel_shape=[size, 1]), x.shape, like=x)


def image_scaler(node: Node, b: Builder, g: Tensor) -> Grads:
    """scale x + bias, an operator onnxruntime keeps for files of 2018."""
    return [g * float(node.get("scale", 1.0))]


def affine(node: Node, b: Builder, g: Tensor) -> Grads:
    """alpha x + beta, likewise."""
    return [g * float(node.get("alpha", 1.0))]
