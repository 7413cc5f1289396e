"""Integers: straight through the rounding, no integer kernel lost, near the float network's gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from exporters.quantize.kernels import written
from exporters.quantize.network import Network
from exporters.quantize.observe import observe
from exporters.quantize.scheme import Style, candidates, make_scheme
from runtime.gradients import ByTensor, ByWeights, add_gradients, gradient_name, readable
from runtime.gradients.quantized import FORMS, WITHIN
from runtime.gradients.rules import RULES
from tests.exporters.quantize.networks import mobile, pictures, silent
from tests.runtime.gradients.running import session

torch = pytest.importorskip("torch")
F = torch.nn.functional

Array = np.ndarray[Any, Any]
Oracle = Callable[..., torch.Tensor]
RANDOM = np.random.default_rng(3)

# What integer operators are given: values, scales and zero points; weights per channel.
X = RANDOM.integers(0, 256, (2, 4, 6, 6), np.uint8)
W = RANDOM.integers(-127, 128, (5, 4, 3, 3), np.int8)
MATRIX, ROWS = RANDOM.integers(-127, 128, (8, 5), np.int8), RANDOM.integers(0, 256, (3, 8), np.uint8)
SCALES = RANDOM.uniform(0.01, 0.02, 5).astype(np.float32)
XS, XZ, YS, YZ = np.float32(0.02), np.uint8(100), np.float32(0.05), np.uint8(120)
REAL_W = torch.from_numpy(W * SCALES[:, None, None, None].astype(float))
REAL_MATRIX = torch.from_numpy(MATRIX * SCALES.astype(float))
OTHER = RANDOM.integers(0, 256, X.shape, np.uint8)
REAL_OTHER = torch.from_numpy((OTHER.astype(float) - 7) * 0.03)
ADDED = [OTHER, np.float32(0.03), np.uint8(7), YS, YZ]

MS = "com.microsoft"
INTEGER: list[tuple[str, list[Any], Oracle, dict[str, Any]]] = [
    ("QLinearConv", [X, XS, XZ, W, SCALES, np.zeros(5, np.int8), YS * 8, YZ],
     lambda x: F.conv2d(x, REAL_W, padding=1, stride=2), {"pads": [1] * 4, "strides": [2, 2]}),
    ("QLinearMatMul", [ROWS, XS, XZ, MATRIX, SCALES, np.zeros(5, np.int8), YS, YZ], lambda x: x @ REAL_MATRIX, {}),
    ("QGemm", [ROWS, XS, XZ, MATRIX.T.copy(), SCALES, np.zeros(5, np.int8), np.arange(5, dtype=np.int32), YS, YZ],
     lambda x: x @ REAL_MATRIX + torch.from_numpy(np.arange(5) * 0.02 * SCALES), {"transB": 1, "domain": MS}),
    ("QLinearAdd", [X, XS, XZ, *ADDED], lambda x: x + REAL_OTHER, {"domain": MS}),
    ("QLinearMul", [X, XS, XZ, *ADDED], lambda x: x * REAL_OTHER, {"domain": MS}),
    ("QLinearAveragePool", [X, XS, XZ, YS, YZ], lambda x: F.avg_pool2d(x, 3, 1),
     {"kernel_shape": [3, 3], "domain": MS}),
    ("QLinearGlobalAveragePool", [X, XS, XZ, YS, YZ], lambda x: x.mean((2, 3), keepdim=True), {"domain": MS}),
    ("QLinearSigmoid", [X, XS, XZ, np.float32(1 / 256), np.uint8(0)], torch.sigmoid, {"domain": MS}),
    ("QLinearLeakyRelu", [X, XS, XZ, YS, YZ], lambda x: F.leaky_relu(x, 0.125), {"alpha": 0.125, "domain": MS}),
    ("QLinearSoftmax", [ROWS, XS, XZ, np.float32(1 / 256), np.uint8(0)], lambda x: x.softmax(1),
     {"axis": 1, "opset": 13, "domain": MS}),
    ("QLinearConcat", [YS, YZ, X, XS, XZ, OTHER, np.float32(0.03), np.uint8(7)],
     lambda x: torch.cat([x, REAL_OTHER], 1), {"axis": 1, "domain": MS}),
]  # fmt: skip

# The rules use what the result's integers say, up to half a step off, where a float rule uses the result itself.
ROUNDED = {"QLinearSigmoid", "QLinearSoftmax"}


def test_every_integer_operator_has_a_case() -> None:
    assert [entry[0] for entry in INTEGER] == list(FORMS)
    assert set(RULES) >= WITHIN


@pytest.mark.parametrize(("op", "inputs", "oracle", "attributes"), INTEGER, ids=[entry[0] for entry in INTEGER])
def test_an_integer_operator_is_its_float_one(
    op: str, inputs: list[Any], oracle: Oracle, attributes: dict[str, Any]
) -> None:
    names = [f"i{index}" for index in range(len(inputs))]
    place = 2 if op == "QLinearConcat" else 0
    given = np.asarray(inputs[place])
    real = torch.from_numpy((given.astype(float) - int(XZ)) * float(XS)).requires_grad_()
    y = oracle(real)
    weights = RANDOM.normal(size=tuple(y.shape)).astype(np.float32)
    fixed = [name for name in names if name != names[place]]
    values = [np.asarray(inputs[names.index(name)]) for name in fixed]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes), helper.make_node("Cast", ["y"], ["of"], to=1)], "one",
        [helper.make_tensor_value_info(names[place], 2, list(given.shape))],
        [helper.make_tensor_value_info("of", 1, None), helper.make_tensor_value_info("y", 2, None)],
        [numpy_helper.from_array(value, name) for name, value in zip(fixed, values, strict=True)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    made = add_gradients(model, [names[place]], of="of", seed=ByWeights())
    _, integers, found = session(made).run(None, {names[place]: given, "seed": weights})

    scale = {"QLinearSigmoid": 1 / 256, "QLinearSoftmax": 1 / 256, "QLinearConv": 0.4}.get(op, 0.05)
    inside = 1 if FORMS[op].float_op in WITHIN else (integers > 0) & (integers < 255)
    assert np.mean(inside) > 0.5
    y.backward(torch.from_numpy(weights.astype(float) * inside / scale))
    expected = real.grad.numpy() * float(XS)
    assert found.dtype == np.float32
    # float32 sums of up to 45 products; a Sigmoid's or Softmax's slope y (1 - y) with y half a step (1/512) off.
    bound = 1 / 512 * np.abs(weights).max() * 2 / scale * float(XS) if op in ROUNDED else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def qdq(values: Array, scale: Any, zero: Any, **attributes: Any) -> tuple[Array, Array]:
    """The gradient of a QuantizeLinear and DequantizeLinear, and the integers between them."""
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
         helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes)],
        "qdq", [helper.make_tensor_value_info("x", 1, list(values.shape))],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(scale), "s"), numpy_helper.from_array(np.asarray(zero), "z")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.graph.output.append(
        helper.make_tensor_value_info("q", helper.np_dtype_to_tensor_dtype(np.asarray(zero).dtype), None)
    )
    made = add_gradients(model, ["x"], of="y", seed=ByWeights())
    _, integers, found = session(made).run(None, {"x": values, "seed": np.ones_like(values)})
    return found, integers


@pytest.mark.parametrize(("low", "high", "zero"), [(0, 255, np.uint8(100)), (-128, 127, np.int8(-5))])
def test_rounding_is_passed_and_saturation_is_not(low: int, high: int, zero: Any) -> None:
    values = np.linspace(-40, 40, 999, dtype=np.float32)
    found, integers = qdq(values, np.float32(0.1), zero)
    np.testing.assert_array_equal(found, ((integers > low) & (integers < high)).astype(np.float32))
    assert 0.2 < found.mean() < 0.8


def test_scales_along_an_axis() -> None:
    values = RANDOM.normal(size=(2, 3, 5)).astype(np.float32)
    found, integers = qdq(values, np.array([0.01, 0.1, 1], np.float32), np.full(3, 128, np.uint8), axis=1)
    np.testing.assert_allclose(found, (integers > 0) & (integers < 255), atol=1e-6)  # times a scale, divided by it


@pytest.mark.parametrize(("kind", "attributes"), [("MaxPool", {"kernel_shape": [1, 2]}), ("ReduceMax", {"axes": [3]})])
def test_a_maximum_of_floats_is_found_before_it_is_rounded(kind: str, attributes: dict[str, Any]) -> None:
    """The result is read from the integers elsewhere; there the maximum would be none of the inputs."""
    nodes = [
        helper.make_node(kind, ["x"], ["m"], **attributes),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "late", [helper.make_tensor_value_info("x", 1, [1, 1, 1, 2])],
        [helper.make_tensor_value_info("y", 1, [1, 1, 1, 1])],
        [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.uint8(9), "z")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = session(add_gradients(model, ["x"], seed=ByWeights(), plain=False))
    for values, expected in (([0.1, 0.2], [0, 1]), ([0.4, 0.3], [1, 0])):
        feeds = {"x": np.array(values, np.float32).reshape(1, 1, 1, 2), "seed": np.ones((1, 1, 1, 1), np.float32)}
        assert made.run(None, feeds)[0].ravel().tolist() == expected


def test_a_dynamically_quantized_product() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=1),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "dynamic", [helper.make_tensor_value_info("x", 1, [3, 8])],
        [helper.make_tensor_value_info("y", 1, [3, 5])], [numpy_helper.from_array(MATRIX, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    weights = RANDOM.normal(size=(3, 5)).astype(np.float32)
    feeds = {"x": RANDOM.normal(size=(3, 8)).astype(np.float32), "seed": weights}
    (found,) = session(add_gradients(model, ["x"], seed=ByWeights(), plain=False)).run(None, feeds)
    np.testing.assert_allclose(
        found, weights @ MATRIX.T.astype(np.float32), rtol=1e-5, atol=1e-4
    )  # float32 sums of five, up to 500


def quantized(seed: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The network with MobileNet's parts, as float and as edgezoo's QDQ, in the forms that it goes into files."""
    network = Network(mobile(seed))
    seen, style = observe(network, pictures(), silent), Style()
    scheme = make_scheme(network, seen, candidates(network, style), "whole", style)
    return network.proto(), written(network, scheme)


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    session(model, optimized=str(folder / "optimized.onnx"))
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize(
    ("layer", "near"),
    # Behind the last activation lie a mean and a product alone. Before it, which channels are active differs where an
    # untrained network is near zero, and before the pooling, which of four equals is the maximum.
    [("head.act", 0.999), ("sum", 0.7), ("se", 0.7), ("expand.act", 0.7), ("stem.act", 0.7), ("input", 0.8)],
)
def test_edgezoo_s_int8_keeps_every_kernel_and_is_near(layer: str, near: float, tmp_path: Path) -> None:
    single, eight = quantized(0)
    name = "input" if layer == "input" else f"{layer}::dequantized"
    assert readable(eight, layer) == name
    made = add_gradients(eight, [name], keep=[name] if layer != "input" else [])
    before, after = kernels(eight, tmp_path), kernels(made, tmp_path)
    integer = {kind for kind in before if kind.startswith(("QLinear", "QGemm", "Nhwc"))}
    assert before["QLinearConv"] == 11
    assert {kind: after[kind] for kind in integer} == {kind: before[kind] for kind in integer}
    assert after["ConvTranspose"] + after["Conv"] <= 11
    assert after["Gather"] <= 1  # the class; turned weights are folded, though they are stored as integers

    feeds = {"input": next(iter(pictures(8, seed=5).batches(8))), "class_index": np.array([3])}
    (wanted,) = session(add_gradients(single, [layer])).run([gradient_name(layer)], feeds)
    (found,) = session(made).run([gradient_name(name)], feeds)
    assert np.isfinite(found).all()
    found, added = found[:, : wanted.shape[1]], found[:, wanted.shape[1] :]
    assert not added.any()
    correlations = [np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] for ours, theirs in zip(found, wanted, strict=True)]
    assert np.median(correlations) > near
    assert np.abs(found).mean() == pytest.approx(np.abs(wanted).mean(), rel=0.2)


