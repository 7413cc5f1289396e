"""The road's middle: an exporter's graph in, the deployable one out."""

from __future__ import annotations

import string
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from exporters.passes import PASSES, check_supported, clean, explain_layer, rename, strip
from runtime.errors import ExportFailed
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


# ---- clean


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


# ---- rename


def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    rename(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    return result


NAMES = st.text(string.printable + "éß漢\u200b", max_size=6) | st.sampled_from(
    ["input", "logits", "conv", "conv.weight", "conv_2", "add.const1", "", "///", "a/b:0", "split.1"]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(names=st.lists(NAMES, min_size=6, max_size=6))
def test_names_are_unique_and_plain_whatever_the_layers_are_called(names: list[str]) -> None:
    text = (
        "(float[N,2,4,4] x) => (float[] y) { a = Conv(x, w, b) c = Add(a, k) "
        "d, e = Split<axis = 1, num_outputs = 2>(c) f = Mul(d, e) g = Conv(f, v, b) y = Add(g, k) }"
    )
    proto = parse(text, w=normal(2, 2, 1, 1), b=normal(2), k=np.float32(2), v=normal(2, 1, 1, 1))
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    result = renamed(proto)
    nodes = [node.name for node in result.graph.node]
    values = [name for node in result.graph.node for name in node.output] + [
        value.name for value in result.graph.initializer
    ]
    assert len(set(nodes)) == len(nodes)
    assert len({*values, "input"}) == len(values) + 1
    allowed = set(string.ascii_letters + string.digits + "_.-")
    assert all(name and set(name) <= allowed for name in (*nodes, *values))
    assert (result.graph.input[0].name, result.graph.output[0].name) == ("input", "logits")
    image = normal(3, 2, 4, 4)
    np.testing.assert_array_equal(run(result, input=image)[0], run(proto, x=image)[0])


def test_names_of_second_outputs_can_be_taken() -> None:
    text = "(float[N,4] x) => (float[] y) { a = Neg(x) b, c = Split<axis = 1, num_outputs = 2>(a) y = Add(b, c) }"
    proto = parse(text)
    for node, name in zip(proto.graph.node, ("split.1", "split", "add"), strict=True):
        node.name = name
    assert [list(node.output) for node in renamed(proto).graph.node] == [
        ["split.1"],
        ["split", "split.1_2"],
        ["logits"],
    ]


def test_a_node_that_onnx_ir_numbered_has_no_name() -> None:
    proto = parse("(float[N,4] x) => (float[] y) { a = Neg(x) b = Relu(a) y = Abs(b) }")
    for node, name in zip(proto.graph.node, ("node_Neg_7", "node_Neg_8", "node_1"), strict=True):
        node.name = name
    assert [node.name for node in renamed(proto).graph.node] == ["neg", "node_Neg_8", "node_1"]


def test_weights_may_already_bear_the_names_of_others() -> None:
    weights = {"v": normal(2, 2, 1, 1), "w": normal(2, 2, 1, 1, seed=1)}
    proto = parse("(float[N,2,4,4] x) => (float[] y) { c = Conv(x, v) y = Conv(c, w) }", **weights)
    for node, layer, other, initializer in zip(proto.graph.node, "ab", "ba", proto.graph.initializer, strict=True):
        node.name, node.input[1], initializer.name = layer, f"{other}.weight", f"{other}.weight"
    image = normal(3, 2, 4, 4)
    expected = run(proto, x=image)[0]
    result = renamed(proto)
    assert [node.input[1] for node in result.graph.node] == ["a.weight", "b.weight"]
    np.testing.assert_array_equal(run(result, input=image)[0], expected)


def test_weights_are_named_for_their_first_reader() -> None:
    text = "(float[N,2,4,4] x) => (float[] y) { a = Conv(x, w, b) c = Conv(a, w, b) d = PRelu(c, k) y = Mul(d, k) }"
    proto = parse(text, w=normal(2, 2, 1, 1), b=normal(2), k=normal(2, 1, 1))
    for node, name in zip(proto.graph.node, ("block.0", "block.1", "act", "act"), strict=True):
        node.name = name
    result = renamed(proto)
    shared = ["block.0.weight", "block.0.bias"]
    slope = ["act.prelu.const1"]
    assert [list(node.input[1:]) for node in result.graph.node] == [shared, shared, slope, slope]
    assert [node.name for node in result.graph.node] == ["block.0", "block.1", "act.prelu", "act"]


def test_outputs_that_are_left_out_stay_so() -> None:
    """An empty name means "not wanted"; a name would ask for it."""
    text = "(float[N,6] x) => (float[] y) { n, m, v = LayerNormalization(x, s) y = Mul(n, v) }"
    proto = parse(text, s=np.ones(6, np.float32))
    proto.graph.node[0].output[1] = ""
    result = renamed(proto)
    assert list(result.graph.node[0].output) == ["layernormalization", "", "layernormalization.2"]


# ---- strip

SECRET = "/home/ada/project/net.py"


def test_nothing_of_the_machine_is_left() -> None:
    proto = small()
    proto.producer_name = proto.producer_version = proto.domain = proto.doc_string = SECRET
    proto.model_version = 7
    proto.opset_import.add(domain=f"pkg{SECRET}", version=1)
    proto.graph.name = proto.graph.doc_string = SECRET
    proto.graph.value_info.extend([helper.make_tensor_value_info("c", 1, ["N", 5, 6, 6])])
    noted = [
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.initializer,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
    ]
    for item in noted:
        item.doc_string = SECRET
        item.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=SECRET)
    proto.graph.node[2].attribute[0].doc_string = SECRET
    expected = run(small(), image=normal(3, 3, 8, 8))[0]
    model = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))  # rename reaches into its tensors
    rename(model)
    strip(model)
    for result in (ir.to_proto(model), clean(proto, opset=18, batch=None)):
        assert b"ada" not in result.SerializeToString()
        assert (result.producer_name, result.producer_version, result.model_version) == ("edgezoo", "", 0)
        assert [entry.domain for entry in result.opset_import] == [""]
        np.testing.assert_allclose(run(result, input=normal(3, 3, 8, 8))[0], expected, atol=1e-5)


