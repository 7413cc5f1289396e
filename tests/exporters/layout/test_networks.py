"""Whole networks, drawn at random and wrapped as tf2onnx wraps them, become channels first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from exporters import layout
from tests.exporters.graphs import parse, run
from tests.exporters.layout.whole_numbers import Arrays, feeds_for, operators


@dataclass
class Builder:
    """Writes an NHWC network node by node; every value is a small whole number or half of one."""

    draw: st.DrawFn
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: Arrays = field(default_factory=dict)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # of the maps so far: H, W, C

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        names = []
        for value in inputs:
            names.append(value if isinstance(value, str) else f"w{len(self.weights)}")
            if not isinstance(value, str):
                self.weights[names[-1]] = np.asarray(value)
        self.nodes.append(helper.make_node(kind, names, [f"v{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def numbers(self, *shape: int) -> np.ndarray[Any, Any]:
        seed = self.draw(st.integers(0, 2**16))
        return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)

    def wrapped(self, kind: str, value: str, *weights: Any, **attributes: Any) -> str:
        inner = self.node("Transpose", value, perm=[0, 3, 1, 2])
        return self.node("Transpose", self.node(kind, inner, *weights, **attributes), perm=[0, 2, 3, 1])

    def bounded(self, value: str) -> str:
        """Whole numbers again, so that no sum loses a bit."""
        return self.node("Floor", self.node("Clip", value, np.float32(-8), np.float32(8)))

    def block(self, value: str) -> str:
        height, width, channels = self.shapes[value]
        space, kind = (height, width), self.draw(st.sampled_from(BLOCKS))
        if kind == "conv":
            out, size = self.draw(st.sampled_from([1, 2, 5])), self.draw(st.sampled_from([1, 3]))
            channels, pads = out, [size // 2] * 4
            bias = [self.numbers(out)] if self.draw(st.booleans()) else []
            kernel = self.numbers(out, self.shapes[value][2], size, size)
            new = self.bounded(self.wrapped("Conv", value, kernel, *bias, pads=pads))
        elif kind == "elementwise":
            name = self.draw(st.sampled_from(["Relu", "Neg", "Abs", "Identity", "LeakyRelu"]))
            new = self.node(name, value, **({"alpha": 0.5} if name == "LeakyRelu" else {}))
        elif kind == "constant":
            shape = self.draw(
                st.sampled_from([(), (1,), (channels,), (1, 1, channels), (1, 1, 1, channels), (height, width, 1)])
            )
            operands = self.draw(st.permutations([value, self.numbers(*shape)]))
            new = self.bounded(self.node(self.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"])), *operands))
        elif kind == "join":
            other = self.draw(
                st.sampled_from([name for name, shape in self.shapes.items() if shape == self.shapes[value]])
            )
            new = self.bounded(self.node(self.draw(st.sampled_from(["Add", "Mul"])), value, other))
        elif kind == "concat":
            other = self.draw(st.sampled_from([name for name, shape in self.shapes.items() if shape[:2] == space]))
            new = self.node("Concat", value, other, axis=self.draw(st.sampled_from([3, -1])))
            channels += self.shapes[other][2]
        elif kind == "gate":
            pooled = self.bounded(self.node("ReduceMax", value, np.array([1, 2]), keepdims=1))
            new = self.bounded(
                self.node("Mul", value, self.wrapped("Conv", pooled, self.numbers(channels, channels, 1, 1)))
            )
        elif kind == "dense gate":
            pooled = self.node("ReduceSum", value, np.array([-3, -2]), keepdims=0)
            gate = self.node(
                "Reshape", self.node("MatMul", pooled, self.numbers(channels, channels)), np.array([-1, 1, 1, channels])
            )
            new = self.bounded(self.node("Mul", value, gate))
        elif kind == "pad":
            top, bottom, left, right = (self.draw(st.integers(0, 2)) for _ in range(4))
            new = self.node("Pad", value, np.array([0, top, left, 0, 0, bottom, right, 0]))
            space = (height + top + bottom, width + left + right)
        elif kind == "crop" and height > 2:
            new = self.node("Slice", value, np.array([1]), np.array([height]), np.array([1]))
            space = (height - 1, width)
        elif kind == "pool":
            new = self.wrapped(
                self.draw(st.sampled_from(["MaxPool", "AveragePool"])), value, kernel_shape=[2, 2], pads=[0, 0, 1, 1]
            )
            new = self.bounded(new)
        elif kind == "slopes":
            new = self.bounded(
                self.node("PRelu", value, self.numbers(*(1,) * self.draw(st.sampled_from([0, 2])), channels))
            )
        else:
            return value
        self.shapes[new] = (*space, channels)
        return new


BLOCKS = [
    "conv",
    "conv",
    "elementwise",
    "constant",
    "join",
    "concat",
    "gate",
    "dense gate",
    "pad",
    "crop",
    "pool",
    "slopes",
]


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, int]:
    """A network, and how many Transposes it needs once its input is NCHW."""
    build = Builder(draw)
    shape = (draw(st.integers(2, 5)), draw(st.integers(2, 5)), draw(st.sampled_from([1, 3])))
    build.shapes["input"] = shape
    value = "input"
    for _ in range(draw(st.integers(1, 8))):
        value = build.block(value)
    height, width, channels = build.shapes[value]
    if draw(st.booleans()):
        features, size, left = build.node("ReduceSum", value, np.array([1, 2]), keepdims=0), channels, 0
    else:  # a dense layer on all pixels has its weights in NHWC order
        size = height * width * channels
        features, left = build.node("Reshape", value, np.array([-1, size])), int(height * width > 1 and channels > 1)
    build.nodes.append(helper.make_node("MatMul", [features, "dense"], ["logits"]))
    build.weights["dense"] = build.numbers(size, 3)
    graph = helper.make_graph(
        build.nodes,
        "network",
        [helper.make_tensor_value_info("input", 1, ["N", *shape])],
        [helper.make_tensor_value_info("logits", 1, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in build.weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), left


@settings(max_examples=120, deadline=None, derandomize=True)
@given(network=networks())
def test_networks_become_channels_first(network: tuple[onnx.ModelProto, int]) -> None:
    proto, left = network
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    layout.to_channels_first(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(result, strict_mode=True), full_check=True)
    for batch in (1, 3):
        feeds = feeds_for(proto, batch)
        expected = run(proto, feeds)[0]
        given_nchw = {"input": np.ascontiguousarray(feeds["input"].transpose(0, 3, 1, 2))}
        np.testing.assert_array_equal(run(result, given_nchw)[0], expected)
    assert operators(result)["Transpose"] <= left, helper.printable_graph(result.graph)


def test_the_input_keeps_its_name_and_type() -> None:
    model = ir.from_proto(parse("(float[N,4,5,3] picture) => (float[] y) { y = Relu(picture) }"))
    layout.to_channels_first(model)
    (value,) = ir.to_proto(model).graph.input
    assert value.name == "picture"
    assert [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim] == ["N", 3, 4, 5]
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
