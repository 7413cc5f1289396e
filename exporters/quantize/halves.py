"""float16 and bfloat16: the whole network in half the bits, float32 at its ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import InvalidInput

# Inputs that stay float32 whatever the network's numbers are (ONNX's type constraints).
_FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}


def halved(proto: Any, precision: str) -> Any:
    """The model computing in ``precision`` ("fp16" or "bf16"), with the float32 input and output it had.

    Weights beyond float16's largest number (65504) are an error: they would become infinite.

    Raises InvalidInput.
    """
    import ml_dtypes
    import onnx
    from onnx import helper, numpy_helper

    dtype, kind, largest = {
        "fp16": (np.dtype(np.float16), onnx.TensorProto.FLOAT16, 65504.0),
        "bf16": (np.dtype(ml_dtypes.bfloat16), onnx.TensorProto.BFLOAT16, 3.38e38),
    }[precision]
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    wide = {
        node.input[index]
        for node in graph.node
        for index in _FLOAT_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    for item in graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT and item.name not in wide:
            array = numpy_helper.to_array(item)
            if np.isfinite(array).all() and np.abs(array).max(initial=0) > largest:
                raise InvalidInput(f"{item.name}: its weights reach {np.abs(array).max():.3g}, beyond {precision}")
            item.CopyFrom(numpy_helper.from_array(array.astype(dtype), item.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = kind
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == onnx.TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(dtype)))
    given, made = graph.input[0].name, [item.name for item in graph.output]
    inner = {given: f"{given}::{precision}"} | {name: f"{name}::{precision}" for name in made}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = inner.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = inner.get(name, name)
    graph.node.insert(0, helper.make_node("Cast", [given], [inner[given]], to=kind))
    for name in made:
        graph.node.append(helper.make_node("Cast", [inner[name]], [name], to=onnx.TensorProto.FLOAT))
    del graph.value_info[:]
    return model
