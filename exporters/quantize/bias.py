"""Bias correction: what rounding shifts a layer's output by on average comes off its bias again.

Layer after layer, in the order of the graph, so that each sees what the corrected ones before it give (Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", 2019, in its empirical form). The shift is
worked out from what each weight of the layer meets on average, in the float network and in the integer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from exporters.quantize.emit import dequantized, emit
from exporters.quantize.network import Array, Network, attribute
from exporters.quantize.observe import Progress, run
from exporters.quantize.pictures import Pictures
from exporters.quantize.relay import Relay
from exporters.quantize.scheme import Scheme
from exporters.source import FloatArray


def corrections(
    network: Network, scheme: Scheme, means: Mapping[str, Array], pictures: Pictures, progress: Progress
) -> dict[str, Array]:
    """What to add to the bias of each layer that runs on integers or behind some: {node's output: (outputs,)}.

    means: ``float_means``.
    """
    layers = [node for node in _behind_rounding(network, scheme) if node.output[0] in means]
    shifts: dict[str, Array] = {}
    relay = Relay(pictures)
    for done, node in enumerate(layers):
        progress("bias correction", done, len(layers))
        output = node.output[0]
        now = emit(network, scheme, shifts)
        makers = {name: made for made in now.proto.graph.node for name in made.output}
        rounded = output in now.weights
        matrix = now.weights[output].matrix() if rounded else network.matrix(node)
        given = dequantized(node.input[0]) if rounded else makers[output].input[0]
        maker = makers.get(given)
        integers = maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else given
        values = relay.run(relay.part(now.proto, [given, integers]), [given], hold=[integers])
        met = _means(network, [(node, given)], values, len(pictures))
        relay.forget(now.proto, network.output)
        shifts[output] = mean_output(network.matrix(node), means[output]) - mean_output(matrix, met[output])
    progress("bias correction", len(layers), len(layers))
    return shifts


def _behind_rounding(network: Network, scheme: Scheme) -> list[Any]:
    """The layers with weights that meet rounded values, or have rounded weights, in the order of the graph."""
    rounded, found = set[str](), []
    for node in network.nodes:
        if node.output[0] in scheme.chosen or not rounded.isdisjoint(node.input):
            rounded.update(node.output)
            found += [node] if network.weighted(node) else []
    return found


def float_means(network: Network, pictures: Pictures) -> dict[str, Array]:
    """What each layer's weights meet on average in the float network: {its output: (inputs, kernel positions)}.

    Padding is counted as 0. Without the layers on the network's own input: nothing before them was rounded.
    """
    layers = [
        (node, node.input[0]) for node in network.nodes if network.weighted(node) and node.input[0] != network.input
    ]
    inputs = list(dict.fromkeys(name for _, name in layers))
    return _means(network, layers, run(network.proto(extra_outputs=inputs), inputs, pictures), len(pictures))


def mean_output(matrix: Array, means: Array) -> Array:
    """A layer's mean output without its bias, (outputs,). means: (inputs, kernel positions)."""
    outputs: Array = np.einsum("goik,gik->go", matrix, means.reshape(len(matrix), -1, means.shape[-1])).ravel()
    return outputs


def _means(
    network: Network, layers: list[tuple[Any, str]], passes: Iterable[dict[str, Array]], pictures: int
) -> dict[str, Array]:
    """What each layer's weights meet on average: {its output: (inputs, kernel positions)}, padding counted as 0.

    layers: nodes, and the tensor that each of them meets. passes: these tensors, for some pictures after others.
    """
    means: dict[str, Array] = {}
    for values in passes:
        for node, name in layers:
            share = len(values[name]) / pictures
            means[node.output[0]] = means.get(node.output[0], 0) + share * _met(network, node, values[name])
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
