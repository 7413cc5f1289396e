"""How each operator goes from one picture to the windows of a larger one.

A classifier slides over a picture where everything in it looks the same way at every place. ``RULES`` has a row for
each operator that does; a row sees one node, makes it fit for a map of any size, and says where its output stands. An
operator without a row, or used in another way, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.graph import constant, initializer, input_at, operator, reduction_axes
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands between the picture and the answer.

    extent: (rows, columns) it has when the picture is one window; (1, 1) once the window has become one place.
    stride: pixels of the picture from one place to the next, (down, across).
    whole: each place has been made of a whole window: what follows may not look beside it.
    flat: the network had it as (N, values) here.
    """

    extent: tuple[int, int]
    stride: tuple[int, int]
    whole: bool = False
    flat: bool = False


@dataclass(slots=True)
class Walk:
    """The way through one graph, from the input on.

    places: of the values reached. padding: the layers that pad. heads: the values a whole window is taken of, with
    their extent.
    """

    graph: ir.Graph
    places: dict[ir.Value, Place]
    padding: list[str] = field(default_factory=list)
    heads: dict[ir.Value, tuple[int, int]] = field(default_factory=dict)


def refuse(node: ir.Node, why: str) -> InvalidInput:
    """The error that says which layer cannot slide over a picture, and why."""
    return InvalidInput(
        f"fully convolutional: {node.op_type} (layer {node.name}): {why}: export the scores or the features instead"
    )


# ---- rules: (node, walk) -> where its outputs stand


def _elementwise(node: ir.Node, walk: Walk) -> Place:
    """Operands that stand at the same place, and constants that are the same at every place."""
    place = _same(node, walk)
    for index, value in enumerate(node.inputs):
        if value is None or value in walk.places:
            continue
        array = constant(value)
        if array is None:
            raise refuse(node, "an operand is neither a constant nor a map")
        if array.size == 1 and array.ndim <= 4:
            continue
        shape = (1,) * ((2 if place.flat else 4) - array.ndim) + array.shape
        if place.flat and place.extent == (1, 1) and len(shape) == 2 and shape[0] == 1:
            shaped = initializer(walk.graph, f"{value.name}.channels", array.reshape(1, -1, 1, 1))
            node.replace_input_with(index, shaped)
        elif place.flat or len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1):
            raise refuse(node, "a constant of it has other values at other places of the map")
    return place


def _channels(node: ir.Node, walk: Walk) -> Place:
    """What rearranges or joins channels: the axis is 1 however it was counted."""
    import onnx_ir as ir

    place = _same(node, walk)
    if place.flat and place.extent != (1, 1):
        raise refuse(node, "it takes a flattened map apart")
    axis = node.attributes.get_int("axis", 0)
    if axis not in (1, 1 - (2 if place.flat else 4)):
        raise refuse(node, f"it works along axis {axis}, not along the channels")
    indices = constant(input_at(node, 1)) if operator(node) == "Gather" else None
    if any(value not in walk.places for value in node.inputs if value is not None) and operator(node) == "Concat":
        raise refuse(node, "it joins a map with a constant")
    if operator(node) == "Gather" and (indices is None or indices.ndim != 1):
        raise refuse(node, "its indices are no constant list")
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    return place


def _slice(node: ir.Node, walk: Walk) -> Place:
    place, axes = _same(node, walk), constant(input_at(node, 3))
    if axes is None or axes.tolist() not in ([1], [-1] if place.flat else [-3]):
        raise refuse(node, "it cuts a piece of fixed place out of the map")
    if place.flat and place.extent != (1, 1):
        raise refuse(node, "it takes a flattened map apart")
    node.replace_input_with(3, initializer(walk.graph, f"{node.name}.axes", np.array([1])))
    return place


def _per_channel(node: ir.Node, walk: Walk) -> Place:
    place = _same(node, walk)
    if place.flat and place.extent != (1, 1):
        raise refuse(node, "it treats each place of a flattened map in another way")
    return place


