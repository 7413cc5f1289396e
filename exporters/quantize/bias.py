"""Bias correction: what rounding shifts a layer's output by on average comes off its bias again.

Layer after layer, in the order of the graph, so that each sees what the corrected ones before it give (Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", 2019, in its empirical form). The shift is
worked out from what each weight of the layer meets on average, in the float network and in the integer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters.quantize.emit import dequantized, emit
from exporters.quantize.network import Array, Network, attribute, cut
from exporters.quantize.observe import Progress, run
from exporters.quantize.pictures import Pictures
from exporters.quantize.scheme import Scheme
from exporters.source import FloatArray


def corrections(
    network: Network, scheme: Scheme, means: Mapping[str, Array], pictures: Pictures, progress: Progress
) -> dict[str, Array]:
    """What to add to the bias of each integer layer: {node's output: (outputs,)}. means: ``float_means``."""
    layers = [node for node in network.nodes if node.output[0] in scheme.chosen and node.output[0] in means]
    shifts: dict[str, Array] = {}
    for done, node in enumerate(layers):
        progress("bias correction", done, len(layers))
        given, output = dequantized(node.input[0]), node.output[0]
        now = emit(network, scheme, shifts)
        rounded_means = _means(network, [node], cut(now.proto, [given]), [given], pictures)
        wanted = mean_output(network.matrix(node), means[output])
        shifts[output] = wanted - mean_output(now.weights[output].matrix(), rounded_means[output])
    progress("bias correction", len(layers), len(layers))
    return shifts


def float_means(network: Network, pictures: Pictures) -> dict[str, Array]:
    """What each layer's weights meet on average in the float network: {its output: (inputs, kernel positions)}.

    Padding is counted as 0. Without the layers on the network's own input: nothing before them was rounded.
    """
    layers = [node for node in network.nodes if network.weighted(node) and node.input[0] != network.input]
    inputs = list(dict.fromkeys(node.input[0] for node in layers))
    return _means(network, layers, network.proto(extra_outputs=inputs), inputs, pictures)


def mean_output(matrix: Array, means: Array) -> Array:
    """A layer's mean output without its bias, (outputs,). means: (inputs, kernel positions)."""
    outputs: Array = np.einsum("goik,gik->go", matrix, means.reshape(len(matrix), -1, means.shape[-1])).ravel()
    return outputs


def _means(network: Network, layers: list[Any], proto: Any, names: list[str], pictures: Pictures) -> dict[str, Array]:
    """What each layer's weights meet on average: {its output: (inputs, kernel positions)}, padding counted as 0."""
    means: dict[str, Array] = {}
    for values in run(proto, names, pictures):
        for node in layers:
            value = values[node.input[0]] if node.input[0] in values else values[dequantized(node.input[0])]
            share = len(value) / len(pictures)
            means[node.output[0]] = means.get(node.output[0], 0) + share * _met(network, node, value)
    return means


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