# ---- explain_layer


def layer_of(body: str, *, dims: str = "N,3,8,8", **weights: Any) -> str | None:
    proto = parse(f"(float[{dims}] x) => (float[] y) {{ {body} }}", w=normal(5, 3, 3, 3), **weights)
    for node in proto.graph.node:
        node.name = node.output[0]
    return explain_layer(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def test_the_last_map_with_an_extent_in_space() -> None:
    head = " g = GlobalAveragePool(r) f = Flatten(g) y = Neg(f)"
    assert layer_of("c = Conv(x, w) r = Relu(c)" + head) == "r"
    # One number per channel shows nothing; a row does.
    assert layer_of("c = Conv(x, w) r = Conv(c, v)" + head, v=normal(5, 5, 6, 6)) == "c"
    assert layer_of("c = Conv(x, w) r = Conv(c, v)" + head, v=normal(5, 5, 6, 1)) == "r"
    # What only picks or averages shows less than what it picks from.
    for kind in ("MaxPool", "AveragePool"):
        assert layer_of(f"c = Conv(x, w) p = Relu(c) r = {kind}<kernel_shape = [3, 3]>(p)" + head) == "p"
    # A gate comes after the map it weighs, but is none.
    gated = "c = Conv(x, w) a = GlobalAveragePool(c) s = Sigmoid(a) r = Mul(c, s)"
    assert layer_of(gated + head) == "r"


def test_what_has_four_axes_but_is_no_map() -> None:
    nhwc = "c = Conv(x, w) g = GlobalAveragePool(c) r = Reshape(g, s) f = Flatten(r) y = Neg(f)"
    assert layer_of(nhwc, s=np.array([-1, 1, 1, 5])) == "c"
    turned = "c = Conv(x, w) g = GlobalAveragePool(c) t = Transpose<perm = [0, 2, 3, 1]>(g) f = Flatten(t) y = Neg(f)"
    assert layer_of(turned) == "c"


def test_transformers_and_maps_that_lie_channels_last() -> None:
    """The last map is what is averaged at the end; attention has four axes too and is none."""
    stem = "c = Conv(x, w) t = Transpose<perm = [0, 2, 3, 1]>(c) "
    head = "n = Transpose<perm = [0, 3, 1, 2]>(l) g = GlobalAveragePool(n) f = Flatten(g) y = Neg(f)"
    norm = {"s": normal(5), "b": normal(5)}
    assert layer_of(f"{stem} l = LayerNormalization(t, s, b) {head}", **norm) == "n"
    assert layer_of(f"{stem} m = MatMul(t, v) l = Relu(m) {head}", v=normal(5, 5)) == "n"
    after = "n = Transpose<perm = [0, 3, 1, 2]>(t) g = GlobalAveragePool(n) r = Transpose<perm = [0, 2, 3, 1]>(g) "
    assert layer_of(f"{stem} {after} l = LayerNormalization(r, s, b) f = Flatten(l) y = Neg(f)", **norm) == "n"
    attention = "c = Conv(x, w) k = Transpose<perm = [0, 1, 3, 2]>(c) a = MatMul(c, k) p = Softmax(a) f = Flatten(p)"
    assert layer_of(f"{attention} y = Neg(f)") is None
    # A dense layer and a softmax at the end are no attention.
    dense = "c = Conv(x, w) r = Relu(c) p = MaxPool<kernel_shape = [2, 2]>(r) f = Flatten(p) m = MatMul(f, v)"
    assert layer_of(f"{dense} o = Softmax(m) y = Neg(o)", v=normal(125, 4)) == "r"


def test_no_map_at_all() -> None:
    assert layer_of("f = Flatten(x) y = Neg(f)") is None
    assert layer_of("y = Relu(x)", dims="N,8") is None


# ---- both exporters, networks of a few layers

# Some hundred float32 roundings, folded otherwise; as part of the largest logit.
PARITY = 1e-5


def relative(given: Array, expected: Array) -> float:
    assert given.shape == expected.shape
    return float(np.abs(given - expected).max() / np.abs(expected).max())


def default_session(proto: onnx.ModelProto, images: Array) -> Array:
    """With onnxruntime's own optimizer, as the artifact will be run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, {"input": images})[0]
    return logits


def torch_networks() -> dict[str, tuple[Any, str]]:
    """By name: a network, and the operators its artifact may have."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Mobile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
            self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
            self.less, self.more = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5))

        def forward(self, images: Any) -> Any:
            stem = self.stem(images)
            deep = self.deep(stem)
            gate = functional.hardsigmoid(self.more(torch.relu(self.less(deep.mean((2, 3), keepdim=True)))))
            return self.head(stem + deep * gate)

    class Spelled(nn.Module):
        """As older code has it: activations written out, zeros padded before a pool of raw numbers, a shuffle."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, images: Any) -> Any:
            maps = functional.max_pool2d(functional.pad(self.conv(images), (1, 1, 1, 1)), 3, 2)
            maps = torch.relu(self.norm(maps))
            batch, channels, height, width = maps.shape
            maps = (
                maps.view(batch, 2, channels // 2, height, width)
                .transpose(1, 2)
                .reshape(batch, channels, height, width)
            )
            maps = maps * functional.relu6(maps + 3) / 6
            return self.fc(maps.mean([2, 3]).view(batch, -1))

    common = "Conv Relu GlobalAveragePool Gemm Reshape Mul Add"
    return {
        "mobile": (Mobile(), f"{common} HardSwish HardSigmoid Clip"),
        "spelled": (Spelled(), f"{common} BatchNormalization Pad MaxPool Transpose HardSwish"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("name", ["mobile", "spelled"])
def test_torch(name: str, opset: int) -> None:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, allowed = torch_networks()[name]
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    free = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, 16, 16),), dynamo=True, opset_version=opset, dynamic_shapes=free, verbose=False
    )
    result = clean(program.model_proto, opset=opset, batch=None)
    assert set(operators(result).split()) <= set(allowed.split())
    for batch in (1, 3):
        images = normal(batch, 3, 16, 16, seed=batch)
        assert relative(default_session(result, images), network(torch.from_numpy(images)).numpy()) < PARITY


@pytest.mark.slow
def test_torch_below_18_is_refused_in_so_many_words() -> None:
    """Its exporter writes 18 and only warns when it cannot convert to what was asked."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(5)).eval()
    network(torch.zeros(1, 3, 8, 8))

    class Mean(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            return network(images - images.mean((2, 3), keepdim=True))

    program = torch.onnx.export(Mean().eval(), (torch.zeros(2, 3, 8, 8),), dynamo=True, opset_version=15, verbose=False)
    with pytest.raises(ExportFailed, match="wrote opset 18 instead of 15: choose --opset 18"):
        clean(program.model_proto, opset=15, batch=2)


def keras_networks() -> dict[str, Any]:
    """Networks of 16x16 pictures."""
    import keras
    from keras import layers

    def norm(maps: Any) -> Any:
        return layers.BatchNormalization()(maps)

    def model(body: Any) -> Any:
        pictures = layers.Input((16, 16, 3))
        return keras.Model(pictures, body(pictures))

    def separable(maps: Any) -> Any:
        maps = layers.ZeroPadding2D(((0, 1), (0, 1)))(maps)
        maps = norm(layers.Conv2D(8, 3, strides=2, use_bias=False)(maps))
        deep = layers.ReLU(6.0)(norm(layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(maps)))
        maps = layers.MaxPooling2D(3, 2, padding="same")(layers.Add()([maps, deep]))
        return layers.Dense(5)(layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(maps)))

    def hard(maps: Any) -> Any:
        maps = layers.Activation("hard_swish")(norm(layers.Conv2D(8, 3, strides=2, padding="same")(maps)))
        gate = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(maps))
        maps = layers.Multiply()([maps, layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
        maps = layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(maps))
        return layers.Flatten()(maps)

    def slopes(maps: Any) -> Any:
        maps = layers.LeakyReLU()(layers.Conv2D(8, 3)(maps))
        maps = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal")(maps)
        maps = layers.PReLU(alpha_initializer="random_normal")(layers.AveragePooling2D(2)(maps))
        return layers.Dense(5)(layers.Flatten()(maps))

    def gated(maps: Any) -> Any:
        maps = layers.Rescaling(1 / 127.5, offset=-1)(maps)
        maps = layers.Activation("silu")(layers.Conv2D(8, 3, padding="same")(maps))
        gate = layers.Dense(8, activation="sigmoid")(
            layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(maps))
        )
        maps = layers.Multiply()([maps, layers.Reshape((1, 1, 8))(gate)])
        maps = layers.Concatenate()([maps, layers.Softmax()(layers.Conv2D(8, 1)(maps))])
        maps = layers.Conv2D(6, 3)(layers.Cropping2D(((1, 0), (2, 1)))(maps))
        return layers.Dense(5)(layers.GlobalMaxPooling2D()(maps))

    def preactivated(maps: Any) -> Any:
        maps = layers.Conv2D(8, 3, padding="same", bias_initializer=keras.initializers.Constant(-3))(maps)
        maps = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(maps))
        maps = layers.Conv2D(8, 3)(layers.Activation("relu")(norm(maps)))
        return layers.Dense(5)(layers.GlobalAveragePooling2D()(maps))

    bodies = {"separable": separable, "hard": hard, "slopes": slopes, "gated": gated, "preactivated": preactivated}
    return {name: model(body) for name, body in bodies.items()}


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 15, 17, 18])
@pytest.mark.parametrize("name", ["separable", "hard", "slopes", "gated", "preactivated"])
def test_keras(name: str, opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow
    import tf2onnx

    keras.utils.set_random_seed(0)
    network = keras_networks()[name]
    rng = np.random.default_rng(0)
    for variable in network.weights:
        if "moving" in variable.path or "gamma" in variable.path or "beta" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    signature = [tensorflow.TensorSpec((None, 16, 16, 3), tensorflow.float32, name="input")]
    raw, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=opset)
    result = clean(raw, opset=opset, batch=None)
    counts = Counter(operators(result).split())
    assert not counts["BatchNormalization"] + counts["ReduceMean"]
    if opset < 15 and name == "slopes":  # no inference sees through a Shape there: Flatten is computed at run time
        assert counts["Transpose"] == 1
    else:
        assert not counts["Transpose"] + counts["Shape"] + counts["MatMul"]
    if name == "hard":
        assert (counts["HardSwish"], counts["HardSigmoid"]) == ((1, 1) if opset >= 14 else (0, 2))
    for batch in (1, 3):
        images = 100 * normal(batch, 16, 16, 3, seed=batch)
        expected = np.asarray(network(images, training=False))
        runner = default_session if opset >= 18 or name != "preactivated" else lambda proto, x: run(proto, input=x)[0]
        assert relative(runner(result, np.ascontiguousarray(images.transpose(0, 3, 1, 2))), expected) < PARITY
