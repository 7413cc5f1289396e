"""The nodes in front of a network that takes pictures as they are: pixels in, what the network was trained on out.

    pixels, uint8 -> [Transpose] -> Cast to float32 -> [Sub mean / scale] -> [Mul scale / std] -> the network's input

They are ordinary nodes and not folded into the first layer's weights: where that layer pads, it pads with the zero of
what they give, as in training. ``exporters.pixels`` puts them there; here they are known again by their names and taken
off, for whatever works on the network's own input: gradients, occlusion, quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidArtifact, InvalidInput
from runtime.metadata import Layout, Preprocess

PREFIX = "pixels::"
"""What the names of the nodes, of the tensors between them and of their constants begin with."""

TRANSPOSE, CAST = f"{PREFIX}transpose", f"{PREFIX}cast"
TURNS: dict[Layout, tuple[int, ...]] = {"NHWC": (0, 3, 1, 2), "NCHW": (0, 2, 3, 1)}
"""From pixels of a layout to the other one: Transpose's perm."""

_ARITHMETIC = {f"{PREFIX}mean": "Sub", f"{PREFIX}std": "Mul"}

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the pixels: "Sub" or "Mul", and its constant in the shape that it has in the graph."""

    name: str
    operator: str
    constant: Floats

    def __call__(self, values: Floats) -> Floats:
        return values - self.constant if self.operator == "Sub" else values * self.constant


@dataclass(frozen=True, slots=True)
class PixelInput:
    """pixels: name of the uint8 input. input: of the float32 tensor that the network reads.

    turn: of TURNS; None where the network has the pixels' own layout.
    """

    pixels: str
    input: str
    turn: tuple[int, ...] | None
    steps: tuple[Step, ...]

    def floats(self, batch: npt.NDArray[Any]) -> Floats:
        """What the nodes make of a batch of pixels, bit for bit."""
        values = (batch.transpose(self.turn) if self.turn else batch).astype(np.float32)
        for step in self.steps:
            values = step(values)
        return np.ascontiguousarray(values)

    def rule(self, stated: Preprocess, where: object) -> Preprocess:
        """The rule of the network's own input. Raises InvalidArtifact where the nodes do otherwise than ``stated``."""
        rule = replace(stated, input="float32", layout=other(stated.layout) if self.turn else stated.layout)
        wanted = steps(rule)
        same = len(wanted) == len(self.steps) and all(map(_equal, wanted, self.steps))
        if stated.input != "uint8" or self.turn not in (None, TURNS[stated.layout]) or not same:
            raise InvalidArtifact(f"{where}: normalises pixels otherwise than it says: export it again")
        return rule


def steps(rule: Preprocess) -> tuple[Step, ...]:
    """The arithmetic of a float32 rule, for tensors of its layout; what would change nothing is left out.

    Within 2^-24 (|mean / std| + 4 |y|) of y = (pixel * scale - mean) / std rounded once, as ``runtime.image`` has it.
    """
    mean, std = np.array(rule.mean), np.array(rule.std)
    shape = (-1, 1, 1) if rule.layout == "NCHW" else (-1,)
    constants = zip(_ARITHMETIC.items(), (mean / rule.scale, rule.scale / std), (0, 1), strict=True)
    return tuple(
        Step(name, operator, values.astype(np.float32).reshape(shape))
        for (name, operator), values, nothing in constants
        if (values != nothing).any()
    )


def _equal(one: Step, two: Step) -> bool:
    return one.name == two.name and np.array_equal(one.constant, two.constant)


def other(layout: Layout) -> Layout:
    """The layout that this one is transposed to."""
    return "NCHW" if layout == "NHWC" else "NHWC"


def find(proto: Any) -> PixelInput | None:
    """The nodes at the input of an onnx.ModelProto; None where there are none, or not as edgezoo puts them there."""
    from onnx import numpy_helper

    nodes = [node for node in proto.graph.node if node.name.startswith(PREFIX)]
    names = [node.name for node in nodes]
    constants = {item.name: item for item in proto.graph.initializer if item.name.startswith(PREFIX)}
    kinds = {TRANSPOSE: "Transpose", CAST: "Cast"} | _ARITHMETIC
    if CAST not in names or names != [name for name in kinds if name in names]:
        return None
    chained = all(before.output[0] == node.input[0] for before, node in pairwise(nodes))
    given = {value.name for value in proto.graph.input}
    if not chained or nodes[0].input[0] not in given or any(node.op_type != kinds[node.name] for node in nodes):
        return None
    if any(node.name in _ARITHMETIC and node.input[1] not in constants for node in nodes):
        return None
    taken = tuple(
        Step(node.name, node.op_type, numpy_helper.to_array(constants[node.input[1]]))
        for node in nodes
        if node.name in _ARITHMETIC
    )
    turn = next((tuple(node.attribute[0].ints) for node in nodes if node.name == TRANSPOSE), None)
    return PixelInput(nodes[0].input[0], nodes[-1].output[0], turn, taken)


def without_pixels(proto: Any) -> Any:
    """The network behind its pixels, a new onnx.ModelProto with the float32 input it had; ``proto`` if it has none."""
    import onnx

    found = find(proto)
    if found is None:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    kept = [value for value in graph.value_info if value.name == found.input]
    value = next(value for value in graph.input if value.name == found.pixels)
    own = onnx.ValueInfoProto()
    own.CopyFrom(kept[0] if kept else value)
    if not kept:  # the shapes between the nodes are no part of what a graph has to keep
        own.name, own.type.tensor_type.elem_type = found.input, onnx.TensorProto.FLOAT
        if found.turn:
            permute(own, found.turn)
    value.CopyFrom(own)
    for items in (graph.node, graph.initializer, graph.value_info):
        _drop(items, lambda name: name.startswith(PREFIX))
    _drop(graph.value_info, lambda name: name == found.input)
    return made


def float_network(proto: Any, rule: Preprocess, where: object) -> tuple[Any, Preprocess]:
    """The network with a float32 input, and the rule of that input; both as they are where it has one.

    Raises InvalidInput for a uint8 input that edgezoo did not make, InvalidArtifact where it does not do what the rule
    says.
    """
    if rule.input == "float32":
        return proto, rule
    return without_pixels(proto), known(find(proto), where).rule(rule, where)


def known(found: PixelInput | None, where: object) -> PixelInput:
    """What ``find`` found. Raises InvalidInput where that is nothing."""
    if found is None:
        raise InvalidInput(f"{where}: its uint8 input is not of edgezoo's making: give the float32 file, or import it")
    return found


def permute(value: Any, order: Sequence[int]) -> None:
    """The dimensions of an onnx.ValueInfoProto in another order, in place."""
    shape = value.type.tensor_type.shape
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in shape.dim]
    del shape.dim[:]
    shape.dim.extend(dims[axis] for axis in order)


def _drop(items: Any, gone: Callable[[str], bool]) -> None:
    for index in reversed(range(len(items))):
        if gone(items[index].name):
            del items[index]
