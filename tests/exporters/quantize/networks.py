"""Small networks with everything that the quantizer rewrites, and pictures for them."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters.quantize.pictures import Pictures
from runtime.metadata import Preprocess

SIDE = 16
RULE = Preprocess(size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)


class Builder:
    """Nodes and seeded weights; channels of very different sizes, as trained networks have them."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, name: str, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(self, given: str, output: str, inputs: int, outputs: int, size: int = 1, *, group: int = 1) -> str:
        fan = inputs // group * size**2
        spread = np.exp(self.random.normal(size=(outputs, 1, 1, 1)))
        weight = self.random.normal(size=(outputs, inputs // group, size, size)) * spread * (2 / fan) ** 0.5
        bias = self.random.normal(size=outputs) * spread.ravel()
        names = [self.constant(f"{output}.w", weight), self.constant(f"{output}.b", bias)]
        return self.add("Conv", [given, *names], output, group=group, pads=[size // 2] * 4)

    def gemm(self, given: str, output: str, inputs: int, outputs: int) -> str:
        weight = self.random.normal(size=(outputs, inputs)) / inputs**0.5
        names = [self.constant(f"{output}.w", weight), self.constant(f"{output}.b", self.random.normal(size=outputs))]
        return self.add("Gemm", [given, *names], output, transB=1)

    def model(self, output: str, classes: int) -> Any:
        given = helper.make_tensor_value_info("input", 1, ["N", 3, SIDE, SIDE])
        made = helper.make_tensor_value_info(output, 1, ["N", classes])
        graph = helper.make_graph(self.nodes, "small", [given], [made], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def mobile(seed: int = 0) -> Any:
    """MobileNet's parts: ReLU6, depthwise, a linear residual stream, squeeze-and-excitation, HardSwish, Concat."""
    net = Builder(seed)
    net.constant("zero", 0.0)
    net.constant("six", 6.0)
    x = net.add("Clip", [net.conv("input", "stem", 3, 8, 3), "zero", "six"], "stem.act")
    x = net.add("Relu", [net.conv(x, "dw", 8, 8, 3, group=8)], "dw.act")
    stream = net.conv(x, "pw", 8, 8)
    x = net.add("HardSwish", [net.conv(stream, "expand", 8, 16)], "expand.act")
    x = net.add("HardSwish", [net.conv(x, "dw2", 16, 16, 3, group=16)], "dw2.act")
    gate = net.add("Relu", [net.conv(net.add("GlobalAveragePool", [x], "pool"), "squeeze", 16, 4)], "squeeze.act")
    gate = net.add("HardSigmoid", [net.conv(gate, "excite", 4, 16)], "gate", alpha=1 / 6, beta=0.5)
    x = net.conv(net.add("Mul", [x, gate], "se"), "project", 16, 8)
    stream = net.add("Add", [stream, x], "sum")
    left = net.add("Relu", [net.conv(stream, "left", 8, 8)], "left.act")
    right = net.add("Sigmoid", [net.conv(stream, "right", 8, 8)], "right.act")
    x = net.add(
        "MaxPool", [net.add("Concat", [left, right], "cat", axis=1)], "max", kernel_shape=[2, 2], strides=[2, 2]
    )
    x = net.add("Relu", [net.conv(x, "head", 16, 24)], "head.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    return net.model(net.gemm(x, "logits", 24, 10), 10)


def swish() -> Any:
    """Two layers with x * sigmoid(x) behind."""
    net = Builder(8)
    x = net.conv("input", "stem", 3, 16, 3)
    x = net.add("Mul", [x, net.add("Sigmoid", [x], "stem.gate")], "stem.act")
    x = net.conv(x, "next", 16, 16)
    x = net.add("Mul", [net.add("Sigmoid", [x], "next.gate"), x], "next.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    return net.model(net.gemm(x, "logits", 16, 10), 10)


def shuffled() -> Any:
    """Channels that change places and part again, as ShuffleNet's do."""
    net = Builder(6)
    x = net.add("Relu", [net.conv("input", "stem", 3, 12, 3)], "stem.act")
    for name, values in (("apart", [0, 2, 6, SIDE, SIDE]), ("merged", [0, 12, SIDE, SIDE]), ("sizes", [4, 8])):
        net.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
    x = net.add("Transpose", [net.add("Reshape", [x, "apart"], "five")], "turned", perm=[0, 2, 1, 3, 4])
    net.nodes.append(
        helper.make_node("Split", [net.add("Reshape", [x, "merged"], "four"), "sizes"], ["left", "right"], axis=1)
    )
    x = net.add("Concat", ["left", net.add("Relu", [net.conv("right", "own", 8, 8)], "own.act")], "cat", axis=1)
    x = net.add("Relu", [net.conv(x, "head", 12, 16)], "head.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    return net.model(net.gemm(x, "logits", 16, 10), 10)


def two_heads() -> Any:
    """Two outputs, one of them a map that goes on to the other, and a ReLU beside what can be negative."""
    net = Builder(5)
    left = net.add("Relu", [net.conv("input", "left", 3, 8, 3)], "left.act")
    left = net.add("MaxPool", [left], "left.max", kernel_shape=[2, 2], strides=[2, 2])
    right = net.add(
        "AveragePool", [net.conv("input", "right", 3, 8, 3)], "right.mean", kernel_shape=[2, 2], strides=[2, 2]
    )
    x = net.conv(net.add("Concat", [left, right], "cat", axis=1), "map", 16, 8)
    x = net.add("Relu", [net.conv(x, "head", 8, 16)], "head.act")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    model = net.model(net.gemm(x, "logits", 16, 10), 10)
    model.graph.output.append(helper.make_tensor_value_info("map", 1, ["N", 8, SIDE // 2, SIDE // 2]))
    return model


def pictures(count: int = 24, seed: int = 0) -> Pictures:
    """Smooth noise, as uint8 arrays."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3))
    return Pictures([np.kron(one, np.ones((8, 8, 1))).astype(np.uint8) for one in coarse], RULE)


def silent(what: str, done: int, total: int) -> None:
    """No progress."""
