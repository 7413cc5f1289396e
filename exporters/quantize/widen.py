"""Channels of zeros that make integer convolutions faster: the same integers, in widths that kernels are made for.

onnxruntime has vectorised kernels for depthwise convolutions of 16 channels at a time, and none for the rest; for
dense ones of 4 input channels at a time, and copies every pixel of a picture's three. Widened with channels that are
read with weights of 0, a 5 x 5 depthwise convolution of 120 channels takes 0.4 of the time, one of 88 channels
0.45, and a 3 x 3 one of three colours 0.4 to 0.55 (2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-22).

Whatever goes through elementwise operators, pooling and depthwise convolutions is as wide as what made it. A set of
tensors is widened together, in the weights of the dense convolutions that make it and that read it; where something
else makes or reads one of them, none is. What the network's input goes to is padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporters.graph import constant, initializer, input_at, operator, producer, remove_dead
from exporters.quantize.network import Array

if TYPE_CHECKING:
    import onnx_ir as ir

Shapes = dict[str, tuple[int | None, ...]]
"""Of tensors, by name; None for a size that is not fixed."""

_DEPTHWISE, _DENSE = 16, 4  # channels that such a kernel takes at a time
_FEWEST_OUTPUTS = 16  # below that the kernel for 4 input channels is not there
_SAME_WIDTH = frozenset(
    "Relu Clip LeakyRelu Elu Sigmoid Tanh HardSigmoid HardSwish Gelu QuickGelu MaxPool AveragePool GlobalAveragePool "
    "GlobalMaxPool Identity".split()
)


def widen(graph: ir.Graph, shapes: Shapes) -> None:
    """Widen what is worth it, in place. Every result but those in between stays as it was, bit for bit."""
    import onnx_ir as ir

    sets = _Sets(graph, shapes)
    for extra, members in sets.wanted():
        for node, index, axis in members.values:
            _pad(graph, node, index, axis, extra)
        for node, index in members.scales:
            _pad(graph, node, index, 0, extra, mode="edge")
        for node in members.depthwise:
            node.attributes["group"] = ir.AttrInt64("group", members.width + extra)
    for node in sets.to_pad():
        up, weights = producer(node.inputs[0], "DequantizeLinear"), _stored(node.inputs[1])
        if up is None or weights is None:
            continue
        extra = -sets.width(up.outputs[0]) % _DENSE
        behind = np.zeros(weights.ndim, np.int64)
        behind[1] = extra
        amounts = initializer(graph, f"{node.name}::pads", np.concatenate([0 * behind, behind]))
        padded = ir.node("Pad", [up.inputs[0], amounts, up.inputs[2]], name=f"{node.name}::pad")
        wide = ir.node("DequantizeLinear", [padded.outputs[0], *up.inputs[1:]], name=f"{node.name}::wide")
        graph.insert_before(node, [padded, wide])
        node.replace_input_with(0, wide.outputs[0])
        _pad(graph, node, 1, 1, extra)
    remove_dead(graph, "DequantizeLinear")


@dataclass(slots=True)
class _Members:
    """What has to be padded with one set of tensors: inputs of nodes, by their index.

    values: (node, input, axis): weights and biases of those that make the tensors or read them, factors and terms.
    scales: likewise, where channels have their own. depthwise: convolutions from one of the tensors to another.
    dense: those that want to read them in a width of ``_DENSE``. width: channels. multiple: of which it should be one.
    """

    values: list[tuple[ir.Node, int, int]] = field(default_factory=list)
    scales: list[tuple[ir.Node, int]] = field(default_factory=list)
    depthwise: list[ir.Node] = field(default_factory=list)
    dense: list[ir.Node] = field(default_factory=list)
    width: int = 0
    multiple: int = 1
    fixed: bool = False


class _Sets:
    """The tensors of a graph, in sets that have to be equally wide."""

    def __init__(self, graph: ir.Graph, shapes: Shapes) -> None:
        self._shapes = shapes
        self._leader: dict[str, str] = {}
        self._members: dict[str, _Members] = {}
        for value in (*graph.inputs, *graph.outputs):
            self._at(value).fixed = True
        for node in graph:
            self._take(node)

    def wanted(self) -> Iterator[tuple[int, _Members]]:
        """By how many channels which set is to be widened."""
        for name, members in self._members.items():
            multiple = max(members.multiple, _DENSE if any(map(self._has_kernel, members.dense)) else 1)
            extra = -members.width % multiple
            if self._first(name) == name and extra and not members.fixed:
                yield extra, members

    def to_pad(self) -> list[ir.Node]:
        """The convolutions of pictures, whose input cannot be made wider."""
        sets = [members for name, members in self._members.items() if self._first(name) == name and members.fixed]
        dense = [node for members in sets if 0 < members.width < _DENSE for node in members.dense]
        return [node for node in dense if self._has_kernel(node)]

    def _has_kernel(self, node: ir.Node) -> bool:
        """Whether a dense convolution has enough outputs, those that are added included."""
        made = self._at(node.outputs[0])
        return made.width + (0 if made.fixed else -made.width % made.multiple) >= _FEWEST_OUTPUTS

    def width(self, value: ir.Value) -> int:
        """The channels of a tensor; 0 where they are not known."""
        shape = self._shapes.get(value.name or "", ())
        return (shape[1] or 0) if len(shape) > 1 else 0

    def _first(self, name: str) -> str:
        while self._leader.setdefault(name, name) != name:
            name = self._leader[name]
        return name

    def _at(self, value: ir.Value) -> _Members:
        return self._members.setdefault(self._first(value.name or ""), _Members(width=self.width(value)))

    def _join(self, one: ir.Value, other: ir.Value) -> None:
        into, gone = self._at(one), self._at(other)
        if into is gone:
            return
        into.fixed |= gone.fixed or into.width != gone.width or not into.width
        into.multiple = max(into.multiple, gone.multiple)
        into.values += gone.values
        into.scales += gone.scales
        into.depthwise += gone.depthwise
        into.dense += gone.dense
        self._leader[self._first(other.name or "")] = self._first(one.name or "")

    def _take(self, node: ir.Node) -> None:
        output, kind = node.outputs[0], node.op_type
        terms = [value for value in node.inputs if value is not None and _stored(value) is None]
        if not terms:
            return
        if kind == "Conv" and len(terms) == 1 and terms[0] is node.inputs[0]:
            self._convolution(node)
        elif kind in ("QuantizeLinear", "DequantizeLinear"):
            self._join(terms[0], output)
            self._per_channel(node, output)
        elif kind in _SAME_WIDTH:
            self._join(terms[0], output)
        elif kind in ("Add", "Mul") and self.width(output):
            self._elementwise(node, terms)
        else:
            for value in (*terms, *node.outputs):
                self._at(value).fixed = True

    def _convolution(self, node: ir.Node) -> None:
        given, output = node.inputs[0], node.outputs[0]
        assert given is not None
        weights, groups = _stored(node.inputs[1]), int(node.attributes.get_int("group", 1))
        assert weights is not None
        outputs, inputs, *kernel = weights.shape
        filled = [index for index in (1, 2) if input_at(node, index) is not None]
        on_integers = _is_integer(node)
        if groups == 1:
            self._at(output).values += [(node, index, 0) for index in filled]
            self._at(given).values.append((node, 1, 1))
            if on_integers and np.prod(kernel) > 1 and inputs % _DENSE:
                self._at(given).dense.append(node)
        elif groups == outputs and inputs == 1 and self.width(given) == groups:
            self._join(given, output)
            self._at(output).depthwise.append(node)
            self._at(output).values += [(node, index, 0) for index in filled]
            if on_integers:
                self._at(output).multiple = _DEPTHWISE
        else:
            self._at(given).fixed = self._at(output).fixed = True

    def _elementwise(self, node: ir.Node, terms: list[ir.Value]) -> None:
        output = node.outputs[0]
        rank, width = len(self._shapes.get(output.name or "", ())), self.width(output)
        for index, value in enumerate(node.inputs):
            assert value is not None
            stored = _stored(value)
            if stored is None and self.width(value) == width:
                self._join(value, output)
            elif stored is None:  # one value for all channels
                self._at(value).fixed = True
            elif stored.ndim >= rank - 1 and stored.shape[1 - rank] != 1:
                self._at(output).values.append((node, index, stored.ndim + 1 - rank))

    def _per_channel(self, node: ir.Node, output: ir.Value) -> None:
        for index in (1, 2):
            scale = constant(input_at(node, index))
            if scale is not None and scale.ndim:
                self._at(output).scales.append((node, index))


def _stored(value: ir.Value | None) -> Array | None:
    """What a constant holds, or the integers of one that is dequantized."""
    node = value.producer() if value is not None else None
    return constant(node.inputs[0] if node is not None and operator(node) == "DequantizeLinear" else value)


def _is_integer(node: ir.Node) -> bool:
    """Whether a convolution stands between integers."""
    weights = node.inputs[1]
    return weights is not None and operator(weights.producer()) == "DequantizeLinear"


def _pad(
    graph: ir.Graph, node: ir.Node, index: int, axis: int, extra: int, mode: Literal["constant", "edge"] = "constant"
) -> None:
    """Make a constant input of a node longer, by zeros, and the scales that lie on that axis."""
    value = node.inputs[index]
    assert value is not None
    made, stored = value.producer(), constant(value)
    if made is None:
        assert stored is not None
        longer = np.pad(stored, [(0, extra if at == axis else 0) for at in range(stored.ndim)], mode=mode)
        node.replace_input_with(index, initializer(graph, value.name or "", longer))
        return
    _pad(graph, made, 0, axis, extra)
    scale = constant(made.inputs[1])
    if scale is not None and scale.ndim and int(made.attributes.get_int("axis", 1)) == axis:
        for place in (1, 2):
            _pad(graph, made, place, 0, extra, mode="edge")