def _slide(node: ir.Node, walk: Walk) -> Place:
    """A convolution or a pooling with its kernel."""
    import onnx_ir as ir

    place = _same(node, walk)
    weights = constant(node.inputs[1]) if operator(node) == "Conv" else None
    kernel = list(weights.shape[2:]) if weights is not None else node.attributes.get_ints("kernel_shape", [])
    after = sizes(node.outputs[0])
    if place.flat or len(kernel) != 2 or len(after) != 3 or len(node.outputs) != 1:
        raise refuse(node, "it does not slide over a map with constant weights")
    strides, dilations = (list(node.attributes.get_ints(name, [1, 1])) for name in ("strides", "dilations"))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    # SAME pads by the size of the map: as much as at the native size, whatever the picture.
    pads = _explicit_pads(node, place.extent, strides, reach)
    node.attributes.pop("auto_pad", None)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)
    over = [
        (after[1 + i] - 1) * strides[i] + reach[i] - (place.extent[i] + pads[i] + pads[2 + i]) for i in range(2)
    ]  # what ceil_mode adds
    _note_padding(node, walk, place, [*pads, *over])
    if place.whole and (reach != [1, 1] or strides != [1, 1]):
        raise refuse(node, "it looks beside a window that has become one place")
    return replace(
        place, extent=(after[1], after[2]), stride=(place.stride[0] * strides[0], place.stride[1] * strides[1])
    )


def _pad(node: ir.Node, walk: Walk) -> Place:
    place, pads, after = _same(node, walk), constant(input_at(node, 1)), sizes(node.outputs[0])
    axes = constant(input_at(node, 3))
    if place.flat or pads is None or len(pads) != 8 or (axes is not None and axes.tolist() != [0, 1, 2, 3]):
        raise refuse(node, "it does not pad a map by a constant width")
    _note_padding(node, walk, place, [int(pads[i]) for i in (2, 3, 6, 7)])
    return replace(place, extent=(after[1], after[2]))


def _pool_all(node: ir.Node, walk: Walk) -> Place:
    """Pooling over the whole map becomes pooling over what is a whole map at the native size."""
    import onnx_ir as ir

    place, keep = _same(node, walk), True
    if operator(node) in ("ReduceMean", "ReduceMax"):
        axes = reduction_axes(node)
        if place.flat or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise refuse(node, "it does not reduce over height and width")
        keep = bool(node.attributes.get_int("keepdims", 1))
    value = node.inputs[0]
    assert value is not None
    if place.extent == (1, 1):
        become(node, "Identity", [value])
    else:
        kind = "MaxPool" if "Max" in operator(node) else "AveragePool"
        become(node, kind, [value], [ir.AttrInt64s("kernel_shape", list(place.extent))])
    _head(walk, value, place)
    return Place((1, 1), place.stride, whole=True, flat=not keep)


def _reshape(node: ir.Node, walk: Walk) -> Place:
    """The way from maps to vectors, or back; nothing is left of it."""
    place, value = _same(node, walk), node.inputs[0]
    assert value is not None
    before, after = sizes(value), sizes(node.outputs[0])
    flattens = len(before) == 3 and after == [prod(before)]
    unflattens = place.flat and place.extent == (1, 1) and len(after) == 3 and after[1:] == [1, 1]
    if not before or not (flattens or unflattens or before == after):
        raise refuse(node, "it gives the map another shape that is fixed")
    become(node, "Identity", [value])
    if before == after:
        return place
    if not flattens:
        return replace(place, flat=False)
    _head(walk, value, place)
    return replace(place, whole=True, flat=True)  # of an extent above (1, 1) only a dense layer can make something


