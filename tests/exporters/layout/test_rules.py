"""Sinking Transposes changes no value: each rule, and what must stay where it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from exporters import layout
from tests.exporters.graphs import parse, run
from tests.exporters.layout.whole_numbers import NCHW, NHWC, feeds_for, operators


def sunk(proto: onnx.ModelProto, *, left: int) -> onnx.ModelProto:
    """The model after sinking; checked to be valid, to compute the same, and to have ``left`` Transposes."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    layout.sink_transposes(model.graph)
    result = ir.to_proto(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(result, strict_mode=True), full_check=True)
    for batch in (1, 3):
        feeds = feeds_for(proto, batch)
        for before, after in zip(run(proto, feeds), run(result, feeds), strict=True):
            np.testing.assert_array_equal(after, before)
    assert operators(result)["Transpose"] == left, helper.printable_graph(result.graph)
    return result


def between(
    body: str, *, dims: str = "N,2,4,8", outputs: str = "y", opset: int = 18, **weights: Any
) -> onnx.ModelProto:
    """x (NCHW) -> Transpose -> t (NHWC) -> ``body`` -> o, p, ... -> Transpose -> outputs (NCHW)."""
    names = dict(zip(outputs.split(), "opq", strict=False))
    back = " ".join(f"{name} = Transpose<{NCHW}>({inner})" for name, inner in names.items())
    declared = ", ".join(f"float[] {name}" for name in names)
    return parse(
        f"(float[{dims}] x) => ({declared}) {{ t = Transpose<{NHWC}>(x) {body} {back} }}", opset=opset, **weights
    )


# ---- every rule has a case: below it no Transpose is left

ROW = np.array([1, -2], np.float32)  # one number per channel

