"""LayerNormalization and GELU, as Keras and PyTorch spell them out, and what looks alike and must be left alone.

onnxruntime, its own optimizer off, runs every graph before and after. The tolerance stands at each check.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters import transformers
from tests.exporters.graphs import check, normal, parse, rewritten, run, untouched

# ---- layer_normalization

# x * inv - mean * inv cancels: Keras loses a digit that the operator keeps.
NORMALIZED = {"atol": 2e-6, "rtol": 2e-6}
STEPS = (
    "m = ReduceMean(x, axes) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, axes) e = Add(v, eps) "
    "s = Sqrt(e) r = Reciprocal(s) n = Neg(m) "
)


def layer_norm(
    end: str = "i = Mul(r, g) a = Mul(x, i) b = Mul(n, i) c = Add(b, h) y = Add(a, c)",
    *, steps: str = STEPS, dims: str = "N,3,4,8", axes: int = -1, opset: int = 18, **weights: Any,
) -> onnx.ModelProto:  # fmt: skip
    given = {"axes": np.array([axes]), "eps": np.float32(1e-3), "g": normal(8, seed=1), "h": normal(8, seed=2)}
    return parse(f"(float[{dims}] x) => (float[] y) {{ {steps} {end} }}", opset=opset, **{**given, **weights})


@pytest.mark.parametrize(
    "end",
    [
        "i = Mul(r, g) a = Mul(x, i) b = Mul(n, i) c = Add(b, h) y = Add(a, c)",
        "i = Mul(g, r) a = Mul(i, x) b = Mul(i, n) c = Add(h, b) y = Add(c, a)",
        "i = Mul(r, g) a = Mul(x, i) b = Mul(n, i) y = Add(a, b)",  # center=False
        "a = Mul(x, r) b = Mul(n, r) c = Add(b, h) y = Add(a, c)",  # scale=False
        "a = Mul(x, r) b = Mul(n, r) y = Add(a, b)",
    ],
)
@pytest.mark.parametrize("dims", ["N,3,4,8", "N,8"])
def test_what_keras_writes(end: str, dims: str) -> None:
    result = check(transformers.layer_normalization, layer_norm(end, dims=dims), "LayerNormalization", **NORMALIZED)
    attributes = {attribute.name: attribute for attribute in result.graph.node[0].attribute}
    assert attributes["epsilon"].f == pytest.approx(1e-3)


def test_weights_with_axes_of_their_own() -> None:
    rows = {"g": normal(1, 1, 1, 8, seed=1), "h": normal(1, 1, 1, 8, seed=2)}
    check(transformers.layer_normalization, layer_norm(**rows), "LayerNormalization", **NORMALIZED)


@pytest.mark.parametrize(
    "proto",
    [
        layer_norm(opset=16, steps=re.sub(r"\((\w), axes\)", r"<axes = [-1]>(\1)", STEPS)),
        layer_norm(axes=1, g=normal(3, 1, 1), h=normal(3, 1, 1)),  # over another axis
        layer_norm(g=normal(4, 1), h=normal(4, 1)),  # one factor per row, not per channel
        layer_norm(g=np.float32(2)),
        layer_norm(steps=STEPS.replace("n = Neg(m)", "n = Neg(s)")),  # something else than the mean
        layer_norm(steps=STEPS.replace("d = Sub(x, m)", "d = Sub(m, x)").replace("q = Mul(d, d)", "q = Mul(d, x)")),
        layer_norm("i = Mul(r, g) a = Mul(x, i) b = Mul(n, i) c = Add(b, h) z = Add(a, c) y = Mul(z, i)"),
    ],
    ids=["opset 16", "axis 1", "per row", "scalar", "not the mean", "not the variance", "read again"],
)  # fmt: skip
def test_what_is_no_layer_normalization(proto: onnx.ModelProto) -> None:
    untouched(transformers.layer_normalization, proto)


# ---- gelu

# The functions are the same; x / sqrt(2) and x * sqrt(1/2) round differently.
CURVED = {"atol": 2e-6, "rtol": 2e-6}
ROOT = {
    "root": np.float32(np.sqrt(2)), "inverse": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5)
}  # fmt: skip
FORMS = {
    "Keras": "p = Mul(half, x) n = Neg(x) u = Mul(n, inverse) e = Erf(u) c = Sub(one, e) y = Mul(p, c)",
    "PyTorch": "u = Div(x, root) e = Erf(u) c = Add(e, one) p = Mul(half, c) y = Mul(x, p)",
    "the fused one": "u = Div(x, root) e = Erf(u) c = Add(e, one) p = Mul(x, c) y = Mul(p, half)",
    "by product": "u = Mul(inverse, x) e = Erf(u) c = Add(one, e) p = Mul(c, x) y = Mul(half, p)",
}


def erf(body: str, **weights: Any) -> onnx.ModelProto:
    return parse(f"(float[N,3,4] x) => (float[] y) {{ {body} }}", **{**ROOT, **weights})


@pytest.mark.parametrize("form", FORMS)
def test_gelu_in_the_form_that_is_fused(form: str, tmp_path: Path) -> None:
    result = check(transformers.gelu, erf(FORMS[form]), "Div Erf Add Mul Mul", **CURVED)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "fused.onnx"), 3
    onnxruntime.InferenceSession(result.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node] == ["Gelu"]


@pytest.mark.parametrize(
    "body",
    [
        FORMS["Keras"].replace("Neg(x)", "Identity(x)"),  # the sign is another
        FORMS["Keras"].replace("Sub(one, e)", "Sub(e, one)"),
        FORMS["PyTorch"].replace("Add(e, one)", "Sub(one, e)"),
        FORMS["PyTorch"].replace("Div(x, root)", "Div(root, x)"),
        FORMS["PyTorch"].replace("Mul(x, p)", "Mul(u, p)"),
        FORMS["PyTorch"].replace("y = Mul(x, p)", "z = Mul(x, p) y = Add(z, e)"),
    ],
)
def test_what_is_no_gelu(body: str) -> None:
    untouched(transformers.gelu, erf(body))


@pytest.mark.parametrize("name", ["half", "one", "root"])
def test_other_numbers_are_no_gelu(name: str) -> None:
    untouched(transformers.gelu, erf(FORMS["PyTorch"], **{name: np.float32(0.7)}))


def test_gelu_of_large_numbers() -> None:
    """Far below zero 1 - erf gives 0 or a rounding of it, far above the number itself."""
    result = rewritten(transformers.gelu, erf(FORMS["Keras"]))
    x = np.array([[[-80, -6, -1, 0]] * 3, [[1, 6, 80, 1e6]] * 3], np.float32)
    (given,) = run(result, {"x": x})
    exact = [-0.0, -5.9e-9, -0.15865525, 0, 0.84134475, 6, 80, 1e6]
    np.testing.assert_allclose(given[:, 0].reshape(-1), exact, atol=1e-6)
