"""The scheme: which nodes run on integers, and the grid of every tensor between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporters.quantize.grids import (
    Grid,
    Ranges,
    around_zero,
    chosen_range,
    chosen_top,
    hard_sigmoid_input,
    hard_swish_input,
    spanning,
)
from exporters.quantize.network import Network, attribute
from exporters.quantize.observe import Observed

INTEGER = frozenset(
    "Conv Gemm Add Mul Concat GlobalAveragePool AveragePool MaxPool Sigmoid LeakyRelu HardSwish HardSigmoid "
    "Reshape Flatten Transpose Slice Squeeze Unsqueeze".split()
)
"""Operators that onnxruntime's CPU has integer kernels for, or that cost nothing on integers.

Its Resize takes longer on integers than on floats: 0.55 instead of 0.52 of a small detector's time in float.
"""

COMMON = frozenset("Conv Gemm Add Concat GlobalAveragePool AveragePool MaxPool Reshape Flatten".split())
"""Those that GPUs and OpenVINO have as well."""

MOVES = frozenset("MaxPool Reshape Flatten Transpose Slice Squeeze Unsqueeze Concat".split())
"""One grid before and behind: nothing is computed. Of all but Concat the first input is what is moved."""

_TAKES_ACTIVATION = ("Conv", "Gemm", "Add", "Mul", "Concat", "GlobalAveragePool", "AveragePool")


@dataclass(frozen=True, slots=True)
class Style:
    """What kind of integers. weight_bits: 7 where sums of two products of 8 bits overflow. signed: int8, else uint8.

    symmetric: 0 is the zero point of every tensor; then a rectifier is no matter of the range, and stays.
    fused: kernels on integers can give floats, after any activation function: what no other one takes stays float.
    silu: whether x * sigmoid(x) runs on integers too, and what it is multiplied with; in float, values are rounded
        once instead of two or three times.
    """

    weight_bits: int = 8
    signed: bool = False
    symmetric: bool = False
    fused: bool = False
    silu: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether they are for the kernels of onnxruntime's CPU."""
        return not (self.symmetric or self.fused)

    @property
    def operators(self) -> frozenset[str]:
        """What can run on such integers."""
        return INTEGER if self.on_cpu else COMMON


@dataclass(frozen=True, slots=True)
class Scheme:
    """chosen: first outputs of the nodes that run on integers. grids: of the tensors they take and make.

    absorbed: activations that the grid of a chosen node's output does the work of: {node's output: activation's};
        in a symmetric style they stay, between the node and its grid.
    """

    style: Style
    chosen: frozenset[str]
    grids: dict[str, Grid]
    absorbed: dict[str, str]

    def result(self, node: Any) -> str:
        """The tensor that a node gives, an absorbed activation included."""
        output: str = node.output[0]
        return self.absorbed.get(output, output)


def candidates(network: Network, style: Style) -> set[str]:
    """First outputs of the nodes that can run on integers, without those behind the last weights.

    What stands there (pooling, the last reshape) is small, and rounding it would go into the answer unmended.
    """
    found = {
        node.output[0]
        for node in network.nodes
        if node.op_type in style.operators
        and _is_integer(network, node)
        and not _keeps_float(network, node, style)
        and not network.apart.intersection((*node.input, *node.output))
    }
    if not style.silu:
        found -= gated(network)
    for tensor in network.outputs:
        while (node := network.maker(tensor)) is not None and not network.weighted(node):
            found.discard(node.output[0])
            if len(network.computed(node)) != 1:
                break
            (tensor,) = network.computed(node)
    return found


def behind(network: Network, front: int, style: Style) -> set[str]:
    """The candidates from the layer with weights number ``front`` on."""
    layers = [index for index, node in enumerate(network.nodes) if network.weighted(node)]
    start = layers[min(front, len(layers) - 1)] if front else 0
    return candidates(network, style) & {node.output[0] for node in network.nodes[start:]}


def gated(network: Network) -> set[str]:
    """First outputs of the nodes that compute x * sigmoid(x), and of those that multiply what they give."""
    gates = {node.output[0]: node for node in network.nodes if node.op_type == "Sigmoid"}
    found, products = set[str](), set[str]()
    for node in network.nodes:
        for name in node.input if node.op_type == "Mul" else ():
            if name in products:
                found.add(node.output[0])
            elif name in gates and gates[name].input[0] in node.input and network.only_reader(name) is not None:
                found |= {name, node.output[0]}
                products.add(node.output[0])
    return found


def _is_integer(network: Network, node: Any) -> bool:
    if node.op_type in ("Conv", "Gemm"):
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0 and not attribute(
            node, "transA", 0
        )
        return network.weighted(node) and plain
    if node.op_type in MOVES - {"Concat"}:
        return network.computed(node) == [node.input[0]]
    if node.op_type == "AveragePool":
        spread = any(step != 1 for step in attribute(node, "dilations", []))
        return not (attribute(node, "ceil_mode", 0) or spread) and bool(network.computed(node))
    return bool(network.computed(node))


