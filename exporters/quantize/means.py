"""What a layer's weights meet on average: what rounding them adds to the mean of its output."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.quantize.network import Array, Network, attribute
from exporters.quantize.observe import run
from exporters.quantize.pictures import Pictures
from exporters.source import FloatArray


def float_means(network: Network, pictures: Pictures) -> dict[str, Array]:
    """What each layer's weights meet on average in the float network: {its output: (inputs, kernel positions)}.

    Padding is counted as 0. Without the layers on the network's own input: nothing before them was rounded.
    """
    layers = [
        (node, node.input[0]) for node in network.nodes if network.weighted(node) and node.input[0] != network.input
    ]
    names = list(dict.fromkeys(name for _, name in layers))
    means: dict[str, Array] = {}
    for values in run(network.proto(extra_outputs=names), names, pictures):
        for node, name in layers:
            share = len(values[name]) / len(pictures)
            means[node.output[0]] = means.get(node.output[0], 0) + share * _met(network, node, values[name])
    return means


def mean_output(matrix: Array, means: Array) -> Array:
    """A layer's mean output without its bias, (outputs,). means: (inputs, kernel positions)."""
    outputs: Array = np.einsum("goik,gik->go", matrix, means.reshape(len(matrix), -1, means.shape[-1])).ravel()
    return outputs


def _met(network: Network, node: Any, value: FloatArray) -> Array:
    if node.op_type == "Gemm":
        features: Array = value.mean(axis=0, dtype=np.float64)[:, None]
        return features
    rank = value.ndim - 2
    kernel = network.weights[node.input[1]].shape[2:]
    pads = attribute(node, "pads", [0] * 2 * rank)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    padded = np.pad(value, ((0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)))
    reaches = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    counts = [
        (side - reach) // stride + 1 for side, reach, stride in zip(padded.shape[2:], reaches, strides, strict=True)
    ]
    columns = []
    for position in np.ndindex(*kernel):
        starts = [at * dilation for at, dilation in zip(position, dilations, strict=True)]
        seen = tuple(
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(starts, counts, strides, strict=True)
        )
        columns.append(padded[(slice(None), slice(None), *seen)].mean(axis=(0, *range(2, 2 + rank)), dtype=np.float64))
    return np.stack(columns, axis=1)
