"""Weights rounded so that the layer's output errs least, not each weight.

Input after input, what rounding one weight adds to the output is taken off again by the ones that are still to be
rounded (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022,
after Hassibi and Stork's "Optimal Brain Surgeon", 1993). What the layer's inputs have in common says how much: their
second moments, over the calibration pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from exporters.quantize.grids import weight_grid
from exporters.quantize.network import Array, Network, attribute
from exporters.quantize.observe import Progress, run
from exporters.quantize.pictures import Pictures
from exporters.source import FloatArray

_WIDEST = 2400  # inputs of an output; the time grows with their cube
_AT_ONCE = 2**26  # numbers of second moments in memory at a time
_PLACES = 48  # of each picture's map: its neighbours tell much the same
_BLOCK = 64  # inputs; what they add to the ones behind them is taken off these at once, as one product of matrices
_DAMPING = 0.01  # of the mean second moment, so that inputs that are hardly ever seen decide nothing


def round_together(network: Network, layers: list[Any], pictures: Pictures, bits: int, progress: Progress) -> None:
    """Round the weights of these nodes into ``network.rounded``; the widest stay as they were."""
    layers = [node for node in layers if node.input[0] != network.input and _width(network, node) <= _WIDEST]
    done = 0
    for some in _portions(network, layers):
        for output, moments in _second_moments(network, some, pictures).items():
            progress("rounding", done, len(layers))
            node = network.maker(output)
            matrix = network.matrix(node)
            integers, scales = weight_grid(matrix.reshape(-1, _width(network, node)), bits=bits)
            whole = compensated(
                matrix.reshape(*matrix.shape[:2], -1), scales.reshape(matrix.shape[:2]), moments, 2 ** (bits - 1) - 1
            )
            network.rounded[output] = (whole.reshape(integers.shape), scales), matrix.shape
            done += 1


def compensated(matrix: Array, scales: Array, moments: Array, largest: int) -> Array:
    """The integers of (groups, outputs, inputs), each output on its scale. moments: (groups, inputs, inputs)."""
    left, steps = matrix.astype(np.float64), scales.astype(np.float64)
    inputs = left.shape[2]
    mean = np.trace(moments, axis1=1, axis2=2) / inputs
    damped = moments.astype(np.float64) + (_DAMPING * mean + 1e-12)[:, None, None] * np.eye(inputs)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    integers = np.empty(left.shape, np.int8)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        wrong = np.empty((*left.shape[:2], stop - start))
        for index in range(start, stop):
            rounded = np.clip(np.round(left[:, :, index] / steps), -largest, largest)
            integers[:, :, index] = rounded
            wrong[:, :, index - start] = (left[:, :, index] - rounded * steps) / upper[:, index, index, None]
            left[:, :, index:stop] -= wrong[:, :, index - start, None] * upper[:, None, index, index:stop]
        left[:, :, stop:] -= wrong @ upper[:, start:stop, stop:]
    return integers


def _width(network: Network, node: Any) -> int:
    matrix = network.matrix(node)
    return int(matrix.shape[2] * matrix.shape[3])


def _portions(network: Network, layers: list[Any]) -> Iterator[list[Any]]:
    """The layers, as many at a time as memory is meant for."""
    some: list[Any] = []
    size = 0
    for node in layers:
        needed = network.matrix(node).shape[0] * _width(network, node) ** 2
        if some and size + needed > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(node)
        size += needed
    if some:
        yield some


def _second_moments(network: Network, layers: list[Any], pictures: Pictures) -> dict[str, Array]:
    """Of each layer's inputs, by its output: (groups, inputs, inputs)."""
    random, names = np.random.default_rng(0), list(dict.fromkeys(node.input[0] for node in layers))
    moments: dict[str, Array] = {}
    for values in run(network.proto(extra_outputs=names), names, pictures):
        for node in layers:
            met = _met(network, node, values[node.input[0]], random)
            part = met.transpose(0, 2, 1) @ met / np.float32(len(pictures))
            moments[node.output[0]] = moments[node.output[0]] + part if node.output[0] in moments else part
    return moments


def _met(network: Network, node: Any, value: FloatArray, random: np.random.Generator) -> FloatArray:
    """What an output's weights meet at some places: (groups, places, inputs)."""
    if node.op_type == "Gemm":
        return value[None]
    rank, groups = value.ndim - 2, attribute(node, "group", 1)
    kernel = network.weights[node.input[1]].shape[2:]
    pads = attribute(node, "pads", [0] * 2 * rank)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    padded = np.pad(value, ((0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)))
    reaches = tuple(dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reaches, axis=tuple(range(2, 2 + rank)))
    every = (slice(None), slice(None), *(slice(None, None, stride) for stride in strides))
    windows = windows[(*every, *(slice(None, None, dilation) for dilation in dilations))]
    counts = windows.shape[2 : 2 + rank]
    places = random.choice(int(np.prod(counts)), size=min(_PLACES, int(np.prod(counts))), replace=False)
    at: tuple[Any, ...] = (slice(None), slice(None), *np.unravel_index(places, counts))
    seen = windows[at]  # (pictures, channels, places, ...)
    inputs = value.shape[1] // groups
    grouped = seen.reshape(len(value), groups, inputs, len(places), -1).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(grouped.reshape(groups, len(value) * len(places), -1))
