"""What the tests of the passes share: one small graph, and what runs and reads any."""

from __future__ import annotations

import numpy as np
import onnx

from tests.exporters import graphs
from tests.exporters.graphs import Array, normal, parse


def run(proto: onnx.ModelProto, **feeds: Array) -> list[Array]:
    nameless = onnx.ModelProto.FromString(proto.SerializeToString())
    for node in nameless.graph.node:  # exporters/keras.py and torch.py name several nodes for one layer
        node.name = ""
    return graphs.run(nameless, feeds)


def operators(proto: onnx.ModelProto) -> str:
    return " ".join(node.op_type for node in proto.graph.node)


def small(opset: int = 18, batch: str = "unk__7") -> onnx.ModelProto:
    """Conv, ReLU, mean over space, dense layer: NCHW."""
    axes, more = (", axes", {"axes": np.array([2, 3])}) if opset >= 18 else ("", {})
    attributes = "keepdims = 0" if opset >= 18 else "keepdims = 0, axes = [2, 3]"
    text = (
        f"(float[{batch},3,8,8] image) => (float[{batch},4] scores) {{ c = Conv(image, w) r = Relu(c) "
        f"m = ReduceMean<{attributes}>(r{axes}) d = MatMul(m, f) scores = Add(d, b) }}"
    )
    weights = {"w": normal(5, 3, 3, 3), "f": normal(5, 4), "b": normal(4)}
    proto = parse(text, opset=opset, **weights, **more)
    for node, name in zip(proto.graph.node, ("conv1", "act", "pool", "head", "head"), strict=True):
        node.name = name
    return proto
