"""Names are unique, plain and the layers' own; nothing of the machine is left."""

from __future__ import annotations

import string

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from exporters.passes import clean, rename, strip
from tests.exporters.graphs import normal, parse
from tests.exporters.passes.graph import run, small

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
