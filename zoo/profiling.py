"""A profile read against the file it is of: which layer a node is, what it computes, whether it runs on integers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runtime.errors import InvalidInput
from runtime.profile import NodeTime, Profile, describe

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto

    from runtime.metadata import Preprocess
    from zoo.layers import Layer, LayerTable

Arithmetic = Literal["integer", "float", "conversion", "other"]
"""integer: 8-bit values in and out, or an operator of them. conversion: between those and floats. other: neither."""

_SMALL = frozenset(("int8", "uint8", "int4", "uint4", "int16", "uint16"))
_FLOATS = frozenset(("float", "float16", "bfloat16", "double"))
_INTEGER = re.compile(r"QLinear|QGemm|QAttention|(Conv|MatMul)Integer|DynamicQuantize(MatMul|LSTM)|MatMulNBits")
_PRODUCT = re.compile(r"Conv|Gemm|MatMul|Attention|Einsum")
_CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
# What onnxruntime puts around the names of nodes that it makes of others.
_FRAME = re.compile(r"^(?:fused )?(.+?)(?:/\w*Fusion\w*/?)?(?:_nchwc|_fp16|_transformed)?(?:_token_\d+)*$")


@dataclass(frozen=True, slots=True)
class Node:
    """One node that ran. milliseconds: the median of one run; share: of all nodes', 0 to 1.

    layer: of the file, whose name it bears; None for what onnxruntime put in. macs: of one run, those of layers fused
    into it among them; None where nothing is known.
    between: of a node in float, whether integer nodes run before and behind it, on its way.
    """

    name: str
    operator: str
    provider: str
    milliseconds: float
    share: float
    arithmetic: Arithmetic
    layer: str | None
    macs: int | None
    gflops: float | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    between: bool | None


@dataclass(frozen=True, slots=True)
class Operator:
    """All nodes of one operator: how many, their time, its share, and the multiply-accumulates that are known."""

    operator: str
    nodes: int
    milliseconds: float
    share: float
    macs: int
    gflops: float | None


def model_of(proto: ModelProto, path: Path) -> Path | bytes:
    """What to open: the file, or where nodes are nameless or namesakes, the same model with names to tell them by."""
    names = [node.name for node in proto.graph.node]
    outside = any(tensor.data_location == tensor.EXTERNAL for tensor in proto.graph.initializer)
    if (all(names) and len(set(names)) == len(names)) or outside:
        return path
    taken: set[str] = set()
    for number, node in enumerate(proto.graph.node):
        # As in the layer table, and never the name of another node.
        name = node.name or next((name for name in node.output if name), "")
        node.name = name if name and name not in taken else f"{name or node.op_type}:{number}"
        taken.add(node.name)
    return bytes(proto.SerializeToString())


def feed_of(
    proto: ModelProto, table: LayerTable, *, where: str, picture: npt.NDArray[Any] | None
) -> dict[str, npt.NDArray[Any]]:
    """An array for each input, of the table's shapes: the picture as often as the batch is long, or noise.

    Raises InvalidInput for free axes, an input that cannot be made up, and a picture that does not fit.
    """
    import numpy as np
    from onnx import helper

    from zoo.shapes import free_inputs

    rng, feed = np.random.default_rng(0), dict[str, "npt.NDArray[Any]"]()
    for value in free_inputs(proto.graph):
        shape = table.inputs[value.name]
        if shape is None:
            raise InvalidInput(f"{where}: input {value.name} has free axes: give --input-size HxW")
        try:
            kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        except KeyError:
            kind = np.dtype(object)
        if kind.kind not in "fiubV":  # V: the small floats that numpy has no kind for
            raise InvalidInput(f"{where}: input {value.name} holds no numbers that can be made up: not to be profiled")
        if kind.kind == "u":
            feed[value.name] = rng.integers(0, np.iinfo(kind).max, shape, dtype=kind)
        elif kind.kind in "ib":  # an index or a switch, say: only zero is sure to be one
            feed[value.name] = np.zeros(shape, kind)
        else:
            feed[value.name] = rng.standard_normal(shape).astype(kind)
    if picture is not None:
        (name, noise), *others = feed.items()
        if others or noise.dtype != picture.dtype or noise.shape[1:] != picture.shape[1:]:
            said = " and ".join(f"{array.dtype} {list(array.shape)}" for array in feed.values())
            raise InvalidInput(
                f"{where}: takes {said}, not a picture of {picture.dtype} {list(picture.shape[1:])}: leave --image out"
            )
        feed[name] = np.repeat(picture, noise.shape[0], axis=0)
    return feed


def rule_of(proto: ModelProto, where: str) -> Preprocess:
    """The preprocessing that a file states. Raises InvalidInput where it states none."""
    from runtime.metadata import Metadata

    found = Metadata.from_props({entry.key: entry.value for entry in proto.metadata_props}, where=where)
    if found is None or found.preprocess is None:
        raise InvalidInput(f"{where}: does not say how it sees pictures: add --preprocess, or leave --image out")
    return found.preprocess


def nodes_of(profile: Profile, table: LayerTable, proto: ModelProto) -> list[Node]:
    """Every node that ran, joined by its name with the file's layers and their multiply-accumulates."""
    total = sum(time.milliseconds for time in profile.nodes) or 1.0
    layers = {layer.name: layer for layer in table.layers}
    # Some fusions name the new node after the value that the last of the fused ones makes.
    names = {value: node.name for node in proto.graph.node for value in node.output if value and node.name}
    names |= {node.name: node.name for node in proto.graph.node if node.name}
    owners = [owner_of(time.name, names) for time in profile.nodes]
    kinds = [_arithmetic(time) for time in profile.nodes]
    between = _between(proto, owners, kinds)
    counted = _counted(proto, profile.nodes, owners, layers)
    nodes = []
    for place, (time, owner, kind, inner) in enumerate(zip(profile.nodes, owners, kinds, between, strict=True)):
        macs = counted.get(place)
        nodes.append(
            Node(
                name=time.name,
                operator=time.operator,
                provider=time.provider,
                milliseconds=time.milliseconds,
                share=time.milliseconds / total,
                arithmetic=kind,
                layer=owner,
                macs=macs,
                gflops=rate(macs, time.milliseconds),
                inputs=tuple(map(describe, time.inputs)),
                outputs=tuple(map(describe, time.outputs)),
                between=inner if kind == "float" else None,
            )
        )
    return nodes


