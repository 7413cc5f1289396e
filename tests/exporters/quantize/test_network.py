"""The view of a network: weights as matrices and back, and parts of a model."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.network import Network, cut, split_up
from tests.exporters.graphs import normal, parse, run
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


def split(sizes: list[int] | None, axis: int, *, more: str = "") -> Any:
    """A network of one Split, and what it gives."""
    node = f"one, two = Split <axis = {axis}{more}> (x{', sizes' if sizes else ''})"
    return parse(
        f"(float[N,7,6] x) => (float[N,a,b] one, float[N,c,d] two) {{ {node} }}",
        **({"sizes": np.array(sizes)} if sizes else {}),
    )


@pytest.mark.parametrize(
    ("sizes", "axis", "more"), [([3, 4], 1, ""), ([5, 1], -1, ""), (None, 1, ", num_outputs = 2"), ([1, 6], -2, "")]
)
def test_slices_give_what_a_split_gives(sizes: list[int] | None, axis: int, more: str) -> None:
    proto, some = split(sizes, axis, more=more), normal(2, 7, 6)
    wanted = run(proto, {"x": some})
    split_up(proto, {"x": (1, 7, 6)})
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node] == ["Slice", "Slice"]
    for got, one in zip(run(proto, {"x": some}), wanted, strict=True):
        np.testing.assert_array_equal(got, one)


def test_splits_of_pictures_and_of_what_is_not_known_stay() -> None:
    for proto, shapes in ((split([1, 1], 0), {"x": (1, 7, 6)}), (split([3, 4], 1), {})):
        before = proto.SerializeToString()
        split_up(proto, shapes)
        assert proto.SerializeToString() == before


def test_what_is_known_is_not_made_again() -> None:
    proto, some = split([3, 4], 1), normal(2, 7, 6)
    two = run(proto, {"x": some})[1]
    part = cut(proto, ["one", "two"], known={"two": two})
    got = run(part, {"x": some, "two": two + 1})
    np.testing.assert_array_equal(got[0], some[:, :3])