def test_onnxruntime_s_own_integer_form(tmp_path: Path) -> None:
    """QLinear operators, as quantize_static writes them, agree with its QDQ form of the same network."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(pictures(8).batches(1))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    onnx.save(mobile(), tmp_path / "float.onnx")
    feeds = {"input": next(iter(pictures(4, seed=5).batches(4))), "class_index": np.array([3])}
    found = []
    for form in (QuantFormat.QOperator, QuantFormat.QDQ):
        quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader(), quant_format=form)
        model = onnx.load(tmp_path / "int8.onnx")
        found.append(session(add_gradients(model, ["input"], plain=False)).run(None, feeds)[0])
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    # The two forms keep different tensors in float; the same integers elsewhere.
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.9
    assert onnxruntime.__version__


def test_a_seed_that_is_a_tensor_of_the_graph() -> None:
    single, _ = quantized(1)
    made = add_gradients(single, ["head.act"], seed=ByTensor("logits"), plain=True)
    logits, found = session(made).run(None, {"input": next(iter(pictures(2).batches(2)))})
    fc = numpy_helper.to_array(next(t for t in single.graph.initializer if t.name == "logits.w"))
    expected = np.broadcast_to((logits @ fc)[:, :, None, None] / found[0, 0].size, found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32 sums of ten
