"""What stands in front of convolutions goes into them; onnxruntime, its own optimizer off, runs before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from exporters.ahead import affine_ahead
from tests.exporters.graphs import check, normal, parse, untouched

ROUNDED = {"atol": 2e-5, "rtol": 1e-5}
PLAIN, PADDED, SAME = "", "<pads = [1, 1, 1, 1]>", '<auto_pad = "SAME_UPPER">'

FACTOR, TERM = np.float32(1.5), np.float32(-0.7)
FACTORS, TERMS = normal(6, 1, 1, seed=1), normal(1, 6, 1, 1, seed=2)


def network(body: str, *, weights: Any = None, outputs: str = "float[] y", **more: Any) -> onnx.ModelProto:
    """Behind a Relu, for what is done to pictures stays; a convolution ``w`` of 3 x 3 places."""
    constants = {"w": normal(8, 6, 3, 3) if weights is None else weights, "b": normal(8, seed=3)} | more
    known = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {name: np.asarray(array) for name, array in constants.items() if name in known}
    return parse(f"(float[N,6,9,9] x) => ({outputs}) {{ r = Relu(x) {body} }}", **used)


@pytest.mark.parametrize(("f", "t"), [(FACTOR, TERM), (FACTORS, TERMS), (FACTOR.reshape(1), TERMS), (FACTORS, TERM)])
def test_both_go_into_a_convolution_without_padding(f: Any, t: Any) -> None:
    check(affine_ahead, network("m = Mul(r, f) a = Add(t, m) y = Conv(a, w, b)", f=f, t=t), "Relu Conv", **ROUNDED)
    check(affine_ahead, network("a = Add(r, t) m = Mul(f, a) y = Conv(m, w)", f=f, t=t), "Relu Conv", **ROUNDED)


@pytest.mark.parametrize("padding", [PADDED, SAME])
def test_a_term_stays_in_front_of_a_border_of_zeros(padding: str) -> None:
    proto = network(f"m = Mul(r, f) a = Add(m, t) y = Conv {padding} (a, w, b)", f=FACTOR, t=TERM)
    check(affine_ahead, proto, "Relu Add Conv", **ROUNDED)
    proto = network(f"a = Add(r, t) m = Mul(a, f) y = Conv {padding} (m, w, b)", f=FACTORS, t=TERMS)
    check(affine_ahead, proto, "Relu Add Conv", **ROUNDED)


@pytest.mark.parametrize(("groups", "outputs"), [(6, 6), (6, 12), (3, 9)])
def test_convolutions_in_groups(groups: int, outputs: int) -> None:
    weights = normal(outputs, 6 // groups, 3, 3)
    proto = network(
        f"m = Mul(r, f) a = Add(m, t) y = Conv <group = {groups}> (a, w)", weights=weights, f=FACTORS, t=TERMS
    )
    check(affine_ahead, proto, "Relu Conv", **ROUNDED)


def test_all_readers_take_it_in() -> None:
    body = "m = Mul(r, f) a = Add(m, t) c = Conv(a, w, b) d = Conv <strides = [1, 1]> (a, w) y = Add(c, d)"
    check(affine_ahead, network(body, f=FACTOR, t=TERM), "Relu Conv Conv Add", **ROUNDED)
    body = f"m = Mul(r, f) a = Add(m, t) c = Conv(a, w, b) y = Conv {PADDED} (a, w)"
    proto = network(body, outputs="float[] c, float[] y", f=FACTOR, t=TERM)
    check(affine_ahead, proto, "Relu Add Conv Conv", **ROUNDED)


BOTH = "float[] c, float[] y"
KEPT = {
    "another reader": ("m = Mul(r, f) c = Conv(m, w) y = GlobalAveragePool(m)", BOTH),
    "an output": ("m = Mul(r, f) y = Conv(m, w)", "float[] m, float[] y"),
    "a picture": ("m = Mul(x, f) n = Mul(r, r) y = Conv(m, w)", "float[] n, float[] y"),
    "a picture changed before": ("s = Sub(x, t) m = Mul(s, f) c = Mul(r, r) y = Conv(m, w)", BOTH),
    "the weights": ("m = Mul(r, f) y = Conv(q, m)", "float[] y"),
    "padded, and a factor of nothing": (f"m = Mul(r, z) a = Add(m, t) y = Conv {PADDED} (a, w)", "float[] y"),
    "padded, with a factor for each": (f"m = Mul(r, v) a = Add(m, t) y = Conv {PADDED} (a, w)", "float[] y"),
    "a product read twice": (f"m = Mul(r, f) a = Add(m, t) c = Conv {PADDED} (a, w) y = Relu(m)", BOTH),
    "no constant": ("m = Mul(r, r) y = Conv(m, w)", "float[] y"),
    "places": ("m = Mul(r, p) y = Conv(m, w)", "float[] y"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_stays(name: str) -> None:
    body, outputs = KEPT[name]
    more = {"f": FACTOR, "t": TERM, "z": np.float32(0), "v": FACTORS, "p": normal(1, 6, 9, 9), "q": normal(2, 6, 9, 9)}
    untouched(affine_ahead, network(body, outputs=outputs, **more))
