"""An exporter's graph in, the deployable one out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporters.passes import PASSES, check_supported, clean
from runtime.errors import ExportFailed
from tests.exporters.graphs import normal, parse
from tests.exporters.passes.graph import operators, run, small


@pytest.mark.parametrize("opset", [13, 15, 17, 18, 20, 21, 22, 23])
def test_what_clean_promises(opset: int) -> None:
    raw = small(opset)
    expected = {batch: run(raw, image=normal(batch, 3, 8, 8, seed=batch))[0] for batch in (1, 3)}
    result = clean(raw, opset=opset, batch=None)
    assert operators(result) == "Conv Relu GlobalAveragePool Flatten Gemm"
    assert [value.name for value in (*result.graph.input, *result.graph.output)] == ["input", "logits"]
    assert [
        dim.dim_param
        for value in (*result.graph.input, *result.graph.output)
        for dim in value.type.tensor_type.shape.dim[:1]
    ] == ["batch", "batch"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in result.graph.value_info} <= {"batch", ""}
    assert [(entry.domain, entry.version) for entry in result.opset_import] == [("", opset)]
    assert {value.name: value.dims for value in result.graph.initializer} == {
        "conv1.weight": [5, 3, 3, 3], "head.weight": [5, 4], "head.bias": [4]
    }  # fmt: skip
    for batch, logits in expected.items():
        # A mean of 36 and a dense layer of 5, in another order.
        np.testing.assert_allclose(run(result, input=normal(batch, 3, 8, 8, seed=batch))[0], logits, atol=1e-5)


def test_a_frozen_batch() -> None:
    result = clean(small(batch="2"), opset=18, batch=2)
    for value in (*result.graph.input, *result.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 2
    assert run(result, input=normal(2, 3, 8, 8))[0].shape == (2, 4)


def test_the_same_graph_gives_the_same_bytes() -> None:
    """Whatever the exporter called things in its process; what it gave stays as it was."""
    other = small()
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"tmp_{name}_93" for name in names]
    for value in (*other.graph.input, *other.graph.output, *other.graph.initializer):
        value.name = f"tmp_{value.name}_93"
    before = other.SerializeToString(deterministic=True)
    first, second = (clean(proto, opset=18, batch=None) for proto in (small(), other))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert other.SerializeToString(deterministic=True) == before


def test_intermediate_shapes_are_those_of_the_result() -> None:
    """The exporter's own notes say NHWC; what the artifact says must be what it computes."""
    text = (
        "(float[N,8,8,3] x) => (float[N,4] y) { t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv(t, w) "
        "u = Transpose<perm = [0, 2, 3, 1]>(c) r = Relu(u) m = ReduceMean<keepdims = 0>(r, axes) y = MatMul(m, f) }"
    )
    raw = parse(text, w=normal(5, 3, 3, 3), f=normal(5, 4), axes=np.array([1, 2]))
    result = clean(onnx.shape_inference.infer_shapes(raw), opset=18, batch=None)
    assert operators(result) == "Conv Relu GlobalAveragePool Flatten Gemm"
    weights = {value.name for value in result.graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in result.graph.value_info
        if value.name not in weights
    }
    assert shapes == {"conv": [0, 5, 6, 6], "relu": [0, 5, 6, 6], "reducemean": [0, 5, 1, 1], "flatten": [0, 5]}
    image = normal(3, 8, 8, 3)
    expected = run(raw, x=image)[0]
    np.testing.assert_allclose(
        run(result, input=np.ascontiguousarray(image.transpose(0, 3, 1, 2)))[0], expected, atol=1e-5
    )