CASES: dict[str, onnx.ModelProto] = {
    "Transpose": between("o = Identity(t)"),
    "Pad": between("o = Pad(t, pads)", pads=np.array([0, 1, 2, 0, 0, 3, 4, 0])),
    "Slice": between(
        "o = Slice(t, starts, ends, axes)", starts=np.array([1, 2]), ends=np.array([3, 7]), axes=np.array([1, -2])
    ),
    "Reshape": parse(
        f"(float[N,16,1,1] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) y = Reshape(t, s) }}", s=np.array([-1, 16])
    ),
    "Flatten": parse(f"(float[N,16,1,1] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) y = Flatten(t) }}"),
    "Split": between("o, p = Split<axis = 2>(t, s)", outputs="y z", s=np.array([3, 5])),
    "Concat": between("a = Neg(t) o = Concat<axis = -1>(t, c, a)", dims="3,2,4,8", c=np.ones((3, 4, 8, 5), np.float32)),
    "PRelu": between("o = PRelu(t, c)", c=ROW),
    "Pow": between("o = Pow(t, c)", c=np.float32(2)),
    "Squeeze": parse(
        f"(float[N,16,1,1] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) y = Squeeze(t, axes) }}",
        axes=np.array([1, -2]),
    ),
    "Cast": between("a = Cast<to = 6>(t) o = Cast<to = 1>(a)"),
    "Clip": between("o = Clip(t, low)", low=np.float32(-1)),
    "Round": between("h = Mul(t, half) o = Round(h)", half=np.float32(0.5)),
    "Log": between("a = Abs(t) b = Add(a, one) o = Log(b)", one=np.float32(1)),
    "Sqrt": between("a = Abs(t) o = Sqrt(a)"),
    "Reciprocal": between("a = Abs(t) b = Add(a, one) o = Reciprocal(b)", one=np.float32(1)),
    "Div": between("o = Div(t, c)", c=ROW),
    "Gelu": between("o = Gelu(t)", opset=20),
    **{name: between(f"a = Neg(t) o = {name}(t, a, c)", c=ROW) for name in ("Max", "Min", "Sum", "Mean")},
    **{name: between(f"o = {name}(t, c)", c=ROW) for name in ("Add", "Sub", "Mul")},
    **{name: between(f"o = {name}<axis = 3>(t)") for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{
        name: between(f"o = {name}(t, axes)", axes=np.array([1, 2]))
        for name in "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare".split()
    },
    **{
        name: between(f"o = {name}(t)")
        for name in "Relu Sigmoid HardSigmoid HardSwish Tanh Elu Selu Celu LeakyRelu ThresholdedRelu Softplus Softsign "
        "Mish Erf Exp Neg Abs Sign Floor Ceil Identity".split()
    },
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(layout._RULES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_sinks_through(name: str) -> None:
    assert name == "Transpose" or operators(CASES[name])[name]
    sunk(CASES[name], left=0)


def test_opset_13_keeps_axes_in_attributes() -> None:
    mean = between("o = ReduceMean<axes = [-2, 1]>(t)", opset=13)
    result = sunk(mean, left=0)
    (node,) = (node for node in result.graph.node if node.op_type == "ReduceMean")
    assert len(node.input) == 1
    flat = parse(
        f"(float[N,2,4,8] x) => (float[] y) "
        f"{{ t = Transpose<{NHWC}>(x) y = ReduceMean<axes = [1, 2], keepdims = 0>(t) }}",
        opset=13,
    )
    sunk(flat, left=0)


# ---- constants: broadcasting aligns shapes from the right, in either layout


@pytest.mark.parametrize(
    "shape", [(), (1,), (2,), (8, 1), (1, 2), (4, 1, 1), (4, 8, 2), (1, 1, 1, 1), (1, 1, 1, 2), (1, 4, 8, 2)], ids=str
)
@pytest.mark.parametrize("body", ["o = Sub(t, c)", "o = Sub(c, t)"])
def test_constants_turn_with_the_layout(body: str, shape: tuple[int, ...]) -> None:
    values = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    result = sunk(between(body, c=values), left=0)
    if values.size == 1:  # the same number, whichever way it is turned
        assert [(value.name, tuple(value.dims)) for value in result.graph.initializer] == [("c", shape)]


def test_new_names_are_free() -> None:
    sunk(between("c_nchw = Add(t, c) o = Add(c_nchw, c_nchw)", c=ROW), left=0)


def test_split_of_the_first_axis() -> None:
    """Where the attribute is left out, Split means axis 0 and Softmax the last."""
    sunk(between("o, p = Split(t, s)", dims="3,2,4,8", outputs="y z", s=np.array([1, 2])), left=0)
    sunk(between("o = Softmax(t)"), left=0)


def test_a_constant_may_widen_the_result() -> None:
    sunk(between("o = Add(t, c)", dims="N,1,4,1", c=np.ones((1, 4, 3, 2), np.float32)), left=0)


def test_a_constant_of_more_axes_stops_it() -> None:
    text = f"(float[N,2,4,8] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) o = Add(t, c) y = Relu(o) }}"
    sunk(parse(text, c=np.ones((3, 1, 1, 1, 2), np.float32)), left=1)


def test_a_slope_per_pixel_turns_too() -> None:
    sunk(between("o = PRelu(t, c)", c=np.arange(64, dtype=np.float32).reshape(4, 8, 2)), left=0)


def test_a_computed_operand_stops_it() -> None:
    text = f"(float[N,2,4,8] x, float[2] c) => (float[] y) {{ t = Transpose<{NHWC}>(x) o = Add(t, c) y = Relu(o) }}"
    sunk(parse(text), left=1)


def test_an_input_with_a_default_is_not_a_constant() -> None:
    text = f"(float[N,2,4,8] x, float[2] c) => (float[] y) {{ t = Transpose<{NHWC}>(x) o = Add(t, c) y = Relu(o) }}"
    proto = parse(text, c=ROW)
    model = ir.from_proto(proto)
    layout.sink_transposes(model.graph)
    feeds = feeds_for(proto, 3) | {"c": np.array([7, 9], np.float32)}
    np.testing.assert_array_equal(run(ir.to_proto(model), feeds)[0], run(proto, feeds)[0])


# ---- several operands


PAIRS = {
    "both transposed": ("u = Transpose<perm = [0, 2, 3, 1]>(z) s = Add(t, u)", 0),
    "Concat of both": ("u = Transpose<perm = [0, 2, 3, 1]>(z) s = Concat<axis = 3>(u, t)", 0),
    "Concat, axis from behind": ("u = Transpose<perm = [0, 2, 3, 1]>(z) s = Concat<axis = -3>(u, t)", 0),
    "transposed otherwise": ("u = Transpose<perm = [0, 3, 2, 1]>(z) s = Add(t, u)", 3),
    "one plain": ("s = Add(t, w)", 2),
    "Concat, one plain": ("s = Concat<axis = 3>(w, t)", 2),
    "twice the same": ("s = Mul(t, t)", 0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_operands(name: str) -> None:
    body, left = PAIRS[name]
    text = (
        f"(float[N,4,4,4] x, float[N,4,4,4] z, float[N,4,4,4] w) => (float[] y) "
        f"{{ t = Transpose<{NHWC}>(x) {body} r = Relu(s) y = Transpose<{NCHW}>(r) }}"
    )
    sunk(parse(text), left=left)


def test_gate_of_dense_layers() -> None:
    """Squeeze-and-excite as users write it: the gate is reshaped to NHWC, never transposed."""
    gate = "m = ReduceMean<keepdims = 0>(t, axes) d = MatMul(m, w) g = Reshape(d, target) o = Mul(t, g)"
    weights = {"axes": np.array([1, 2]), "w": np.eye(2, dtype=np.float32) * 3}
    sunk(between(gate, target=np.array([-1, 1, 1, 2]), **weights), left=0)
    sunk(between(gate, target=np.array([0, 1, 1, 2]), **weights), left=0)
    # A gate per pixel is data that moves.
    sunk(
        between("g = Reshape(c, s) o = Mul(t, g)", c=np.arange(64, dtype=np.float32), s=np.array([1, 4, 8, 2])), left=2
    )


def test_every_reader_is_served() -> None:
    text = (
        f"(float[N,2,4,8] x) => (float[] y, float[] z) {{ t = Transpose<{NHWC}>(x) a = Relu(t) b = Neg(t) "
        f"c = Add(a, b) y = Transpose<{NCHW}>(c) d = Identity(b) z = MatMul(d, w) }}"
    )
    sunk(parse(text, w=np.ones((2, 3), np.float32)), left=1)  # for the MatMul alone


# ---- what cannot move stays, and stays right


STOPPED = {
    "a Transpose that is the output": ("y = Transpose<perm = [0, 2, 3, 1]>(x)", 1),
    "a reader that is the output": ("t = Transpose<perm = [0, 2, 3, 1]>(x) y = Relu(t)", 1),
    "two readers in one": ("t = Transpose<perm = [0, 2, 3, 1]>(x) u = Neg(t) y = Concat<axis = 3>(t, u)", 1),
    "a mean that is the output": ("t = Transpose<perm = [0, 2, 3, 1]>(x) y = ReduceMean(t, three)", 1),
    "no rule": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = CumSum(t, three) y = Relu(a)", 1),
    "Flatten of a map": ("t = Transpose<perm = [0, 2, 3, 1]>(x) y = Flatten(t)", 1),
    "Reshape of a map": ("t = Transpose<perm = [0, 2, 3, 1]>(x) y = Reshape(t, flat)", 1),
    "order of the rest": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = ReduceSum<keepdims = 0>(t, two) y = Neg(a)", 1),
    "axes unknown": ("t = Transpose<perm = [0, 2, 3, 1]>(x) y = ReduceSum<keepdims = 0>(t, given)", 1),
    "axes empty, all of them": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = ReduceSum<keepdims = 0>(t) y = Neg(a)", 1),
    "Pad with axes": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = Pad(t, one, , three) y = Neg(a)", 1),
    "pads unknown": ("t = Transpose<perm = [0, 2, 3, 1]>(x) c = Tile(given, eight) a = Pad(t, c) y = Neg(a)", 1),
    "axes of a Slice unknown": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = Slice(t, two, eight, given) y = Neg(a)", 1),
    "starts unknown": ("t = Transpose<perm = [0, 2, 3, 1]>(x) a = Slice(t, given, given, given) y = Neg(a)", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPPED)
def test_stays(name: str) -> None:
    body, left = STOPPED[name]
    numbers = {"one": [0, 1], "two": [2], "three": [3], "eight": [8], "flat": [-1, 64]}
    weights = {key: np.array(values) for key, values in numbers.items() if key in body}
    proto = parse(f"(float[N,2,4,8] x, int64[1] given) => (float[] y) {{ {body} }}", **weights)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    layout.sink_transposes(model.graph)
    result = ir.to_proto(model)
    assert operators(result)["Transpose"] == left
    for batch in (1, 3):
        feeds = feeds_for(proto, batch) | {"given": np.array([2])}
        np.testing.assert_array_equal(run(result, feeds)[0], run(proto, feeds)[0])


def test_noop_with_empty_axes() -> None:
    sunk(between("o = ReduceSum<noop_with_empty_axes = 1>(t, none)", none=np.zeros(0, np.int64)), left=0)
    sunk(between("o = ReduceSum(t, none)", none=np.zeros(0, np.int64)), left=0)
    text = (
        f"(float[N,2,4,8] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) "
        "a = ReduceSum<keepdims = 0, noop_with_empty_axes = 1>(t, none) y = Neg(a) }"
    )
    sunk(parse(text, none=np.zeros(0, np.int64)), left=1)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_pad_modes(mode: str) -> None:
    pads = np.array([0, 1, 2, 0, 0, 2, 1, 0])
    sunk(between(f'o = Pad<mode = "{mode}">(t, pads)', pads=pads, opset=19), left=0)


def test_pad_value_and_absent_inputs() -> None:
    pads = np.array([0, 1, 2, 1, 0, 0, -1, 0])
    sunk(between("o = Pad(t, pads, seven)", pads=pads, seven=np.float32(7)), left=0)
    sunk(between("o = Clip(t, , high)", high=np.float32(2)), left=0)
    sunk(
        between(
            "o = Slice(t, starts, ends, , steps)",
            starts=np.zeros(4, np.int32),
            ends=np.full(4, 9, np.int32),
            steps=np.array([1, 2, 3, 1], np.int32),
        ),
        left=0,
    )


def test_other_domains_are_not_ours() -> None:
    proto = parse(f"(float[N,2,4,8] x) => (float[] y) {{ t = Transpose<{NHWC}>(x) o = Relu(t) y = Identity(o) }}")
    proto.graph.node[1].domain = "com.example"
    model = ir.from_proto(proto)
    layout.sink_transposes(model.graph)
    assert [node.op_type for node in model.graph] == ["Transpose", "Relu", "Identity"]


# ---- Transpose of Transpose, of Reshape, of any rank


def test_perm_left_out_reverses_the_axes() -> None:
    sunk(parse("(float[N,2,4,8] x) => (float[] y) { t = Transpose(x) o = Relu(t) y = Transpose(o) }"), left=0)
    sunk(parse("(float[N,5] x) => (float[] y) { t = Transpose(x) o = Mul(t, t) y = Identity(o) }"), left=1)


def test_perm_left_out_of_unknown_rank() -> None:
    """Nothing can be said about it, so nothing is done."""
    proto = parse(
        "(float[N,5] x, int64[K] s) => (float[] y) { r = Reshape(x, s) t = Transpose(r) o = Relu(t) y = Transpose(o) }"
    )
    model = ir.from_proto(proto)
    layout.sink_transposes(model.graph)
    assert [node.op_type for node in model.graph] == ["Reshape", "Transpose", "Relu", "Transpose"]


@pytest.mark.parametrize("perm", [(0, 1), (1, 0), (2, 0, 1), (0, 2, 1), (0, 4, 2, 1, 3), (1, 0, 2, 3)], ids=str)
def test_other_ranks(perm: tuple[int, ...]) -> None:
    dims = ",".join(["N", "2", "3", "4", "5"][: len(perm)])
    back = np.argsort(perm).tolist()
    text = (
        f"(float[{dims}] x) => (float[] y) {{ t = Transpose<perm = {list(perm)}>(x) o = Relu(t) p = Add(o, c) "
        f"q = Transpose<perm = {back}>(p) y = Neg(q) }}"
    )
    size = [1, 2, 3, 4, 5][: len(perm)][perm[-1]]  # the last axis of t, where it is not the batch
    sunk(parse(text, c=np.arange(size, dtype=np.float32)), left=0)


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Transposes of one rank with elementwise operators between them."""
    rank = draw(st.integers(2, 5))
    nodes, value = [], "x"
    for index in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["Transpose"] * 3 + ["Relu", "Neg", "Identity"]))
        attributes = {"perm": draw(st.permutations(range(rank)))} if kind == "Transpose" and draw(st.booleans()) else {}
        nodes.append(helper.make_node(kind, [value], [f"v{index}"], **attributes))
        value = f"v{index}"
    nodes.append(helper.make_node("Abs", [value], ["y"]))
    shape = draw(st.permutations([1, 2, 3, 1, 5][:rank]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", 1, shape)],
        [onnx.ValueInfoProto(name="y", type=onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=1)))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(proto=chains())
def test_chains_come_to_at_most_one(proto: onnx.ModelProto) -> None:
    perms = [
        list(node.attribute[0].ints) if node.attribute else None
        for node in proto.graph.node
        if node.op_type == "Transpose"
    ]
    probe = np.empty([2, 3, 4, 5, 6][: len(proto.graph.input[0].type.tensor_type.shape.dim)])
    moved = probe
    for perm in perms:
        moved = moved.transpose(perm)
    sunk(proto, left=int(moved.shape != probe.shape))


RESHAPES = {
    "to unit axes": ("r = Reshape(f, s) y = Transpose<perm = [0, 3, 1, 2]>(r)", (-1, 1, 1, 6), 0),
    "batch copied": ("r = Reshape(f, s) y = Transpose<perm = [0, 3, 1, 2]>(r)", (0, 1, 1, 6), 0),
    "copied axis moves": ("r = Reshape(f, s) y = Transpose<perm = [1, 0, 2, 3]>(r)", (0, 1, 6, 1), 1),
    "data moves": ("r = Reshape(f, s) y = Transpose<perm = [0, 3, 1, 2]>(r)", (-1, 1, 2, 3), 1),
    "the output": ("r = Reshape(f, s) y = Transpose<perm = [0, 3, 1, 2]>(r)", (-1, 1, 1, 6), 0),
    "read twice": ("r = Reshape(f, s) t = Transpose<perm = [0, 3, 1, 2]>(r) y = Add(t, r)", (-1, 1, 1, 6), 1),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_transpose_of_a_reshape(name: str) -> None:
    body, target, left = RESHAPES[name]
    if name != "the output":
        body = body.replace("y =", "o =") + " y = Relu(o)"
    sunk(parse(f"(float[N,6] x) => (float[] y) {{ f = Neg(x) {body} }}", s=np.array(target)), left=left)


def test_a_reshape_that_is_also_an_output_keeps_its_shape() -> None:
    text = f"(float[N,6] x) => (float[] r, float[] y) {{ r = Reshape(x, s) t = Transpose<{NCHW}>(r) y = Relu(t) }}"
    sunk(parse(text, s=np.array([-1, 1, 1, 6])), left=1)


FLATTENED = {
    "Reshape": ("N,6,1,1", NHWC, "Reshape(t, s)", (-1, 6), 0),
    "Reshape copies the batch": ("N,6,1,1", NHWC, "Reshape(t, s)", (0, -1), 0),
    "Reshape copies what moved": ("1,N,1,1", "perm = [1, 0, 2, 3]", "Reshape(t, s)", (0, -1), 1),
    "Flatten": ("N,6,1,1", NHWC, "Flatten(t)", (), 0),
    "Flatten after what moved": ("N,1,1,6", NCHW, "Flatten<axis = 2>(t)", (), 1),
    "Flatten behind what moved": ("N,6,1,1", NHWC, "Flatten<axis = -4>(t)", (), 0),
    "Flatten the moved batch": ("1,N,1,1", "perm = [1, 0, 2, 3]", "Flatten(t)", (), 1),
    "Flatten the moved batch, from behind": ("1,N,1,1", "perm = [1, 0, 2, 3]", "Flatten<axis = -3>(t)", (), 1),
    "Flatten all": ("N,6,1,1", NHWC, "Flatten<axis = 4>(t)", (), 0),
}


@pytest.mark.parametrize("name", FLATTENED)
def test_unit_axes_need_no_transpose_before_a_reshape(name: str) -> None:
    dims, perm, operator, target, left = FLATTENED[name]
    weights = {"s": np.array(target)} if target else {}
    sunk(parse(f"(float[{dims}] x) => (float[] y) {{ t = Transpose<{perm}>(x) y = {operator} }}", **weights), left=left)


def test_what_a_subgraph_reads_keeps_its_name() -> None:
    """The branches of an If capture a transposed value, one that cancels and a constant."""
    text = f"""(float[N,2,4,8] x, bool c) => (float[] y) {{
        t = Transpose<{NHWC}>(x)  r = Relu(t)  n = Transpose<{NCHW}>(r)
        y = If (c) <
            then_branch = a () => (float[] p) {{ q = Add(r, k)  p = Transpose<{NCHW}>(q) }},
            else_branch = b () => (float[] p) {{ p = Neg(n) }}
        > }}"""
    proto = parse(text, k=ROW)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    layout.sink_transposes(model.graph)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    for branch in (True, False):
        feeds = {
            "x": feeds_for(parse("(float[N,2,4,8] x) => (float y) { y = Identity(x) }"), 3)["x"],
            "c": np.array(branch),
        }
        np.testing.assert_array_equal(run(result, feeds)[0], run(proto, feeds)[0])
