from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.dense import absorb_transposes
from exporters.passes import remove_unused

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(3, 5, 4, 2)).astype(np.float32)  # N, C, H, W


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], output: list[object]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 4, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def run(proto: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": MAP})[0]


def after(proto: onnx.ModelProto, step: object) -> onnx.ModelProto:
    graph = ir.from_proto(proto)
    step(graph)  # type: ignore[operator]
    remove_unused(graph)
    return ir.to_proto(graph)


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def gemm(perm: list[int], *, turned: bool, flatten: str = "Reshape") -> onnx.ModelProto:
    weights = RNG.normal(size=(7, 40) if turned else (40, 7)).astype(np.float32)
    middle = (
        helper.make_node("Flatten", ["t"], ["f"])
        if flatten == "Flatten"
        else helper.make_node("Reshape", ["t", "target"], ["f"])
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=perm),
        middle,
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=int(turned)),
    ]
    return model(nodes, {"w": weights, "b": np.ones(7, np.float32), "target": np.array([-1, 40])}, ["n", 7])


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 1, 2], [0, 3, 2, 1], [0, 1, 3, 2]])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("flatten", ["Reshape", "Flatten"])
def test_transpose_moves_into_the_weights(perm: list[int], turned: bool, flatten: str) -> None:
    before = gemm(perm, turned=turned, flatten=flatten)
    cleaned = after(before, absorb_transposes)
    assert operators(cleaned) == {flatten: 1, "Gemm": 1}
    # The same 40 products per output, summed in another order.
    np.testing.assert_allclose(run(cleaned), run(before), rtol=1e-5, atol=1e-5)


def test_a_transpose_of_the_batch_stays() -> None:
    before = gemm([1, 0, 2, 3], turned=False)
    before.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([-1, 40]), "target"))
    assert operators(after(before, absorb_transposes)) == operators(before)


def test_a_flattened_map_that_others_read_stays() -> None:
    before = gemm([0, 2, 3, 1], turned=False)
    before.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, ["n", 40]))
    assert operators(after(before, absorb_transposes)) == operators(before)


def test_a_copied_axis_stays() -> None:
    before = gemm([0, 2, 3, 1], turned=False)
    before.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([-1, 0]), "target"))
    assert operators(after(before, absorb_transposes)) == operators(before)
