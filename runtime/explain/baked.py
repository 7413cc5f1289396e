"""Grad-CAM inside the file: an output that any onnxruntime, in any language, gives in the same call as the answer.

The file gets two optional inputs, ``explain`` (bool, False) and ``class_index`` (int64 (1,) or (n,), -1 for the most
probable class), and one output, ``explanation`` (n, rows, columns), with no rows while ``explain`` is False. The plain
prediction runs what it ran before: everything else is behind an If.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import InvalidInput
from runtime.explain.explainable import CLASS, OUTPUT, SWITCH
from runtime.gradients.append import add_gradients, gradient_name, readable
from runtime.gradients.request import on_request
from runtime.gradients.seeds import ByIndex


def bake(proto: Any, layer: str, scores: str) -> Any:
    """A new model that also gives Grad-CAM of ``layer``, (n, K, h, w), for a class of ``scores``, (n, classes).

    relu(sum_k a_k A_k), a_k the mean gradient of the class's score over map k, as ``runtime.explain.cams.grad_cam``.

    Raises InvalidInput for a model that has one already or has a tensor of one of the names, and what
    ``add_gradients`` raises.
    """
    import onnx
    from onnx import helper, numpy_helper

    outputs = [value.name for value in proto.graph.output]
    if OUTPUT in outputs:
        raise InvalidInput(f"the model has an output {OUTPUT!r} already")
    inner = readable(proto, layer)
    slope = gradient_name(inner)
    model = add_gradients(proto, [inner], of=scores, seed=ByIndex(CLASS, default=-1), keep=[inner])
    kind = next(value.type.tensor_type for value in model.graph.output if value.name == slope)
    batch, _, *places = kind.shape.dim
    kept = [value for value in model.graph.output if value.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    prefix = f"{OUTPUT}::"
    # Axes became an input of ReduceMean with opset 18, of ReduceSum with 13.
    if opset >= 18:
        model.graph.initializer.append(numpy_helper.from_array(_int64([2, 3]), f"{prefix}places"))
        mean = helper.make_node("ReduceMean", [slope, f"{prefix}places"], [f"{prefix}weights"], keepdims=1)
    else:
        mean = helper.make_node("ReduceMean", [slope], [f"{prefix}weights"], axes=[2, 3], keepdims=1)
    if opset >= 13:
        model.graph.initializer.append(numpy_helper.from_array(_int64([1]), f"{prefix}maps"))
        total = helper.make_node("ReduceSum", [f"{prefix}products", f"{prefix}maps"], [f"{prefix}sum"], keepdims=0)
    else:
        total = helper.make_node("ReduceSum", [f"{prefix}products"], [f"{prefix}sum"], axes=[1], keepdims=0)
    model.graph.node.extend(
        [
            mean,
            helper.make_node("Mul", [f"{prefix}weights", inner], [f"{prefix}products"]),
            total,
            helper.make_node("Relu", [f"{prefix}sum"], [OUTPUT]),
        ]
    )
    made = helper.make_tensor_value_info(OUTPUT, kind.elem_type, None)
    made.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=[batch, *places]))
    model.graph.output.append(made)
    for index, node in enumerate(model.graph.node[-4:]):
        node.name = f"{prefix}{index}"
    return on_request(model, [OUTPUT], switch=SWITCH)


def unbaked(proto: Any) -> Any:
    """The model as it was before; what stood behind the switch is gone."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    gone = {OUTPUT, SWITCH, CLASS}
    for items in (graph.node, graph.output, graph.input, graph.initializer):
        kept = [item for item in items if item.name not in gone]
        del items[:]
        items.extend(kept)
    return made


def _int64(values: list[int]) -> Any:
    import numpy as np

    return np.array(values, np.int64)