def operators_of(nodes: Sequence[Node]) -> list[Operator]:
    """The nodes by operator, the longest first."""
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        groups[node.operator].append(node)
    made = []
    for operator, members in groups.items():
        time, macs = sum(node.milliseconds for node in members), sum(node.macs or 0 for node in members)
        counted = sum(node.milliseconds for node in members if node.macs)
        share = sum(node.share for node in members)
        made.append(Operator(operator, len(members), time, share, macs, rate(macs, counted)))
    return sorted(made, key=lambda each: -each.milliseconds)


def rate(macs: int | None, milliseconds: float) -> float | None:
    """GFLOP/s, two for each multiply-accumulate; None where nothing was multiplied or no time was seen."""
    return 2 * macs / milliseconds / 1e6 if macs and milliseconds else None


def owner_of(name: str, known: Mapping[str, str]) -> str | None:
    """The node of the file that a node of onnxruntime's was made of, by its name; None where no name is left of it.

    known: names that it may bear, and the node that each belongs to.
    """
    found = _FRAME.match(name)
    return known.get(name) or (known.get(found[1]) if found else None)


def _counted(
    proto: ModelProto, times: Sequence[NodeTime], owners: Sequence[str | None], layers: Mapping[str, Layer]
) -> dict[int, int | None]:
    """The multiply-accumulates of each node that ran and has any: of its layer, and of those fused into it.

    A convolution fused with what follows may bear the name of that: the layers before it that did not run under a
    name of their own are in it.
    """
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    nodes = {node.name: node for node in proto.graph.node}
    claimed = {owner for owner in owners if owner}
    # A layer may have become several nodes: the longest is the one that multiplies.
    places: dict[str, int] = {}
    for place, owner in enumerate(owners):
        if owner and times[place].milliseconds >= times[places.get(owner, place)].milliseconds:
            places[owner] = place
    found: dict[int, int | None] = {}
    for owner, place in places.items():
        parts = [layers[owner].macs] if owner in layers else []
        waiting = list(nodes[owner].input) if owner in nodes and _PRODUCT.search(times[place].operator) else []
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is not None and maker.name not in claimed:
                claimed.add(maker.name)
                parts += [layers[maker.name].macs] if maker.name in layers else []
                waiting += maker.input
        found[place] = None if None in parts else sum(part or 0 for part in parts)
    return found


def _arithmetic(time: NodeTime) -> Arithmetic:
    if time.operator in _CONVERSIONS:
        return "conversion"
    if _INTEGER.match(time.operator):
        return "integer"
    made = {kind for kind, _ in time.outputs}
    if made & _FLOATS:
        return "float"
    return "integer" if made & _SMALL else "other"


def _between(proto: ModelProto, owners: Sequence[str | None], kinds: Sequence[Arithmetic]) -> list[bool]:
    """Whether a path from an integer node to another leads through each node; of one without a layer, in time."""
    integer = {owner for owner, kind in zip(owners, kinds, strict=True) if owner and kind == "integer"}
    fed, feeding = set[str](), set[str]()  # values behind an integer node, values before one
    for node in proto.graph.node:
        if node.name in integer or fed & {*node.input}:
            fed.update(name for name in node.output if name)
    for node in reversed(proto.graph.node):
        if node.name in integer or feeding & {*node.output}:
            feeding.update(name for name in node.input if name)
    on_path = {node.name for node in proto.graph.node if fed & {*node.input} and feeding & {*node.output}}
    places = [place for place, kind in enumerate(kinds) if kind == "integer"]
    return [
        owner in on_path if owner else bool(places) and places[0] < place < places[-1]
        for place, owner in enumerate(owners)
    ]
