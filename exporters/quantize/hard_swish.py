"""HardSwish, whose channels cannot be scaled, in a form that lets them be.

k * HardSwish(x) of x * k is x * k * HardSigmoid(x): one more tensor on integers, x itself. Where a layer makes x it
comes from a second one beside it, if that takes less time than the product (x * k) * (1 / k); it is rounded once then.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from exporters.quantize.network import Array, Network
from exporters.quantize.observe import Observed

_FEW_PRODUCTS = 64
"""For each value of a dense layer, up to which it takes less time than a product per channel: that has one thread, and
takes 0.2 ns a value. (2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-23: mobilenet_v3_small 0.93 of float's time
instead of 0.96.)
"""

_LARGE_MAP = 28 * 28  # places, from which on a depthwise layer takes less, too


def rescaled(network: Network, node: Any, scales: Array, seen: dict[str, Observed]) -> None:
    """Let a HardSwish take its input times ``scales``, one for each channel, and give its output times them.

    Its input is as large already: in ``network`` and in ``seen``, which gets the new tensors.
    """
    from onnx import helper

    given, output = node.input[0], node.output[0]
    name, unscaled, gate = node.name or output, f"{output}::unscaled", f"{output}::gate"
    layer, one, ones = network.maker(given), seen[given], np.ones(len(scales))
    if layer is not None and network.only_reader(given) is not None and _has_cheap_twin(network, layer, one.shape):
        before, constants = _twin(network, layer, unscaled, scales)
    else:
        inverse = f"{output}::inverse"
        before = helper.make_node("Mul", [given, inverse], [unscaled], name=f"{name}.unscale")
        constants = {inverse: (1 / scales).astype(np.float32).reshape(1, -1, *[1] * (len(one.shape) - 2))}
    network.replace(
        node,
        [
            before,
            helper.make_node("HardSigmoid", [unscaled], [gate], name=f"{name}.gate", alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", [given, gate], [output], name=name),
        ],
        constants,
    )
    seen[unscaled] = Observed(
        one.shape, one.lowest / scales, one.highest / scales, one.mean / scales, one.power / scales**2
    )
    seen[gate] = Observed(one.shape, 0 * ones, ones, ones / 2, ones)


def _has_cheap_twin(network: Network, layer: Any, shape: tuple[int, ...]) -> bool:
    """Whether a layer that gives this (1, channels, height, width) takes less time than a product per channel."""
    if not network.weighted(layer) or len(shape) != 4:
        return False
    groups, _, inputs, positions = network.matrix(layer).shape
    return inputs * positions <= _FEW_PRODUCTS and (groups == 1 or shape[2] * shape[3] >= _LARGE_MAP)


def _twin(network: Network, layer: Any, output: str, scales: Array) -> tuple[Any, dict[str, Array]]:
    """A layer that gives what another does over these scales, and its constants."""
    twin = copy.deepcopy(layer)
    matrix, bias = network.matrix(layer), network.weights[layer.input[2]]
    twin.name, twin.output[0] = output, output
    twin.input[1:] = [f"{output}::weight", f"{output}::bias"]
    weights = network.stored(layer, matrix / scales.reshape(*matrix.shape[:2], 1, 1))
    return twin, {twin.input[1]: weights, twin.input[2]: (bias / scales).astype(np.float32)}
