"""Weights that are rounded together: on the same grid, for a smaller error of the layer's output."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.grids import weight_grid
from exporters.quantize.network import Network, untyped
from exporters.quantize.rounding import _met, compensated, round_together
from tests.exporters.quantize.networks import mobile, pictures, silent


def test_independent_inputs_are_rounded_to_the_nearest() -> None:
    """There is nothing for the others to make good: the textbook's case."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(2, 3, 7))
    scales = np.abs(matrix).max(axis=2) / 127
    moments = np.stack([np.diag(random.uniform(1, 2, 7))] * 2)
    nearest = np.round(matrix / scales[:, :, None])
    np.testing.assert_array_equal(compensated(matrix, scales, moments, 127), nearest)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_output_errs_less_than_with_the_nearest(bits: int) -> None:
    random = np.random.default_rng(bits)
    inputs = random.normal(size=(500, 6)) @ random.normal(size=(6, 24)) + 0.1 * random.normal(size=(500, 24))
    matrix = random.normal(size=(16, 24))
    nearest, scales = weight_grid(matrix, bits=bits)
    together = compensated(matrix[None], scales[None], (inputs.T @ inputs)[None], 2 ** (bits - 1) - 1)[0]
    assert np.abs(together).max() <= 2 ** (bits - 1) - 1
    errors = [np.linalg.norm(inputs @ (integers * scales[:, None] - matrix).T) for integers in (nearest, together)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("group", "strides", "dilations", "pads"),
    [(1, [1, 1], [1, 1], [0, 0, 0, 0]), (2, [2, 1], [1, 1], [1, 0, 2, 1]), (4, [1, 2], [2, 1], [1, 1, 1, 1])],
)
def test_what_weights_meet_is_what_a_convolution_sums_up(
    group: int, strides: list[int], dilations: list[int], pads: list[int]
) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(8, 4 // group, 3, 2)).astype(np.float32)
    node = onnx.helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], group=group, strides=strides, dilations=dilations, pads=pads
    )
    constants = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(np.zeros(8, np.float32), "b")]
    given = onnx.helper.make_tensor_value_info("x", 1, ["N", 4, 8, 8])
    graph = onnx.helper.make_graph([node], "g", [given], [untyped("y")], constants)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    value = random.normal(size=(2, 4, 8, 8)).astype(np.float32)
    (wanted,) = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": value})
    network = Network(proto)
    met = _met(network, network.nodes[0], value, np.random.default_rng(0))
    matrix = network.matrix(network.nodes[0])
    sums = np.einsum("gsi,goi->gos", met, matrix.reshape(*matrix.shape[:2], -1)).reshape(8, -1)
    places = np.sort(np.transpose(wanted, (1, 0, 2, 3)).reshape(8, -1), axis=1)  # all of them: the map is small
    np.testing.assert_allclose(np.sort(sums, axis=1), places, rtol=1e-4, atol=1e-4)


def test_a_network_s_layers(monkeypatch: Any) -> None:
    network = Network(mobile())
    layers = [node for node in network.nodes if network.weighted(node)]
    nearest = {}
    for node in layers:
        nearest[node.output[0]] = weight_grid(
            network.matrix(node).reshape(len(network.weights[node.input[2]]), -1), bits=8
        )
    monkeypatch.setattr("exporters.quantize.rounding._AT_ONCE", 500)  # several portions
    round_together(network, layers, pictures(), 8, silent)
    assert set(network.rounded) == {node.output[0] for node in layers if node.input[0] != network.input}
    for output, ((integers, scales), shape) in network.rounded.items():
        np.testing.assert_array_equal(scales, nearest[output][1])
        assert shape == network.matrix(network.maker(output)).shape
        assert np.abs(integers.astype(int) - nearest[output][0]).max() <= 12  # beside the nearest, not far from it
    assert any((network.rounded[name][0][0] != nearest[name][0]).any() for name in network.rounded)
