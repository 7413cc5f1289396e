"""Which layers to leave in float: where rounding hurts the answer most for the time that it saves.

Each tensor's rounding and each layer's is measured alone, the rest of the network in float and biases mended as they
will be: what is clipped moves means, most of the error of mobilenet_v3_small otherwise. The errors are independent of
each other, so their squares add up to that of the whole (0.165 summed and 0.155 measured for mobilenet_v3_small, 0.091
and 0.071 for mobilenet_v2, 2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-22), and what a set of layers in float
would bring need not be tried.
A tensor is rounded as long as one integer node makes or takes it: to save it, all of them return to float.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from exporters.quantize.emit import Rounded, unrounded
from exporters.quantize.grids import Grid
from exporters.quantize.journal import Journal
from exporters.quantize.means import mean_output
from exporters.quantize.network import Array, Network, cut
from exporters.quantize.observe import Progress
from exporters.quantize.pictures import Pictures
from exporters.quantize.reference import Reference
from exporters.quantize.relay import Relay
from exporters.quantize.scheme import MOVES, Scheme, Style, tensors_of

_MOST_TIME = 1.6  # of the integer network's; beyond it little is left of what integers are for
_MOST_NODES = 0.25  # of those on integers, likewise
_PLACE_MS, _VALUE_MS = 0.015, 4e-7
"""Roughly what a place takes where integers become floats or the other way round, and each value that passes it:
conversion and, between layers, onnxruntime's change from one layout of channels to the other. Of mobilenet_v3_small two
and four nodes in float took 2.8 and 6.6 % more, 1.2 and 4.9 % by this (2 cores of an AMD EPYC, onnxruntime 1.31.1,
2026-11-22); what is chosen is timed.
"""


@dataclass(frozen=True, slots=True)
class Alone:
    """Squares of the error of the logits, norm over norm, with one thing rounded: {tensor: }, {layer's output: }."""

    style: Style
    tensors: Mapping[str, float]
    layers: Mapping[str, float]

    def together(self, network: Network, chosen: frozenset[str]) -> float:
        """The square of the error with these nodes on integers."""
        needed, _ = tensors_of(network, chosen, self.style)
        layers = sum(square for name, square in self.layers.items() if name in chosen)
        return layers + sum(square for name, square in self.tensors.items() if name in needed)


def measure_alone(
    network: Network,
    scheme: Scheme,
    rounded: Mapping[str, Rounded],
    means: Mapping[str, Array],
    pictures: Pictures,
    wanted: Reference,
    journal: Journal,
    progress: Progress,
) -> Alone:
    """Round every tensor, and every layer with weights, alone.

    rounded: the layers' weights. means: what they meet, ``float_means``. wanted: what the float network answers to
    the pictures.
    """
    moved = {node.output[0]: network.computed(node) for node in network.nodes if node.op_type in MOVES}
    grids = {
        name: grid
        for name, grid in scheme.grids.items()
        if name not in moved or any(scheme.grids.get(given) != grid for given in moved[name])
    }
    total, whole, relay = len(grids) + len(rounded), network.proto(), Relay(pictures)
    tensors: dict[str, float] = {}
    layers: dict[str, float] = {}
    exact: dict[str, Array] = {}  # means of layers' outputs in the float network

    def answered(part: Any) -> dict[str, Array]:
        return {"square": np.array(wanted.square(relay.run(part, wanted.outputs)))}

    def mean(part: Any, output: str) -> Array:
        """Of each channel of a layer's output, which a part gives."""
        total, passes = 0.0, relay.run(cut(part, [output]), [output])
        for value in (values[output] for values in passes):
            share = len(value) / len(pictures)
            total = total + share * value.mean(axis=(0, *range(2, value.ndim)), dtype=np.float64)
        return np.asarray(total)

    def with_grid(tensor: str) -> dict[str, Array]:
        if tensor not in (network.input, *network.outputs):
            deque(relay.run(relay.part(whole, [tensor]), [], hold=[tensor]), maxlen=0)
            relay.forget(whole, network.outputs)
        part, mended = relay.part(whole, network.outputs), _layers_behind(network, tensor)
        exact.update({output: mean(part, output) for output in mended if output not in exact})
        part = _with_grid(part, tensor, grids[tensor])
        for output in mended:  # as ``corrections`` will do
            _add_to_bias(part, output, exact[output] - mean(part, output))
        return answered(part)

    def with_weights(node: Any) -> dict[str, Array]:
        part = relay.part(whole, network.outputs)
        return answered(_with_weights(part, network, node, rounded[node.output[0]], means))

    def measured(name: str, compute: Callable[[], dict[str, Array]]) -> float:
        progress("sensitivity", len(tensors) + len(layers), total)
        return float(journal.remember(name, compute)["square"])

    for name in [network.input] if network.input in grids else []:
        tensors[name] = measured(name, partial(with_grid, name))
    for node in network.nodes:
        output = node.output[0]
        if output in rounded:
            layers[output] = measured(f"weights of {output}", partial(with_weights, node))
        for name in node.output:
            if name in grids:
                tensors[name] = measured(name, partial(with_grid, name))
    return Alone(scheme.style, tensors, layers)


def _layers_behind(network: Network, tensor: str) -> list[str]:
    """The layers with weights that a tensor gets to without passing another, by their outputs."""
    found, pending, met = list[str](), [tensor], {tensor}
    while pending:
        for node in network.readers(pending.pop()):
            if network.weighted(node):
                found.append(node.output[0])
            else:
                pending += [name for name in node.output if name not in met]
                met.update(node.output)
    return list(dict.fromkeys(found))


def _add_to_bias(part: Any, output: str, shift: Array) -> None:
    """Add to the bias of the layer with this output, (channels,)."""
    from onnx import numpy_helper

    (node,) = (node for node in part.graph.node if output in node.output)
    (bias,) = (numpy_helper.to_array(item) for item in part.graph.initializer if item.name == node.input[2])
    node.input[2] = f"{output}::mended"
    part.graph.initializer.append(numpy_helper.from_array((bias + shift).astype(np.float32), node.input[2]))


def _with_grid(part: Any, tensor: str, grid: Grid) -> Any:
    """A part of the float network with one tensor on its grid."""
    from onnx import helper, numpy_helper

    exact, given = tensor, f"{tensor}::rounded"
    if tensor in {item.name for item in part.graph.output}:  # it takes its name over
        exact, given = unrounded(tensor), tensor
    for node in part.graph.node:
        node.input[:] = [given if name == tensor else name for name in node.input]
        node.output[:] = [exact if name == tensor else name for name in node.output]
    place = next((index + 1 for index, node in enumerate(part.graph.node) if exact in node.output), 0)
    constants = [f"{tensor}::scale", f"{tensor}::zero"]
    arrays = np.float32(grid.scale), grid.dtype(grid.zero_point)
    part.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in zip(constants, arrays, strict=True)
    )
    down = helper.make_node("QuantizeLinear", [exact, *constants], [f"{tensor}::quantized"])
    up = helper.make_node("DequantizeLinear", [f"{tensor}::quantized", *constants], [given])
    part.graph.node.insert(place, down)
    part.graph.node.insert(place + 1, up)
    return part


