from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.dense import absorb_transposes, fold_scale, over_last_axis
from exporters.passes import remove_unused
from tests.exporters.graphs import check, normal, parse, untouched

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


# ---- over_last_axis

ROUNDED = {"atol": 1e-5, "rtol": 1e-5}  # products of 5 numbers, the same ones


def rows(
    before: tuple[int, ...] = (-1, 5), after: tuple[int, ...] = (-1, 3, 4, 6), rest: str = "y = Reshape(p, t)"
) -> onnx.ModelProto:
    return parse(
        f"(float[N,3,4,5] x) => (float[] y) {{ r = Reshape(x, s) p = MatMul(r, w) {rest} }}",
        s=np.array(before), w=normal(before[-1], 6), t=np.array(after),
    )  # fmt: skip


def test_a_dense_layer_over_the_last_axis_needs_no_reshape() -> None:
    check(over_last_axis, rows(), "MatMul", **ROUNDED)


def test_nor_where_the_rows_are_counted_at_run_time() -> None:
    text = (
        "(float[N,3,4,5] x) => (float[] y) { h = Shape(x) g = Gather(h, free) n = ReduceProd<keepdims = 0>(g) "
        "u = Unsqueeze(n, zero) s = Concat<axis = 0>(u, five) r = Reshape(x, s) p = MatMul(r, w) y = Reshape(p, t) }"
    )
    weights = {"free": np.arange(3), "zero": np.array([0]), "five": np.array([5]), "t": np.array([-1, 3, 4, 6])}
    check(over_last_axis, parse(text, w=normal(5, 6), **weights), "MatMul", **ROUNDED)


@pytest.mark.parametrize(
    "proto",
    [
        rows(after=(-1, 4, 3, 6)),
        rows(after=(-1, 12, 6)),
        rows(before=(-1, 10), after=(-1, 3, 2, 6)),
        rows(rest="z = Reshape(p, t) q = ReduceSum(p) y = Add(z, q)"),
    ],
    ids=["other axes", "fewer axes", "two axes multiplied", "rows read again"],
)
def test_rows_that_are_put_back_otherwise(proto: onnx.ModelProto) -> None:
    untouched(over_last_axis, proto)


# ---- fold_scale


def scaled(rest: str, *, dims: str = "N,3,4,5", **weights: np.ndarray) -> onnx.ModelProto:
    given = {"w": normal(5, 6), "b": normal(6, seed=1), "s": normal(6, seed=2), **weights}
    return parse(f"(float[{dims}] x) => (float[] y) {{ p = MatMul(x, w) {rest} }}", **given)


TURN = "t = Transpose<perm = [0, 3, 1, 2]>(a)"


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (scaled("y = Mul(p, s)"), "MatMul"),
        (scaled("a = Add(p, b) y = Mul(s, a)"), "MatMul Add"),
        (scaled("a = Add(b, p) y = Mul(a, s)", s=normal(1, 1, 6)), "MatMul Add"),
        (scaled(f"a = Add(p, b) {TURN} y = Mul(t, s)", s=normal(6, 1, 1)), "MatMul Add Transpose"),
    ],
    ids=["no bias", "bias", "more axes", "behind a transpose"],
)
def test_a_learned_scale_goes_into_the_dense_layer(proto: onnx.ModelProto, expected: str) -> None:
    check(fold_scale, proto, expected, **ROUNDED)


@pytest.mark.parametrize(
    "proto",
    [
        scaled("y = Mul(p, s)", s=normal(4, 1)),  # along another axis
        scaled("y = Mul(p, s)", s=normal(4, 6)),
        scaled(f"a = Add(p, b) {TURN} y = Mul(t, s)", s=normal(4)),
        scaled("a = Add(p, b) y = Mul(a, s)", b=normal(4, 1)),  # a bias that is none
        scaled("a = Add(p, b) m = Mul(a, s) y = Add(m, p)"),
        scaled("a = Add(p, b) m = Mul(a, s) y = Add(m, a)"),
        scaled("r = Relu(p) y = Mul(r, s)"),
    ],
    ids=["rows", "matrix", "columns behind a transpose", "bias", "product read again", "sum read again", "between"],
)
def test_scales_that_stay(proto: onnx.ModelProto) -> None:
    untouched(fold_scale, proto)