def test_every_pass_has_its_part_in_a_keras_network() -> None:
    """BatchNorm behind a depthwise Conv, a swish spelled out, zeros before a pool, Flatten: as tf2onnx has them."""
    text = (
        "(float[N,8,8,3] x) => (float[N,5] y) { t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv<group = 3>(t, w) "
        "u = Transpose<perm = [0, 2, 3, 1]>(c) m = Mul(u, scale) a = Add(m, shift) "
        "p = Add(a, three) q = Clip(p, nil, six) r = Mul(q, sixth) h = Mul(a, r) "
        "i = Relu(h) z = Pad(i, pads) n = Transpose<perm = [0, 3, 1, 2]>(z) "
        "o = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(n) v = Transpose<perm = [0, 2, 3, 1]>(o) "
        "s = Shape(v) b = Slice(s, zero, one, zero) k = Concat<axis = 0>(b, rest) "
        "f = Reshape(v, k) d = MatMul(f, dense) y = Add(d, bias) }"
    )
    weights = {
        "w": normal(3, 1, 3, 3), "scale": normal(3), "shift": normal(3), "dense": normal(27, 5), "bias": normal(5),
        "three": np.float32(3), "nil": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6),
        "pads": np.array([0, 1, 1, 0, 0, 1, 1, 0]), "zero": np.array([0]), "one": np.array([1]), "rest": np.array([27]),
    }  # fmt: skip
    raw = parse(text, **weights)
    images = normal(3, 8, 8, 3)
    expected = run(raw, x=images)[0]
    result = clean(raw, opset=18, batch=None)
    assert operators(result) == "Conv HardSwish Relu MaxPool Reshape Gemm"
    # Weights scaled beforehand, a swish and a dense layer of 27.
    np.testing.assert_allclose(
        run(result, input=np.ascontiguousarray(images.transpose(0, 3, 1, 2)))[0], expected, atol=1e-4
    )


def test_shapes_that_are_computed_are_settled() -> None:
    """Keras' Flatten, as tf2onnx writes it for a free batch."""
    text = (
        "(float[N,3,4,2] x) => (float[N,5] y) { r = Relu(x) h = Shape(r) c = Cast<to = 6>(h) "
        "n = Slice(c, zero, one, zero) t = Concat<axis = 0>(n, rest) s = Cast<to = 7>(t) "
        "f = Reshape(r, s) y = MatMul(f, w) }"
    )
    weights = {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([24], np.int32), "w": normal(24, 5)}
    for opset in (15, 18, 21):
        assert operators(clean(parse(text, opset=opset, **weights), opset=opset, batch=None)) == "Relu Reshape Gemm"


def test_three_rows_are_not_three_channels() -> None:
    """NCHW with the width of a picture of 3 columns stays as it is."""
    raw = parse("(float[N,3,5,3] x) => (float[N,45] y) { y = Flatten(x) }")
    result = clean(raw, opset=18, batch=None)
    assert [dim.dim_value for dim in result.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 5, 3]


@pytest.mark.parametrize("written", [17, 20])
def test_another_opset_than_asked_is_refused(written: int) -> None:
    with pytest.raises(ExportFailed, match=f"opset {written} instead of 18: choose --opset {written}"):
        clean(small(written), opset=18, batch=None)


def two_inputs() -> onnx.ModelProto:
    return parse("(float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Add(x, z) }")


def if_branch() -> onnx.ModelProto:
    return parse("""(float[N,4] x) => (float[N,4] y) { s = ReduceSum<keepdims = 0>(x) k = Cast<to = 9>(s) y = If (k) <
        then_branch = one () => (float[N,4] p) { p = Relu(x) },
        else_branch = two () => (float[N,4] q) { q = Neg(x) } > }""")


def loop() -> onnx.ModelProto:
    return parse(
        """(float[N,4] x) => (float[N,4] y) { y = Loop (three, , x) <body = step (int64 i, bool c, float[N,4] a)
        => (bool d, float[N,4] b) { d = Identity(c) b = Relu(a) }> }""",
        three=np.array(3),
    )


