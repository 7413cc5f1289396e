"""The layer that explanations start from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from exporters.passes import explain_layer
from tests.exporters.graphs import normal, parse


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