def _keeps_float(network: Network, node: Any, style: Style) -> bool:
    """Whether a node would only take a tensor from the float kernel that it goes to anyway.

    Squeeze-and-excitation pools what it then multiplies: rounded for the pooling's sake, the product took longer.
    """
    squeezes = node.op_type == "GlobalAveragePool" and len(network.readers(node.input[0])) > 1
    return style.fused and squeezes


def tensors_of(network: Network, chosen: Collection[str], style: Style) -> tuple[set[str], dict[str, str]]:
    """The tensors that need a grid when these nodes run on integers, and the activations that are absorbed."""

    def stays_integer(tensor: str) -> bool:
        return not style.fused or any(reader.output[0] in chosen for reader in network.readers(tensor))

    absorbed = {}
    for node in network.nodes:
        before = network.maker(node.input[0]) if network.rectifies(node) and node.input else None
        if (
            before is not None
            and before.output[0] in chosen
            and before.op_type in _TAKES_ACTIVATION
            and network.only_reader(node.input[0]) is not None
            and stays_integer(node.output[0])
        ):
            absorbed[before.output[0]] = node.output[0]
    needed = set()
    for node in network.nodes:
        if node.output[0] in chosen:
            needed.update(network.computed(node))
            result = absorbed.get(node.output[0], node.output[0])
            if stays_integer(result) and (result not in network.outputs or node.op_type != "Gemm"):  # it gives float32
                needed.add(result)
    return needed, absorbed


def make_scheme(
    network: Network, seen: dict[str, Observed], chosen: Collection[str], ranges: Ranges, style: Style
) -> Scheme:
    """The grids for these nodes. ``seen`` holds histograms where ``ranges`` asks for them."""
    needed, absorbed = tensors_of(network, chosen, style)
    leader = one_grid(network, seen, chosen, style)
    together: dict[str, list[str]] = defaultdict(list)
    for name in sorted(needed):
        together[leader[name]].append(name)
    grids: dict[str, Grid] = {}
    for names in together.values():
        grid = None if style.symmetric else _fixed(network, seen, names, chosen, ranges)
        grids |= dict.fromkeys(names, grid or _spanning(seen, names, ranges, style))
    for node in network.nodes:  # values between 0 and 1, wherever they were seen
        if (
            node.output[0] in chosen
            and node.op_type == "Sigmoid"
            and together[leader[node.output[0]]] == [node.output[0]]
        ):
            grids[node.output[0]] = Grid(1 / 256, 0)
        if node.output[0] in chosen and node.op_type == "HardSigmoid":
            given, alpha = grids[node.input[0]], attribute(node, "alpha", 0.2)
            if given == hard_sigmoid_input(alpha, attribute(node, "beta", 0.5)):
                grids[node.output[0]] = Grid(alpha * given.scale, 0)
    return Scheme(style, frozenset(chosen), grids, absorbed)


def one_grid(network: Network, seen: dict[str, Observed], chosen: Collection[str], style: Style) -> dict[str, str]:
    """Which of the tensors that need a grid share it: {each: one of them}.

    Those before and behind a node that only moves values. Of a Concat, whose kernel can change from one grid to
    another at some cost, such as do not keep each other's activations from being their grid's ends: beside what can be
    negative a ReLU's grid would begin below 0, and let everything through.
    """
    needed, absorbed = tensors_of(network, chosen, style)
    leader = {name: name for name in needed}
    held = dict.fromkeys(needed, (-np.inf, np.inf))  # what their activations let through
    ranges = {name: seen[name].range for name in needed}
    for node in network.nodes if not style.symmetric else ():
        if node.output[0] in absorbed.values():
            held[node.output[0]] = network.rectifies(node) or held[node.output[0]]

    def first(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    def join(one: str, other: str, *, always: bool) -> None:
        pair = first(one), first(other)
        low, high = min(ranges[name][0] for name in pair), max(ranges[name][1] for name in pair)
        least, most = max(held[name][0] for name in pair), min(held[name][1] for name in pair)
        if always or (least <= low and high <= most):
            leader[pair[0]] = pair[1]
            ranges[pair[1]], held[pair[1]] = (low, high), (least, most)

    moving = [node for node in network.nodes if node.output[0] in chosen and node.op_type in MOVES]
    for node in sorted(moving, key=lambda node: bool(node.op_type == "Concat")):
        result = absorbed.get(node.output[0], node.output[0])
        for name in network.computed(node) if result in needed else []:
            join(name, result, always=node.op_type != "Concat")
    return {name: first(name) for name in needed}


def _fixed(
    network: Network, seen: dict[str, Observed], names: list[str], chosen: Collection[str], ranges: Ranges
) -> Grid | None:
    """The grid of a tensor whose only reader says where it ends."""
    reader = network.only_reader(names[0])
    if len(names) != 1 or reader is None or reader.output[0] not in chosen:
        return None
    if reader.op_type == "HardSigmoid":
        return hard_sigmoid_input(attribute(reader, "alpha", 0.2), attribute(reader, "beta", 0.5))
    if reader.op_type == "HardSwish":
        return hard_swish_input(chosen_top(seen[names[0]], ranges))
    return None


def _spanning(seen: dict[str, Observed], names: list[str], ranges: Ranges, style: Style) -> Grid:
    ends = [chosen_range(seen[name], ranges) for name in names]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return around_zero(max(-low, high)) if style.symmetric else spanning(low, high)
