"""Correction: what rounding does to the mean and the gain of a layer's output is undone in its bias and its scales.

Layer after layer, in the order of the graph, so that each sees what the corrected ones before it give. The mean is the
empirical bias correction of Nagel et al. ("Data-Free Quantization through Weight Equalization and Bias Correction",
2019). The gain is the slope of the integer network's output over the float one's, for each channel: values that are
clipped lower it, and so does noise ahead of an activation that bends, by a little in every layer, until the logits of
mobilenet_v3_small had shrunk by 5 to 9 percent (rescaled, HardSwish raised them as much). Set back to 1 it costs
nothing: weights have a scale for each channel anyway. On 900 photos the answers' negative log-likelihood rose by 0.013
instead of 0.141 (mobilenet_v3_small), 0.003 instead of 0.013 (mobilenet_v2), 0.003 instead of 0.009 (squeezenet1_1)
(2026-11-22); one gain for each layer did as well on two of these and ruined the third, and the least squared error,
which leaves the gain below 1, was worse on all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from exporters.quantize.emit import emit, unrounded
from exporters.quantize.network import Array, Network
from exporters.quantize.observe import Progress
from exporters.quantize.pictures import Pictures
from exporters.quantize.relay import Relay
from exporters.quantize.scheme import Scheme

_MOST_GAIN = 4 / 3  # or its inverse: beyond it a channel is noise
_PRIOR = 200  # values with the slope 1 that count too: where each picture has one value, a slope is a matter of luck
_LEAST_VARIANCE = 1e-6  # of the layer's mean one: such a channel has no slope to speak of


def corrections(network: Network, scheme: Scheme, pictures: Pictures, progress: Progress) -> dict[str, Array]:
    """The gain and the shift of every layer that runs on integers or behind some: {node's output: (2, channels)}."""
    layers = _behind_rounding(network, scheme)
    found: dict[str, Array] = {}
    whole, exact, rounded = network.proto(), Relay(pictures), Relay(pictures)
    for done, node in enumerate(layers):
        progress("correction", done, len(layers))
        output = node.output[0]
        now = emit(network, scheme, found).proto
        makers = {name: made for made in now.graph.node for name in made.output}
        names = (output, scheme.result(node))
        name = next(kept for name in names for kept in (unrounded(name), name) if kept in makers)
        given = makers[name].input[0]
        maker = makers.get(given)
        integers = maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else given
        hold = [integers] if integers != network.input else []
        wanted = exact.run(exact.part(whole, [output]), [output], hold=[output])
        got = rounded.run(rounded.part(now, [name, *hold]), [name], hold=hold)
        pairs = ((one[output], other[name]) for one, other in zip(wanted, got, strict=True))
        found[output] = straightened(pairs)
        if node is not layers[-1]:
            exact.forget(whole, network.outputs)
            rounded.forget(now, network.outputs)
    progress("correction", len(layers), len(layers))
    return found


def _behind_rounding(network: Network, scheme: Scheme) -> list[Any]:
    """The layers with weights that meet rounded values, or have rounded weights, in the order of the graph."""
    rounded, found = set[str](), []
    for node in network.nodes:
        if node.output[0] in scheme.chosen or not rounded.isdisjoint(node.input):
            rounded.update(node.output)
            found += [node] if network.weighted(node) else []
    return found


def straightened(pairs: Iterable[tuple[Array, Array]]) -> Array:
    """(gain, shift) of each channel with which the second of two tensors has the mean of the first, and the slope 1."""
    parts = []
    for wanted, got in pairs:
        one, other = (
            np.moveaxis(value, 1, 0).reshape(value.shape[1], -1).astype(np.float64) for value in (wanted, got)
        )
        parts.append((one.shape[1], [part.sum(axis=1) for part in (one, other, one * one, one * other)]))
    count = sum(size for size, _ in parts)
    mean, now, square, product = np.sum([sums for _, sums in parts], axis=0) / count
    variance, shared = square - mean**2, product - mean * now
    prior = _PRIOR / count * variance + _LEAST_VARIANCE * float(variance.mean()) + 1e-12
    gain = (variance + prior) / (np.maximum(shared, 0) + prior)
    gain = np.clip(gain, 1 / _MOST_GAIN, _MOST_GAIN)
    return np.stack([gain, mean - gain * now])
