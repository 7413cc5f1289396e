"""Each fusion on its own, and beside it what looks alike and must be left alone.

onnxruntime, its own optimizer off, runs every graph before and after. The tolerance stands at each check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from exporters import fusions, pooling
from tests.exporters.graphs import Array, check, normal, parse, rewritten, run, untouched


def run_reference(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """For the types that onnxruntime has no kernels for."""
    outputs: list[Array] = ReferenceEvaluator(proto).run(None, feeds)
    return outputs


# ---- fold_affine: 6 channels behind a 3x3 Conv of 2, on maps of 5 by 6: the width equals the channels

# 18 products of numbers up to some 30, each rounded twice more at most (2^-24 each): below 1e-4.
CONV = {"atol": 1e-4}
WEIGHTS = {"w": normal(6, 2, 3, 3), "b": normal(6, seed=1)}


def conv(rest: str, *, weights: dict[str, Array] = WEIGHTS, dims: str = "N,2,7,8", **more: Any) -> onnx.ModelProto:
    names = ", ".join(weights)
    return parse(f"(float[{dims}] x) => (float[] y) {{ c = Conv(x, {names}) {rest} }}", **weights, **more)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("rest", ["y = Mul(c, s)", "y = Mul(s, c)", "y = Add(c, s)", "y = Add(s, c)"])
@pytest.mark.parametrize("names", ["w", "wb"])
def test_one_number_per_channel_goes_into_the_weights(names: str, rest: str, shape: tuple[int, ...]) -> None:
    weights = {name: WEIGHTS[name] for name in names}
    result = check(fusions.fold_affine, conv(rest, weights=weights, s=normal(*shape, seed=2)), "Conv", **CONV)
    assert len(result.graph.node[0].input) == 3


@pytest.mark.parametrize(
    "shape", [(6,), (1, 6), (1, 1, 1, 6), (5, 1), (1, 1, 5, 1), (6, 5, 6), (3, 1, 1, 1), (3, 6, 1, 1), (1, 1, 6, 1, 1),
              (1, 6, 1, 1, 1), (1, 1, 1, 1, 1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("rest", ["y = Mul(c, s)", "y = Add(s, c)"])
def test_other_shapes_are_no_channels(rest: str, shape: tuple[int, ...]) -> None:
    batch = {(1, 6, 1, 1, 1): "1", (3, 1, 1, 1): "3", (3, 6, 1, 1): "3"}.get(shape, "N")
    dims = f"{batch},2,7,8"
    untouched(fusions.fold_affine, conv(rest, dims=dims, s=normal(*shape, seed=2)))


def test_one_channel_is_not_widened() -> None:
    one = {"w": normal(1, 2, 3, 3)}
    for shape in [(4, 1, 1), (1, 4, 1, 1)]:  # the result has 4 channels
        untouched(fusions.fold_affine, conv("y = Add(c, s)", weights=one, s=normal(*shape)))
    for shape in [(1, 1, 1), (1, 1, 1, 1), ()]:
        check(fusions.fold_affine, conv("y = Add(c, s)", weights=one, s=normal(*shape)), "Conv", **CONV)


LEFT_ALONE = {
    "Sub": "y = Sub(c, s)",
    "Div": "y = Div(c, s)",
    "square": "y = Mul(c, c)",
    "twice": "y = Add(c, c)",
    "read twice": "m = Mul(c, s) y = Add(m, c)",
    "read by another": "m = Mul(c, s) r = Relu(c) y = Concat<axis = 1>(m, r)",
    "something between": "r = Relu(c) y = Mul(r, s)",
    "computed factor": "m = ReduceMean(x, axes) y = Mul(c, m)",
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_looks_like_a_scale(name: str) -> None:
    more = {"axes": np.array([1, 2, 3])} if "axes" in LEFT_ALONE[name] else {"s": normal(6, 1, 1)}
    if name in ("square", "twice"):
        more = {}
    untouched(fusions.fold_affine, conv(LEFT_ALONE[name], **more))


def test_a_conv_that_is_an_output_keeps_its_weights() -> None:
    text = "(float[N,2,7,8] x) => (float[] c, float[] y) { c = Conv(x, w) y = Mul(c, s) }"
    untouched(fusions.fold_affine, parse(text, w=WEIGHTS["w"], s=normal(6, 1, 1)))


def test_weights_that_are_computed_or_can_be_given() -> None:
    computed = "(float[N,2,7,8] x, float[6,2,3,3] v) => (float[] y) { c = Conv(x, v) y = Mul(c, s) }"
    untouched(fusions.fold_affine, parse(computed, s=normal(6, 1, 1)))
    bias = "(float[N,2,7,8] x, float[6] v) => (float[] y) { c = Conv(x, w, v) y = Mul(c, s) }"
    untouched(fusions.fold_affine, parse(bias, w=WEIGHTS["w"], s=normal(6, 1, 1)))
    # Listed as an input too, an initializer is only a default.
    untouched(fusions.fold_affine, parse(computed, v=WEIGHTS["w"], s=normal(6, 1, 1)))


def test_other_operators_keep_their_weights() -> None:
    text = "(float[N,6,5,5] x) => (float[] y) { c = ConvTranspose(x, w) y = Mul(c, s) }"
    untouched(fusions.fold_affine, parse(text, w=normal(6, 6, 3, 3), s=normal(6, 1, 1)))
    proto = conv("y = Mul(c, s)", s=normal(6, 1, 1))
    model = ir.from_proto(proto)
    model.graph[0].domain = "com.example"
    fusions.fold_affine(model)
    assert [node.op_type for node in model.graph] == ["Conv", "Mul"]


def test_batch_norm_spelled_out() -> None:
    """Two factors and two terms behind one depthwise Conv."""
    weights = {"w": normal(6, 1, 3, 3), "b": normal(6)}
    text = (
        "(float[N,6,7,8] x) => (float[] y) { c = Conv<group = 6>(x, w, b) m = Mul(c, s) a = Add(t, m) n = Mul(u, a) "
        "p = Add(n, v) y = Relu(p) }"
    )
    more = {name: normal(6, 1, 1, seed=seed) for seed, name in enumerate("stu")}
    # Two more factors: four more roundings, and numbers ten times larger.
    check(fusions.fold_affine, parse(text, **weights, **more, v=np.float32(3)), "Conv Relu", atol=1e-3)


@pytest.mark.parametrize("dims", ["N,2,9", "N,2,5,6,7"])
def test_one_and_three_dimensions(dims: str) -> None:
    space = dims.count(",") - 1
    weights = {"w": normal(6, 2, *(3,) * space)}
    good, bad = normal(6, *(1,) * space), normal(*(1,) * (space - 1), 6, 1)
    check(fusions.fold_affine, conv("y = Mul(c, s)", weights=weights, dims=dims, s=good), "Conv", **CONV)
    if space == 3:
        untouched(fusions.fold_affine, conv("y = Mul(c, s)", weights=weights, dims="N,2,5,8,7", s=bad))


@pytest.mark.parametrize(
    ("kind", "dtype", "rtol"),
    [
        ("float16", np.float16, 2e-2),  # 18 products rounded to 11 bits, twice each
        ("double", np.float64, 1e-12),
    ],
)
def test_other_floats_stay_what_they_are(kind: str, dtype: type, rtol: float) -> None:
    text = f"({kind}[N,2,7,8] x) => ({kind}[] y) {{ c = Conv(x, w, b) m = Mul(c, s) y = Add(m, s) }}"
    arrays = {name: array.astype(dtype) for name, array in {**WEIGHTS, "s": normal(6, 1, 1, seed=4)}.items()}
    check(fusions.fold_affine, parse(text, **arrays), "Conv", atol=10 * rtol, runner=run_reference)


def test_shared_weights_change_for_one_reader_only() -> None:
    text = "(float[N,2,7,8] x) => (float[] y, float[] z) { c = Conv(x, w, b) y = Mul(c, s) z = Conv(x, w, b) }"
    check(fusions.fold_affine, parse(text, **WEIGHTS, s=normal(6, 1, 1)), "Conv Conv", **CONV)


# ---- hard_activations

SIXTH = np.float32(1 / 6)
PARTS = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": SIXTH}
SIGMOID = "a = Add(x, three) k = Clip(a, zero, six) "

# Three roundings of numbers up to 6, then a sixth of that; a swish is up to 12 times as large.
HARD = {"atol": 2e-7}
SWISH = {"atol": 4e-6}


def spelled(body: str, *, opset: int = 18, kind: str = "float", **changes: Any) -> onnx.ModelProto:
    parts = {key: np.asarray(array) for key, array in {**PARTS, **changes}.items()}
    if kind == "double":
        parts = {key: array.astype(np.float64) for key, array in parts.items()}
    used = {
        key: array
        for key, array in parts.items()
        if key in body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    return parse(f"({kind}[N,4] x) => ({kind}[] y) {{ {body} }}", opset=opset, **used)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    "body",
    [
        SIGMOID + "y = Mul(k, sixth)",
        SIGMOID + "y = Mul(sixth, k)",
        SIGMOID + "y = Div(k, six)",
        "a = Add(three, x) k = Clip(a, zero, six) y = Div(k, six)",
    ],
)
def test_hard_sigmoid(body: str, opset: int) -> None:
    check(fusions.hard_activations, spelled(body, opset=opset), "HardSigmoid", **HARD)


@pytest.mark.parametrize(
    "body",
    [
        SIGMOID + "h = Mul(k, sixth) y = Mul(x, h)",
        SIGMOID + "h = Div(k, six) y = Mul(h, x)",
        SIGMOID + "m = Mul(x, k) y = Div(m, six)",
        SIGMOID + "m = Mul(k, x) y = Mul(sixth, m)",
    ],
)
def test_hard_swish(body: str) -> None:
    check(fusions.hard_activations, spelled(body, opset=14), "HardSwish", **SWISH)


@pytest.mark.parametrize(
    ("kind", "opset", "alpha", "factor", "expected"),
    [
        ("float", 14, 1 / 6, "x", "HardSwish"),
        ("float", 13, 1 / 6, "x", "HardSigmoid Mul"),
        ("float", 14, 0.2, "x", "HardSigmoid Mul"),
        ("float", 14, 1 / 6, "s", "HardSigmoid Mul"),
        ("double", 14, 1 / 6, "x", "HardSigmoid Mul"),
    ],
)
def test_a_number_times_its_hard_sigmoid(kind: str, opset: int, alpha: float, factor: str, expected: str) -> None:
    body = f"s = HardSigmoid <alpha = {alpha}, beta = 0.5> (x) y = Mul({factor}, s)"
    proto = spelled(body, opset=opset, kind=kind)
    if kind == "float":
        check(fusions.hard_activations, proto, expected, **SWISH)
    else:  # onnxruntime's CPU has no kernel of doubles for either
        assert " ".join(node.op_type for node in rewritten(fusions.hard_activations, proto).graph.node) == expected


def test_before_opset_14_there_is_no_hard_swish() -> None:
    check(
        fusions.hard_activations,
        spelled(SIGMOID + "h = Mul(k, sixth) y = Mul(x, h)", opset=13),
        "HardSigmoid Mul",
        **SWISH,
    )
    untouched(fusions.hard_activations, spelled(SIGMOID + "m = Mul(x, k) y = Div(m, six)", opset=13))


def test_a_gate_is_no_swish() -> None:
    """Squeeze-and-excite multiplies something else."""
    check(
        fusions.hard_activations,
        spelled(SIGMOID + "h = Div(k, six) n = Neg(x) y = Mul(n, h)"),
        "HardSigmoid Neg Mul",
        **SWISH,
    )
    check(fusions.hard_activations, spelled(SIGMOID + "h = Div(k, six) y = Mul(h, h)"), "HardSigmoid Mul", **HARD)


def test_a_hard_sigmoid_that_is_read_twice_stays_one() -> None:
    body = SIGMOID + "h = Div(k, six) m = Mul(x, h) y = Add(m, h)"
    check(fusions.hard_activations, spelled(body), "HardSigmoid Mul Add", **SWISH)


def test_one_after_another() -> None:
    body = (
        SIGMOID
        + "h = Div(k, six) y0 = Mul(x, h) b = Add(y0, three) l = Clip(b, zero, six) i = Div(l, six) y = Mul(y0, i)"
    )
    check(fusions.hard_activations, spelled(body), "HardSwish HardSwish", atol=5e-5)  # twelve times a swish's own


NOT_HARD = {
    "6 / y": SIGMOID + "y = Div(six, k)",
    "Sub": "a = Sub(x, three) k = Clip(a, zero, six) y = Div(k, six)",
    "Sub from": "a = Sub(three, x) k = Clip(a, zero, six) y = Div(k, six)",
    "no max": "a = Add(x, three) k = Clip(a, zero) y = Div(k, six)",
    "no min": "a = Add(x, three) k = Clip(a, , six) y = Div(k, six)",
    "no bounds": "a = Add(x, three) k = Clip(a) y = Div(k, six)",
    "swapped bounds": "a = Add(x, three) k = Clip(a, three, six) y = Div(k, six)",
    "no Add": "k = Clip(x, zero, six) y = Div(k, six)",
    "times six": SIGMOID + "y = Mul(k, six)",
    "by a sixth": SIGMOID + "y = Div(k, sixth)",
    "Add read twice": SIGMOID + "h = Div(k, six) y = Add(h, a)",
    "Clip read twice": SIGMOID + "h = Div(k, six) y = Add(h, k)",
    "the square of the Clip": SIGMOID + "y = Mul(k, k)",
    "x plus x": "a = Add(x, x) k = Clip(a, zero, six) y = Div(k, six)",
    "product read twice": SIGMOID + "m = Mul(x, k) h = Div(m, six) y = Add(h, m)",
    "Clip of a product read twice": SIGMOID + "m = Mul(x, k) h = Div(m, six) y = Add(h, k)",
    "another factor": SIGMOID + "n = Neg(x) m = Mul(n, k) y = Div(m, six)",
}


@pytest.mark.parametrize("name", NOT_HARD)
def test_looks_like_a_hard_sigmoid(name: str) -> None:
    untouched(fusions.hard_activations, spelled(NOT_HARD[name]))


@pytest.mark.parametrize(
    "changes",
    [
        {"three": np.float32(3.0001)},
        {"three": np.float32(-3)},
        {"zero": np.float32(1e-3)},
        {"zero": np.float32(-1e-30)},
        {"six": np.float32(6.0001)},
        {"sixth": np.float32(0.16666)},
        {"sixth": np.float32(0.1666)},
        {"sixth": np.float32(0)},
        {"sixth": np.float32(np.nan)},
        {"sixth": np.full((4,), SIXTH)},
        {"three": np.full((1, 1, 1), 3, np.float32)},  # these two give the result three axes
        {"sixth": np.full((1, 1, 1), SIXTH)},
    ],
    ids=lambda changes: " ".join(f"{key}={array.tolist()}" for key, array in changes.items()),
)
def test_numbers_that_are_nearly_right(changes: dict[str, Any]) -> None:
    untouched(fusions.hard_activations, spelled(SIGMOID + "y = Mul(k, sixth)", **changes))


def test_division_by_zero_is_left_to_the_engine() -> None:
    untouched(fusions.hard_activations, spelled(SIGMOID + "y = Div(k, nil)", nil=np.float32(0)))


def test_constants_of_one_element() -> None:
    one = {name: np.reshape(PARTS[name], (1, 1)) for name in ("three", "sixth")}
    check(fusions.hard_activations, spelled(SIGMOID + "y = Mul(k, sixth)", **one), "HardSigmoid", **HARD)


def test_only_float32_has_kernels() -> None:
    untouched(fusions.hard_activations, spelled(SIGMOID + "y = Div(k, six)", kind="double"))


def test_outputs_on_the_way() -> None:
    for name in "ak":
        text = f"(float[N,4] x) => (float[] {name}, float[] y) {{ {SIGMOID} y = Div(k, six) }}"
        untouched(fusions.hard_activations, parse(text, **{key: PARTS[key] for key in ("three", "zero", "six")}))
    text = f"(float[N,4] x) => (float[] h, float[] y) {{ {SIGMOID} h = Div(k, six) y = Mul(x, h) }}"
    proto = parse(text, **{key: PARTS[key] for key in ("three", "zero", "six")})
    check(fusions.hard_activations, proto, "HardSigmoid Mul", **SWISH)


# ---- affine_maps

MAPS = "(float[N,6,5,4] x) => (float[] y)"
# A product of numbers up to some 40 and a sum, rounded twice: below 2^-22 * 40.
AFFINE = {"atol": 1e-5}


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1)], ids=str)
@pytest.mark.parametrize("rest", ["Mul(r, s) y = Add(p, t)", "Mul(s, r) y = Add(t, p)"])
def test_a_factor_and_a_term_per_channel_are_a_layer(rest: str, shape: tuple[int, ...]) -> None:
    weights = {"s": normal(*shape, seed=1), "t": normal(*shape, seed=2)}
    result = check(fusions.affine_maps, parse(f"{MAPS} {{ r = Relu(x) p = {rest} }}", **weights), "Relu Conv", **AFFINE)
    assert [list(item.dims) for item in result.graph.initializer if item.name in result.graph.node[1].input] == [
        [6, 1, 1, 1],
        [6],
    ]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        (f"{MAPS} {{ p = Mul(x, s) y = Add(p, t) }}", {}),  # pictures
        (f"{MAPS} {{ r = Relu(x) p = Mul(r, s) y = Add(p, p) }}", {}),
        (f"{MAPS} {{ r = Relu(x) p = Mul(r, s) q = Add(p, t) y = Add(q, p) }}", {}),  # something else reads the product
        ("(float[N,6,5,4] x) => (float[] y, float[] p) { r = Relu(x) p = Mul(r, s) y = Add(p, t) }", {}),
        (f"{MAPS} {{ r = Relu(x) p = Mul(r, s) y = Add(p, t) }}", {"s": normal(4)}),  # along the last axis
        (f"{MAPS} {{ r = Relu(x) p = Mul(r, s) y = Add(p, t) }}", {"t": normal(1, 6, 5, 4)}),
        (f"{MAPS} {{ r = Relu(x) p = Mul(r, s) y = Add(p, t) }}", {"s": normal(1, 1, 1)}),
        ("(float[N,6,5] x) => (float[] y) { r = Relu(x) p = Mul(r, s) y = Add(p, t) }",
         {"s": normal(6, 1), "t": normal(6, 1)}),
    ],
)  # fmt: skip
def test_other_products_and_sums_are_none(text: str, weights: dict[str, Array]) -> None:
    used = {"s": normal(6, 1, 1), "t": normal(6, 1, 1)} | weights
    untouched(fusions.affine_maps, parse(text, **{name: array for name, array in used.items() if f", {name})" in text}))


# ---- matmul_to_gemm

# The same products in another order: 5 of them, of numbers up to some 30.
DENSE = {"atol": 1e-5}


def dense(rest: str, dims: str = "N,5", **weights: Any) -> onnx.ModelProto:
    return parse(f"(float[{dims}] x) => (float[] y) {{ {rest} }}", **{"w": normal(5, 4), **weights})


@pytest.mark.parametrize("shape", [(4,), (1, 4)], ids=str)
@pytest.mark.parametrize("rest", ["m = MatMul(x, w) y = Add(m, b)", "m = MatMul(x, w) y = Add(b, m)"])
def test_dense_layer(rest: str, shape: tuple[int, ...]) -> None:
    result = check(fusions.matmul_to_gemm, dense(rest, b=normal(*shape)), "Gemm", **DENSE)
    assert [len(node.input) for node in result.graph.node] == [3]


def test_dense_layer_without_bias() -> None:
    check(fusions.matmul_to_gemm, dense("y = MatMul(x, w)"), "Gemm", **DENSE)
    check(fusions.matmul_to_gemm, dense("m = MatMul(x, w) y = Add(m, m)"), "Gemm Add", **DENSE)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3, 4), (3, 1), (1, 1, 4), (2, 1, 4)], ids=str)
def test_other_terms_stay(shape: tuple[int, ...]) -> None:
    dims = "3,5" if shape and shape[0] == 3 else "N,5"
    check(fusions.matmul_to_gemm, dense("m = MatMul(x, w) y = Add(m, b)", dims, b=normal(*shape)), "Gemm Add", **DENSE)


def test_one_class() -> None:
    proto = dense("m = MatMul(x, w) y = Add(m, b)", w=normal(5, 1), b=normal(1))
    check(fusions.matmul_to_gemm, proto, "Gemm", **DENSE)
    # A row of 4 makes four columns of one.
    proto = dense("m = MatMul(x, w) y = Add(m, b)", w=normal(5, 1), b=normal(4))
    check(fusions.matmul_to_gemm, proto, "Gemm Add", **DENSE)


def test_a_product_that_is_read_again_keeps_its_value() -> None:
    check(
        fusions.matmul_to_gemm,
        dense("m = MatMul(x, w) a = Add(m, b) y = Mul(a, m)", b=normal(4)),
        "Gemm Add Mul",
        atol=1e-3,
    )
    text = "(float[N,5] x) => (float[] m, float[] y) { m = MatMul(x, w) y = Add(m, b) }"
    check(fusions.matmul_to_gemm, parse(text, w=normal(5, 4), b=normal(4)), "Gemm Add", **DENSE)


@pytest.mark.parametrize(
    ("rest", "dims", "weights"),
    [
        ("y = MatMul(x, w)", "N,3,5", {}),
        ("y = MatMul(x, w)", "5", {}),
        ("y = MatMul(w, x)", "4,N", {}),
        ("y = MatMul(x, w)", "N,5", {"w": normal(2, 5, 4)}),
        ("y = MatMul(x, w)", "N,5", {"w": normal(5)}),
        ("v = Relu(w) y = MatMul(x, v)", "N,5", {}),
    ],
)
def test_other_products_stay(rest: str, dims: str, weights: dict[str, Any]) -> None:
    untouched(fusions.matmul_to_gemm, dense(rest, dims, **weights))


def test_whole_numbers_have_no_gemm() -> None:
    text = "(int32[N,5] x) => (int32[] y) { y = MatMul(x, w) }"
    untouched(fusions.matmul_to_gemm, parse(text, w=np.arange(20, dtype=np.int32).reshape(5, 4)))


# ---- collapse_reshapes


def shaped(body: str, dims: str = "N,4,3", opset: int = 18, **weights: Any) -> onnx.ModelProto:
    weights = {key: np.array(value) for key, value in weights.items()}
    return parse(f"(float[{dims}] x) => (float[] y) {{ v = Neg(x) {body} }}", opset=opset, **weights)


TWO, THERE_AND_BACK = "a = Reshape(v, s) y = Reshape(a, t)", "a = Unsqueeze(v, o) b = Squeeze(a, o) y = Reshape(b, t)"
TWICE = "a = Reshape(v, s) b = Reshape(a, t) c = Reshape(a, s) d = Flatten(b) y = Add(c, d)"

COLLAPSED = {
    "two in a row": (shaped(TWO, s=[-1, 6, 2], t=[-1, 2, 6]), "Neg Reshape"),
    "behind Flatten": (shaped("a = Flatten<axis = 2>(v) y = Reshape(a, t)", t=[-1, 12]), "Neg Reshape"),
    "behind Squeeze": (shaped(THERE_AND_BACK, o=[1], t=[-1, 12]), "Neg Reshape"),
    "batch copied by the first": (shaped(TWO, s=[0, -1], t=[-1, 2, 6]), "Neg Reshape"),
    "there and back": (shaped(TWO, s=[-1, 12], t=[-1, 4, 3]), "Neg"),
    "no change": (shaped("y = Reshape(v, t)", t=[-1, 4, 3]), "Neg"),
    "no change, copied": (shaped("y = Reshape(v, t)", t=[0, 0, 0]), "Neg"),
    "no change, worked out": (shaped("y = Reshape(v, t)", t=[0, -1, 3]), "Neg"),
    "no change, batch known": (shaped("y = Reshape(v, t)", "2,4,3", t=[2, 4, 3]), "Neg"),
    "batch known": (shaped(TWO, "2,4,3", s=[2, 12], t=[4, 6]), "Neg Reshape"),
    "three in a row": (
        shaped("a = Reshape(v, s) b = Reshape(a, t) y = Reshape(b, s)", s=[-1, 12], t=[-1, 2, 6]),
        "Neg Reshape",
    ),
    "middle read twice": (shaped(TWICE, s=[-1, 12], t=[-1, 2, 6]), "Neg Reshape Reshape Flatten Add"),
}


@pytest.mark.parametrize("name", COLLAPSED)
def test_reshapes(name: str) -> None:
    proto, expected = COLLAPSED[name]
    check(fusions.collapse_reshapes, proto, expected, atol=0)


KEPT = {
    "copies an axis of the middle": shaped("a = Reshape(v, s) y = Reshape(a, t)", s=[-1, 6, 2], t=[0, 0, 2, 1]),
    "copies the batch of the middle": shaped("a = Reshape(v, s) y = Reshape(a, t)", s=[-1, 3], t=[0, 3, 1]),
    "same number of axes": shaped("y = Reshape(v, t)", t=[-1, 3, 4]),
    "copied, then not": shaped("y = Reshape(v, t)", t=[0, 3, -1]),
    "more axes": shaped("y = Reshape(v, t)", t=[-1, 4, 3, 1]),
    "fewer axes": shaped("y = Reshape(v, t)", t=[-1, 12]),
    "depends on the batch": shaped("a = Reshape(v, s) h = Shape(v) y = Reshape(a, h)", s=[-1, 12]),
    "something between": shaped("a = Reshape(v, s) n = Relu(a) y = Reshape(n, t)", s=[-1, 12], t=[-1, 2, 6]),
}


@pytest.mark.parametrize("name", KEPT)
def test_reshapes_that_count(name: str) -> None:
    untouched(fusions.collapse_reshapes, KEPT[name])


def test_zero_meant_as_zero() -> None:
    """With allowzero an empty batch keeps its shape; the other shape rules hold as well."""
    proto = shaped("a = Reshape(v, s) y = Reshape<allowzero = 1>(a, t)", "K,4,3", s=[-1, 12], t=[0, 7])
    result = rewritten(fusions.collapse_reshapes, proto)
    empty = {"x": np.zeros((0, 4, 3), np.float32)}
    assert run(result, empty)[0].shape == run(proto, empty)[0].shape == (0, 7)


def test_an_output_that_would_be_the_input_stays() -> None:
    untouched(
        fusions.collapse_reshapes, parse("(float[N,4] x) => (float[] y) { y = Reshape(x, t) }", t=np.array([-1, 4]))
    )
    text = "(float[N,4] x) => (float[] v, float[] y) { v = Neg(x) y = Reshape(v, t) }"
    untouched(fusions.collapse_reshapes, parse(text, t=np.array([-1, 4])))


# ---- subgraphs


# ---- flat_concat


def concat(body: str) -> onnx.ModelProto:
    return parse(f"(float[N,2,3] x) => (float[] y) {{ a = Neg(x) b = Relu(x) {body} }}")


def test_a_concat_of_concats_is_one() -> None:
    nested = concat("p = Concat<axis = 1>(a, x) q = Concat<axis = 1>(b, p, a) y = Concat<axis = 1>(q, x)")
    check(fusions.flat_concat, nested, "Neg Relu Concat", atol=0)


@pytest.mark.parametrize(
    "body",
    [
        "p = Concat<axis = 2>(a, a) q = Concat<axis = 2>(b, b) y = Concat<axis = 1>(p, q)",
        "p = Concat<axis = 1>(a, b) q = Concat<axis = 1>(p, x) z = Concat<axis = 1>(x, p) y = Add(q, z)",
        "p = Concat<axis = 1>(a, b) y = Concat<axis = 1>(p, p)",
    ],
    ids=["another axis", "read again", "twice"],
)
def test_concats_that_stay(body: str) -> None:
    untouched(fusions.flat_concat, concat(body))


# ---- subgraphs


def test_no_fusion_reaches_into_a_subgraph() -> None:
    """The one reader of each value stands inside a branch, or captures it there."""
    text = """(float[N,2,7,8] x, bool k) => (float[] y) {
        c = Conv(x, w)  a = Add(x, three)  l = Clip(a, zero, six)  h = Div(l, six)  f = Flatten(x)  m = MatMul(f, d)
        p = Relu(x)  q = Pad(p, pads)
        y = If (k) <
            then_branch = one () => (float[] o) { s = Mul(c, r)  u = Mul(x, h)  i = Flatten(s)  j = Flatten(u)
                o = Concat<axis = 1>(i, j) },
            else_branch = two () => (float[] o) { v = Add(m, b)  t = MaxPool<kernel_shape = [3, 3]>(q)  g = Flatten(t)
                o = Concat<axis = 1>(v, g) }
        > }"""
    weights = {**{key: PARTS[key] for key in ("three", "zero", "six")}, "w": WEIGHTS["w"], "r": normal(6, 1, 1),
               "d": normal(112, 4), "b": normal(4), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}  # fmt: skip
    proto = parse(text, **weights)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    steps = (fusions.hard_activations, fusions.fold_affine, fusions.matmul_to_gemm, pooling.global_pooling,
             pooling.max_pool_padding, fusions.collapse_reshapes)  # fmt: skip
    for step in steps:
        step(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    assert [node.op_type for node in result.graph.node] == "Conv HardSigmoid Flatten Gemm Relu Pad If".split()
    for branch in (True, False):
        feeds = {"x": 3 * normal(3, 2, 7, 8), "k": np.array(branch)}
        np.testing.assert_allclose(run(result, feeds)[0], run(proto, feeds)[0], atol=1e-4)  # 112 products
