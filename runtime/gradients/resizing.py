"""The rule of Resize and Upsample: along each axis a matrix, which onnxruntime itself tells."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.gradients.builder import Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Array, Node


def resize(node: Node, b: Builder, g: Tensor) -> Grads:
    """Every mode is linear in x and works on one axis after the other, so its transpose does."""
    x, y = node_input(node, b), node_output(node, b)
    if node.get("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise node.unsupported("tf_crop_and_resize reads outside the image")
    g = b.expand(g, y)
    for axis in range(x.rank):
        if x.shape[axis] == y.shape[axis]:
            continue
        (small,), (large,) = extents(x, axes=[axis]), extents(y, axes=[axis])
        matrix = b.constant(_matrix(node, axis, small, large), g.dtype)
        last = axis == x.rank - 1
        order = [entry for entry in range(x.rank) if entry != axis] + [axis]
        moved = g if last else b.transpose(g, order)
        moved = moved @ matrix
        g = moved if last else b.transpose(moved, np.argsort(order).tolist())
    return [g]


def _matrix(node: Node, axis: int, small: int, large: int) -> Array:
    """What the operator makes of the unit vectors: (large, small).

    They are the columns of a picture one pixel wide, which is resized in height.
    """
    import onnxruntime
    from onnx import helper

    scale = _scale(node, axis, large / small)
    attributes = {name: value for name, value in node.attributes.items() if name not in ("scales", "axes")}
    factors, inputs = [1.0, 1.0, scale, 1.0], ["x", "roi", "scales"]
    if node.op == "Upsample" or node.opset < 11:
        inputs.remove("roi")
    if node.opset < 9:  # an attribute then
        inputs.remove("scales")
        attributes["scales"] = factors
    graph = helper.make_graph(
        [helper.make_node(node.op, inputs, ["y"], **attributes)], "unit",
        [helper.make_tensor_value_info("x", 1, [small, 1, small, 1])], [helper.make_tensor_value_info("y", 1, None)],
        [helper.make_tensor("roi", 1, [0], []), helper.make_tensor("scales", 1, [4], factors)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=8)
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    units = np.eye(small, dtype=np.float32).reshape(small, 1, small, 1)
    made: Array = session.run(None, {"x": units})[0]
    if made.shape[2] != large:
        raise node.unsupported(f"axis {axis} has {large} rows, and its scale {scale} gives {made.shape[2]}")
    return made.reshape(small, large).T


def _scale(node: Node, axis: int, ratio: float) -> float:
    """As the model gives it; where it gives sizes it is their ratio."""
    scales = node.setting("scales", 1 if node.op == "Upsample" or node.opset < 11 else 2)
    axes = list(node.get("axes", []))
    return float(scales[axes.index(axis) if axes else axis]) if scales else ratio