def _with_weights(part: Any, network: Network, node: Any, rounded: Rounded, means: Mapping[str, Array]) -> Any:
    """A part of the float network with one layer's weights rounded, and its bias mended as it will be."""
    from onnx import numpy_helper

    exact, now = network.matrix(node), rounded.matrix()
    bias = network.weights[node.input[2]].astype(np.float64)
    if node.output[0] in means:
        bias = bias + mean_output(exact - now, means[node.output[0]])
    changed = {node.input[1]: network.stored(node, now), node.input[2]: bias.astype(np.float32)}
    for item in part.graph.initializer:
        if item.name in changed:
            item.CopyFrom(numpy_helper.from_array(changed[item.name], item.name))
    return part


def spared_sets(
    network: Network,
    chosen: frozenset[str],
    errors: Alone,
    saves: Mapping[str, float],
    sizes: Mapping[str, float],
    whole_ms: float,
) -> list[tuple[float, frozenset[str]]]:
    """Ever larger sets of nodes to leave in float, each the last one and what pays best beside it, and their time.

    saves: milliseconds that each chosen node is faster on integers. sizes: values of each tensor, for one picture.
    whole_ms: of the integer network. Times are given as shares of that.
    """
    units = [frozenset({name}) for name in errors.layers]
    for tensor in errors.tensors:
        around = {node.output[0] for node in network.readers(tensor)}
        units.append(frozenset(name for name in {*around, *_makers(network, tensor)} if name in chosen))
    spared, most = frozenset[str](), _MOST_NODES * len(chosen)
    found: list[tuple[float, frozenset[str]]] = []
    square, joints = errors.together(network, chosen), _joints(network, sizes)
    passing = _passing_ms(joints, chosen)
    while square > 0:
        best = None
        for unit in {unit | spared for unit in units if unit - spared and len(unit | spared) <= most}:
            took = whole_ms + sum(max(saves.get(name, 0.0), 0.0) for name in unit)
            took += _passing_ms(joints, chosen - unit) - passing
            left = errors.together(network, chosen - unit)
            if took <= _MOST_TIME * whole_ms and left < square and (best is None or left * took**2 < best[0]):
                best = left * took**2, unit, left, took
        if best is None:
            return found
        _, spared, square, took = best
        found.append((took / whole_ms, spared))
    return found


def _joints(network: Network, sizes: Mapping[str, float]) -> list[tuple[float, frozenset[str], frozenset[str]]]:
    """Of each tensor what passing between integers and floats takes, its makers and its readers, by their outputs."""
    found = []
    for name, size in sizes.items():
        readers = {node.output[0] for node in network.readers(name) if not network.rectifies(node)}
        if readers and network.maker(name) is not None:
            found.append((_PLACE_MS + _VALUE_MS * size, frozenset(_makers(network, name)), frozenset(readers)))
    return found


def _passing_ms(joints: list[tuple[float, frozenset[str], frozenset[str]]], chosen: frozenset[str]) -> float:
    """What passing between integers and floats takes in all where these nodes run on integers."""
    return sum(
        taken
        for taken, makers, readers in joints
        if not (readers.isdisjoint(chosen) if makers.isdisjoint(chosen) else readers <= chosen)
    )


def _makers(network: Network, tensor: str) -> list[str]:
    """The node that gives a tensor, and the one before it where this is its activation."""
    node = network.maker(tensor)
    if node is None:
        return []
    before = network.maker(node.input[0]) if network.rectifies(node) else None
    return [node.output[0], *([before.output[0]] if before is not None else [])]
