"""Pooling in the form that engines run fastest, and that onnxruntime runs rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import (
    constant,
    initializer,
    input_at,
    like,
    operator,
    producer,
    reduction_axes,
    remove_dead,
    supersede,
)
from exporters.transposes import transpose

if TYPE_CHECKING:
    import onnx_ir as ir


def global_pooling(model: ir.Model) -> None:
    """A mean over both spatial axes is a GlobalAveragePool, which also has an integer kernel.

    That of a channels-last map is one too, of the map transposed: the last map of a network is a picture of channels
    in every file.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        value = node.inputs[0] if operator(node) == "ReduceMean" else None
        if value is None or value.shape is None or len(value.shape) != 4 or value.dtype != ir.DataType.FLOAT:
            continue
        axes = sorted(axis % 4 for axis in reduction_axes(node) or [])
        keep = node.attributes.get_int("keepdims", 1) == 1
        if axes == [1, 2] and not keep:
            turn = transpose(value, (0, 3, 1, 2))
            turn.name = node.name
            model.graph.insert_before(node, turn)
            value = turn.outputs[0]
        elif axes != [2, 3]:
            continue
        assert value.shape is not None
        pooled = like(value)
        pooled.shape = ir.Shape([value.shape[0], value.shape[1], 1, 1])
        new = [ir.Node("", "GlobalAveragePool", [value], name=node.name, outputs=[pooled])]
        if not keep:
            axis = [ir.AttrInt64("axis", 1)]
            flat = like(node.outputs[0])
            new.append(ir.Node("", "Flatten", [pooled], axis, name="flatten", outputs=[flat]))
        model.graph.insert_before(node, new)
        supersede(node.outputs[0], new[-1].outputs[0])
        model.graph.remove(node, safe=True)


def max_pool_padding(model: ir.Model) -> None:
    """Zeros padded in front of a MaxPool become its own padding where nothing below zero comes in.

    Elsewhere they must stay, for a MaxPool pads with minus infinity. onnxruntime merges the two
    regardless (seen in 1.31; Keras' ResNetV2 has this pair), but not a Pad that names its axes,
    which it can from opset 18 on.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        pad = producer(node.inputs[0], "Pad") if operator(node) == "MaxPool" else None
        pads = constant(input_at(pad, 1)) if pad is not None else None
        if pad is None or pads is None or len(pads) != 8 or input_at(pad, 3) is not None or not _pads_zeros(pad):
            continue
        if _joins(pad, pads, node) and _never_negative(pad.inputs[0]):
            own = node.attributes.get_ints("pads", [0, 0, 0, 0])
            both = [int(mine + theirs) for mine, theirs in zip(own, pads[[2, 3, 6, 7]], strict=True)]
            node.attributes["pads"] = ir.AttrInt64s("pads", both)
            node.replace_input_with(0, pad.inputs[0])
        elif model.opset_imports[""] >= 18:
            pad.resize_inputs(4)
            pad.replace_input_with(3, initializer(model.graph, f"{pad.outputs[0].name}_axes", np.arange(4)))
    remove_dead(model.graph, "Pad")


# ---- helpers


def _pads_zeros(pad: ir.Node) -> bool:
    value = input_at(pad, 2)
    array = constant(value)
    zero = value is None or (array is not None and not array.any())
    return zero and pad.attributes.get_string("mode", "constant") == "constant"


def _joins(pad: ir.Node, pads: npt.NDArray[Any], pool: ir.Node) -> bool:
    """True when a MaxPool can pad by itself: in space only, by less than its kernel, windows as before."""
    kernel, attributes = pool.attributes["kernel_shape"].as_ints(), pool.attributes
    plain = not attributes.get_int("ceil_mode", 0) and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    own = attributes.get_ints("pads", [0, 0, 0, 0])
    fits = all(own[i] + pads[(2, 3, 6, 7)[i]] < kernel[i % 2] for i in range(len(own)))
    return plain and len(pool.outputs) == 1 and min(pads) >= 0 and not pads[[0, 1, 4, 5]].any() and fits


def _never_negative(value: ir.Value | None) -> bool:
    clip = producer(value, "Clip")
    low = constant(input_at(clip, 1)) if clip is not None else None
    return producer(value, "Relu", "Sigmoid", "HardSigmoid") is not None or (low is not None and bool(low >= 0))