def foreign() -> onnx.ModelProto:
    proto = parse("(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.add(domain="com.example", version=1)
    return proto


REFUSED = {
    "two inputs": (two_inputs, "one input .* wrote 2: x, z"),
    "two outputs": (
        lambda: parse("(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = Neg(x) }"),
        "one output .* wrote 2: y, z",
    ),
    "a default that can be replaced": (
        lambda: parse("(float[N,4] x, float[4] b) => (float[N,4] y) { y = Add(x, b) }", b=normal(4)),
        "wrote 2: x, b",
    ),
    "no shape": (lambda: parse("(float[] x) => (float[] y) { y = Relu(x) }"), "one input of known shape"),
    "If": (if_branch, r"If \(layer if\): .*control flow"),
    "Loop": (loop, r"Loop \(layer loop\): .*control flow"),
    "an operator of TensorFlow": (
        lambda: parse("(float[N,4] x) => (float[N,4] y) { y = Erfc(x) }"),
        "Erfc .*opset 18 does not have",
    ),
    "an operator of another domain": (foreign, "Relu .*opset 18 does not have"),
    "an operator of a later opset": (
        lambda: parse("(float[N,4] x) => (float[N,4] y) { y = Gelu(x) }"),
        "Gelu .*opset 18 does not have",
    ),
    "a constant": (
        lambda: parse("(float[N,4] x) => (float[1,4] b) { r = Relu(x) }", b=normal(1, 4)),
        "no operator computes the output",
    ),
    "shapes that contradict": (lambda: parse("(float[N,4] x) => (float[N,5] y) { y = Relu(x) }"), "not valid ONNX"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(ExportFailed, match=message) as caught:
        clean(build(), opset=18, batch=None)
    assert "\n" not in str(caught.value)


def test_a_branch_that_is_settled_is_no_control_flow() -> None:
    """Exporters leave If nodes on training flags; the optimizer decides them."""
    proto = parse(
        """(float[N,4] x) => (float[N,4] y) { y = If (k) < then_branch = one () => (float[N,4] p) { p = Relu(x) },
        else_branch = two () => (float[N,4] q) { q = Neg(x) } > }""",
        k=np.array(True),
    )
    assert operators(clean(proto, opset=18, batch=None)) == "Relu"


def test_every_pass_is_named_in_the_table_once() -> None:
    counts = Counter(step.__name__ for step in PASSES)
    assert set(counts.values()) == {1}
    assert [step.__name__ for step in PASSES][-2:] == ["rename", "strip"]


def test_weights_larger_than_the_optimizer_folds_by_itself() -> None:
    """tf2onnx leaves the weights as Keras lays them out, and their own Reshape and Transpose."""
    body = "k = Transpose<perm = [3, 2, 0, 1]>(w) d = Reshape(k, s) c = Conv<group = 1024>(x, d) scores = Relu(c)"
    proto = parse(f"(float[N,1024,5,5] x) => (float[N,1024,3,3] scores) {{ {body} }}",
                  w=normal(3, 3, 1024, 1), s=np.array([1024, 1, 3, 3]))  # fmt: skip
    proto.graph.node[1].input[0] = "k"
    result = clean(proto, opset=18, batch=None)
    assert operators(result) == "Conv Relu"
    feeds = normal(2, 1024, 5, 5)
    np.testing.assert_allclose(run(result, input=feeds)[0], run(proto, x=feeds)[0], atol=1e-5)


def test_masks_built_on_zeros_are_constants() -> None:
    """Swin builds the mask of its shifted windows at run time, of nothing but numbers."""
    body = "z = ConstantOfShape(t) m = ScatterND(z, i, u) a = Add(x, m) y = Relu(a)"
    proto = parse(f"(float[N,4] x) => (float[N,4] y) {{ {body} }}",
                  t=np.array([4]), i=np.array([[1], [3]]), u=np.array([-5, 2], np.float32))  # fmt: skip
    assert operators(clean(proto, opset=18, batch=None)) == "Add Relu"


# ---- check_supported on its own: what a model may be


def test_check_supported_changes_nothing() -> None:
    model = ir.from_proto(small())
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    check_supported(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
