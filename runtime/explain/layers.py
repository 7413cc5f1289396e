"""The layers of a file that can be explained: maps of places, by the names of their tensors."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from runtime.errors import InvalidArtifact, InvalidInput, UnknownName
from runtime.gradients.builder import FLOATS
from runtime.gradients.graph import Graph, reads

_TURNS = ("Transpose", "Reshape", "Concat", "Softmax")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Constant")


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """name: of the tensor. shape: of one picture's (channels, rows, columns). default: what explanations start from."""

    name: str
    operator: str
    shape: tuple[int, ...]
    default: bool = False


def layers(graph: Graph, stored: str | None) -> list[LayerInfo]:
    """Every map of places that a node gives, in the order of the graph. stored: the default that the file names."""
    stored_too = set(graph.initializers)  # and what is made of weights alone, where a file unpacks them
    for node in graph.model.graph.node:
        if stored_too.issuperset(reads(node)):
            stored_too.update(node.output)
    found = [
        LayerInfo(name, node.op_type, shape)
        for node in graph.model.graph.node
        if node.op_type not in _CONVERSIONS and node.output[0] not in stored_too
        for name in node.output[:1]
        if name and graph.dtype(name) in FLOATS and len(shape := _shape(graph, name)) == 3
    ]
    chosen = stored if stored in {layer.name for layer in found} else _last(found)
    return [LayerInfo(one.name, one.operator, one.shape, one.name == chosen) for one in found]


def find(known: list[LayerInfo], name: str | None) -> LayerInfo:
    """The layer of that name, or the default one. Raises UnknownName, and InvalidInput where there is no default."""
    if name is None:
        for layer in known:
            if layer.default:
                return layer
        raise InvalidInput("the network has no layer that is a map of places: explain the input, with saliency say")
    for layer in known:
        if layer.name == name:
            return layer
    near = difflib.get_close_matches(name, [layer.name for layer in known], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `zoo layers FILE`"
    raise UnknownName(f"no layer {name!r} that is a map of places: {hint}")


def _last(found: list[LayerInfo]) -> str | None:
    """The last one that has more than one place; what is only turned may have its channels anywhere."""
    maps = [layer for layer in found if layer.shape[1] * layer.shape[2] > 1 and layer.operator not in _TURNS]
    return maps[-1].name if maps else None


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    """Of one picture's tensor; () where it is not known, which is no layer to offer."""
    try:
        shape = graph.shape(name)[1:]
    except InvalidArtifact:
        return ()
    known = tuple(extent for extent in shape if isinstance(extent, int))
    return known if len(known) == len(shape) else ()
