"""Shape inference and the checker see a model without its weights, and find what they find with them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporters.opset import to_opset
from exporters.passes import clean
from exporters.shapes import check, infer_shapes, weightless
from tests.exporters.graphs import normal, parse, run

LIMIT = 20_000  # bytes; the weights below are 1.2 MB


def heavy() -> onnx.ModelProto:
    """Conv, MaxPool, a reshape to a constant shape, a dense layer of 1 MB."""
    return parse(
        "(float[N,3,8,8] x) => (float[N,32] y) { c = Conv(x, w) r = Reshape(c, s) d = MatMul(r, f) y = Add(d, b) }",
        w=normal(256, 3, 3, 3), s=np.array([-1, 9216]), f=normal(9216, 32), b=normal(32),
    )  # fmt: skip


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if protobuf's limit were LIMIT: what goes to onnx's C++ must be smaller. Gives the functions called."""
    called: list[str] = []
    for module, name in (
        (onnx.shape_inference, "infer_shapes"),
        (onnx.checker, "check_model"),
        (onnx.version_converter, "convert_version"),
    ):
        original = getattr(module, name)

        def limited(proto: onnx.ModelProto, *args: object, original=original, name=name, **options: object) -> object:
            assert proto.ByteSize() < LIMIT, f"{name} was given {proto.ByteSize()} bytes"
            called.append(name)
            return original(proto, *args, **options)

        monkeypatch.setattr(module, name, limited)
    return called


def test_a_model_too_large_for_protobuf_is_cleaned_and_converted(limited: list[str]) -> None:
    proto = heavy()
    assert proto.ByteSize() > 50 * LIMIT
    cleaned = clean(proto, opset=18, batch=None)
    assert {"infer_shapes", "check_model"} == set(limited)
    older = to_opset(cleaned, 15)
    assert "convert_version" in limited
    feeds = {"x": normal(3, 3, 8, 8)}
    for result in (cleaned, older):
        names = {value.name for value in result.graph.value_info}
        assert {output for node in result.graph.node[:-1] for output in node.output} <= names
        np.testing.assert_allclose(run(result, {"input": feeds["x"]})[0], run(proto, feeds)[0], atol=2e-4)


def test_the_model_is_as_it_was() -> None:
    model = ir.from_proto(heavy())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    light = weightless(model)
    assert [value.name for value in light.graph.input] == ["x", "w", "f"]
    assert [tensor.name for tensor in light.graph.initializer] == ["s", "b"]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_it_is_as_it_was_after_an_error() -> None:
    proto = heavy()
    proto.graph.node[2].input[1] = "w"  # a matrix of the wrong rank
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(onnx.shape_inference.InferenceError):
        infer_shapes(model, strict=True)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        check(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_shapes_are_those_that_the_weights_give() -> None:
    proto = heavy()
    model = ir.from_proto(proto)
    infer_shapes(model, strict=True)
    whole = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    expected = {value.name: value.type for value in whole.graph.value_info}
    values = {value.name: value.type for value in ir.to_proto(model).graph.value_info if value.name in expected}
    assert values == expected and len(values) == 3


def test_the_checker_still_checks() -> None:
    proto = heavy()
    proto.graph.node[0].op_type = "Convolution"
    with pytest.raises(onnx.checker.ValidationError):
        check(ir.from_proto(proto))
    good = heavy()
    check(ir.from_proto(good))
    assert numpy_helper.to_array(good.graph.initializer[0]).shape == (256, 3, 3, 3)
