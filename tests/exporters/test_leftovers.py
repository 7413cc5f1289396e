"""Roundabout forms become plain ones; onnxruntime, its own optimizer off, runs every graph before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters import leftovers
from tests.exporters.graphs import check, normal, parse, untouched

# Sums in the same order, a factor computed once: a rounding or two.
ROUNDED = {"atol": 1e-5, "rtol": 1e-5}


# ---- batch_norm

STATISTICS = {"s": normal(4, seed=1), "b": normal(4, seed=2), "m": normal(4, seed=3), "v": normal(4, seed=4) ** 2}


@pytest.mark.parametrize("dims", ["N,4", "N,4,5", "N,4,5,6"])
def test_batch_norm(dims: str) -> None:
    proto = parse(
        f"(float[{dims}] x) => (float[] y) {{ y = BatchNormalization<epsilon = 0.5>(x, s, b, m, v) }}", **STATISTICS
    )
    proto.graph.node[0].name = "norm"
    made = check(leftovers.batch_norm, proto, "Mul Add", **ROUNDED)
    assert [node.name for node in made.graph.node] == ["norm.scale", "norm"]


def test_batch_norms_without_names() -> None:
    text = (
        "(float[N,4] x) => (float[] y) { z = BatchNormalization(x, s, b, m, v) y = BatchNormalization(z, s, b, m, v) }"
    )
    made = check(leftovers.batch_norm, parse(text, **STATISTICS), "Mul Add Mul Add", **ROUNDED)
    names = [node.name for node in made.graph.node if node.name]
    assert len(set(names)) == len(names)


def test_batch_norm_with_computed_statistics() -> None:
    text = "(float[N,4] x, float[4] m) => (float[] y) { y = BatchNormalization(x, s, b, m, v) }"
    untouched(leftovers.batch_norm, parse(text, **{name: STATISTICS[name] for name in "sbv"}))


# ---- einsum


@pytest.mark.parametrize(
    ("equation", "expected", "left", "right"),
    [
        ("ij,jk->ik", "MatMul", "N,4", "4,5"),
        ("ij,kj->ik", "Transpose MatMul", "N,4", "5,4"),
        ("bghid,bghjd->bghij", "Transpose MatMul", "N,2,3,4,5", "N,2,3,6,5"),
        ("b h i j, b h j d -> b h i d", "MatMul", "N,3,4,5", "N,3,5,6"),
    ],
)
def test_products_of_stacked_matrices(equation: str, expected: str, left: str, right: str) -> None:
    text = f'(float[{left}] x, float[{right}] w) => (float[] y) {{ y = Einsum<equation = "{equation}">(x, w) }}'
    check(leftovers.einsum, parse(text), expected, **ROUNDED)


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("ij,jk->ki", "N,4", "4,5"),  # turned result
        ("bij,jk->bik", "N,3,4", "4,5"),  # stacked on one side only
        ("ij,ij->ij", "N,4", "N,4"),
        ("ji,jk->ik", "N,4", "N,5"),  # turned left operand
        ("bij,cjk->bik", "N,3,4", "2,4,5"),
        ("ij,ij->i", "N,4", "N,4"),
    ],
)
def test_other_einsums(equation: str, left: str, right: str) -> None:
    text = f'(float[{left}] x, float[{right}] w) => (float[] y) {{ y = Einsum<equation = "{equation}">(x, w) }}'
    untouched(leftovers.einsum, parse(text))


# ---- strided_copy

PLACES = (
    "b = Shape<start = 0, end = 1>(x) n = Squeeze(b) i = Range(zero, n, one) k = Mul(i, stride) u = Unsqueeze(k, axes) "
    "p = Add(u, places) "
)


def strided(body: str = "f = Reshape(x, flat) y = Gather(f, p)", **changes: Any) -> onnx.ModelProto:
    given = {
        "flat": np.array([-1]), "zero": np.int64(0), "one": np.int64(1), "stride": np.int64(6),
        "axes": np.array([1, 2, 3]), "places": np.arange(6).reshape(1, 6, 1, 1),
    }  # fmt: skip
    return parse(f"(float[N,6,1,1] x) => (float[] y) {{ {PLACES} {body} }}", **{**given, **changes})


def test_as_strided_of_every_element_in_its_place() -> None:
    result = check(leftovers.strided_copy, strided("r = Relu(x) f = Reshape(r, flat) g = Gather(f, p) y = Neg(g)"),
                   "Relu Neg", atol=0)  # fmt: skip
    assert onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "changes",
    [
        {"places": np.arange(5, -1, -1).reshape(1, 6, 1, 1)},
        {"stride": np.int64(0)},
        {"one": np.int64(2)},
        {"places": np.arange(6).reshape(1, 1, 6, 1)},
    ],
    ids=["backwards", "the first picture for all", "every other", "another shape"],
)
def test_as_strided_that_picks_otherwise(changes: dict[str, Any]) -> None:
    untouched(leftovers.strided_copy, strided(**changes))