def _dense(node: ir.Node, walk: Walk) -> Place:
    """A matrix over a flattened map is a convolution with a kernel as large as the map."""
    import onnx_ir as ir

    place, attributes = _same(node, walk), node.attributes
    weights, given = constant(node.inputs[1]), input_at(node, 2)
    bias = constant(given) if operator(node) == "Gemm" else None
    turned, alpha = attributes.get_int("transB", 0), attributes.get_float("alpha", 1.0)
    if not place.flat or node.inputs[0] not in walk.places or weights is None or weights.ndim != 2:
        raise refuse(node, "it is not a flattened map times a constant matrix")
    matrix = weights if turned else weights.T
    if attributes.get_int("transA", 0) or (given is not None and (bias is None or bias.size not in (1, len(matrix)))):
        raise refuse(node, "its bias is not one value per output")
    kernel = np.ascontiguousarray(matrix.reshape(len(matrix), -1, *place.extent))
    inputs = [node.inputs[0], initializer(walk.graph, f"{node.name}.kernel", kernel if alpha == 1 else alpha * kernel)]
    if bias is not None:
        vector = np.broadcast_to(attributes.get_float("beta", 1.0) * bias.reshape(-1), len(matrix))
        inputs.append(initializer(walk.graph, f"{node.name}.offset", vector.astype(weights.dtype)))
    become(node, "Conv", inputs, [ir.AttrInt64s("kernel_shape", list(place.extent))])
    return Place((1, 1), place.stride, whole=True, flat=True)


RULES: dict[str, Callable[[Any, Walk], Place]] = {
    **dict.fromkeys(
        "Abs Add Celu Clip Div Dropout Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu Max Min Mish Mul Neg "
        "PRelu Pow Relu Selu Sigmoid Softplus Softsign Sqrt Sub Sum Tanh ThresholdedRelu".split(),
        _elementwise,
    ),
    **dict.fromkeys(("Concat", "Gather", "Split"), _channels),
    "Slice": _slice,
    **dict.fromkeys(("BatchNormalization", "LRN"), _per_channel),
    **dict.fromkeys(("AveragePool", "Conv", "MaxPool"), _slide),
    "Pad": _pad,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean"), _pool_all),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Gemm", "MatMul"), _dense),
}


# ---- helpers


def _same(node: ir.Node, walk: Walk) -> Place:
    """Where all operands that come from the picture stand; an error where they stand at different places."""
    places = {walk.places[value] for value in node.inputs if value in walk.places}
    if len({place.whole for place in places}) > 1:
        raise refuse(node, "a map meets what was pooled from the whole picture (squeeze-excite)")
    if len(places) != 1:
        raise refuse(node, "it joins maps of different sizes or strides")
    return places.pop()


def _head(walk: Walk, value: ir.Value, place: Place) -> None:
    """Note that a whole window is taken of the value, if it is the first that is."""
    if not place.whole:
        walk.heads[value] = place.extent


def _note_padding(node: ir.Node, walk: Walk, place: Place, amounts: list[int]) -> None:
    if max(amounts) > 0:
        if place.whole:
            raise refuse(node, "it looks beside a window that has become one place")
        walk.padding.append(str(node.name))


def _explicit_pads(node: ir.Node, extent: tuple[int, int], strides: list[int], reach: list[int]) -> list[int]:
    """(top, left, bottom, right), as much as the node pads at the native size."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return list(node.attributes.get_ints("pads", [0, 0, 0, 0]))
    if auto == "VALID":
        return [0, 0, 0, 0]
    total = [max((-(-extent[i] // strides[i]) - 1) * strides[i] + reach[i] - extent[i], 0) for i in range(2)]
    less, more = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
    return [*less, *more] if auto == "SAME_UPPER" else [*more, *less]


def sizes(value: ir.Value | None) -> list[int]:
    """All axes but the batch; empty when one is unknown."""
    axes = list(value.shape)[1:] if value is not None and value.shape is not None else []
    known = [size for size in axes if isinstance(size, int)]
    return known if len(known) == len(axes) else []


def become(node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Any = ()) -> None:
    """Another operator in the same place, under the same name, with the same output."""
    node.op_type = op_type
    node.attributes.clear()
    for attribute in attributes:
        node.attributes.add(attribute)
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
