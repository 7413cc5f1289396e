"""The view of a network: weights as matrices and back, and parts of a model."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.network import Network, cut
from tests.exporters.quantize.networks import SIDE, mobile


def test_a_matrix_goes_back_as_it_came() -> None:
    network = Network(mobile())
    for node in network.nodes:
        if network.weighted(node):
            before = network.weights[node.input[1]].copy()
            matrix = network.matrix(node)
            assert matrix.shape[0] * matrix.shape[1] == len(network.weights[node.input[2]])
            network.set_matrix(node, matrix)
            np.testing.assert_array_equal(network.weights[node.input[1]], before)


@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm_s_outputs_come_first_in_its_matrix(turned: int) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)  # (outputs, inputs)
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=turned)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", 1, ["N", 2])],
        [
            onnx.numpy_helper.from_array(weight if turned else np.ascontiguousarray(weight.T), "w"),
            onnx.numpy_helper.from_array(np.zeros(2, np.float32), "b"),
        ],
    )
    network = Network(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    np.testing.assert_array_equal(network.matrix(node)[0, :, :, 0], weight)
    network.set_matrix(node, 2 * network.matrix(node))
    np.testing.assert_array_equal(network.matrix(node)[0, :, :, 0], 2 * weight)


def test_a_cut_gives_the_tensor_that_the_whole_gives() -> None:
    network, picture = Network(mobile()), np.random.default_rng(0).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    whole = network.proto(extra_outputs=["se"])
    part = cut(whole, ["se"])
    assert len(part.graph.node) < len(whole.graph.node)
    assert len(part.graph.initializer) < len(whole.graph.initializer)
    answers = [
        ort.InferenceSession(model.SerializeToString()).run(["se"], {"input": picture})[0] for model in (whole, part)
    ]
    np.testing.assert_array_equal(*answers)
