"""Normalisation folded into the graph: a network that takes uint8 pictures, so that nobody builds a float one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runtime.errors import InvalidInput
from runtime.metadata import Layout, Preprocess
from runtime.pixel_input import CAST, TRANSPOSE, TURNS, permute, steps

INPUT = "pixels"
"""What the new input is called, with underscores behind it where that is taken."""


def pixel_rule(rule: Preprocess | None, layout: Layout, *, mapped: bool = False) -> Preprocess:
    """What a file says that takes pixels in ``layout`` and does the rest of ``rule`` itself.

    mapped: whether it gives a map of scores. Raises InvalidInput for that, and for an input that is no picture.
    """
    if rule is None:
        raise InvalidInput("--uint8-input: the input is no picture: leave it out")
    if mapped:
        raise InvalidInput("--uint8-input: a map of scores takes float32 pictures of any size: leave it out")
    return replace(rule, input="uint8", layout=layout)


def with_pixels(proto: Any, rule: Preprocess, layout: Layout) -> Any:
    """The network with a uint8 input of ``layout``, and the arithmetic of ``rule`` in front of its own.

    proto: an onnx.ModelProto that takes float32 as ``rule`` says; left as it is. The tensor behind the new nodes keeps
    the input's name, so that nothing else changes; colours stay in the rule's order. Every value is what
    ``runtime.image`` gives up to rounding, as ``runtime.pixel_input.steps`` says, and what pads the input still pads
    with its zero. ``runtime.pixel_input.without_pixels`` gives ``proto`` back.
    """
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    weights = {item.name for item in graph.initializer}
    (value,) = (item for item in graph.input if item.name not in weights)
    own = graph.value_info.add()
    own.CopyFrom(value)
    nodes, at = [], _unused(graph)
    value.name, value.type.tensor_type.elem_type = at, onnx.TensorProto.UINT8
    if layout != rule.layout:
        permute(value, TURNS[rule.layout])  # from the network's order to that of the pixels
        nodes.append(helper.make_node("Transpose", [at], [TRANSPOSE], name=TRANSPOSE, perm=TURNS[layout]))
        at = TRANSPOSE  # of bytes: a quarter of the floats
    nodes.append(helper.make_node("Cast", [at], [CAST], name=CAST, to=onnx.TensorProto.FLOAT))
    for step in steps(rule):
        constant = f"{step.name}::value"
        graph.initializer.append(numpy_helper.from_array(step.constant, constant))
        nodes.append(helper.make_node(step.operator, [nodes[-1].output[0], constant], [step.name], name=step.name))
    nodes[-1].output[0] = own.name
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    return made


def as_stated(proto: Any, rule: Preprocess | None, stated: Preprocess | None) -> Any:
    """A network that takes float32 as ``rule`` says, with the input that its file is to state."""
    if rule is None or stated is None or stated.input == "float32":
        return proto
    return with_pixels(proto, rule, stated.layout)


def _unused(graph: Any) -> str:
    taken = {item.name for items in (graph.input, graph.output, graph.initializer) for item in items}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    name = INPUT
    while name in taken:
        name += "_"
    return name
