"""Pooling in the form that engines have kernels for, and what looks alike and must be left alone.

onnxruntime, its own optimizer off, runs every graph before and after. The tolerance stands at each check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporters import pooling
from tests.exporters.graphs import check, feeds_for, parse, rewritten, run, untouched

# ---- global_pooling

# 30 numbers summed in another order.
MEAN = {"atol": 2e-6}


def mean(call: str, dims: str = "N,4,5,6", opset: int = 18, **weights: Any) -> onnx.ModelProto:
    return parse(f"(float[{dims}] x) => (float[] y) {{ y = {call} }}", opset=opset, **weights)


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, -2], [2, -1]], ids=str)
@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", "GlobalAveragePool"),
        ("keepdims = 1, ", "GlobalAveragePool"),
        ("keepdims = 0, ", "GlobalAveragePool Flatten"),
    ],
)
def test_mean_over_space(attributes: str, expected: str, axes: list[int]) -> None:
    old = mean(f"ReduceMean<{attributes}axes = {axes}>(x)", opset=17)
    check(pooling.global_pooling, old, expected, **MEAN)
    new = mean(f"ReduceMean<{attributes}noop_with_empty_axes = 1>(x, axes)", axes=np.array(axes))
    check(pooling.global_pooling, new, expected, **MEAN)


@pytest.mark.parametrize(
    "proto",
    [
        *(
            mean("ReduceMean(x, axes)", axes=np.array(axes))
            for axes in ([1, 2], [2], [1, 2, 3], [0, 1], [-3, -2], [1, 3])
        ),
        mean("ReduceMean(x, axes)", axes=np.zeros(0, np.int64)),
        mean("ReduceMean<noop_with_empty_axes = 1>(x, axes)", axes=np.zeros(0, np.int64)),
        mean("ReduceMean(x)"),
        mean("ReduceMean(x)", opset=13),
        *(mean(f"{kind}(x, axes)", axes=np.array([2, 3])) for kind in ("ReduceSum", "ReduceMax", "ReduceL2")),
        mean("ReduceMean(x, axes)", "N,4,5,6,7", axes=np.array([2, 3])),
        mean("ReduceMean(x, axes)", "N,4,5,6,7", axes=np.array([-2, -1])),
        mean("ReduceMean(x, axes)", "N,4,5", axes=np.array([1, 2])),
        parse("(double[N,4,5,6] x) => (double[] y) { y = ReduceMean(x, axes) }", axes=np.array([2, 3])),
    ],
    ids=lambda proto: onnx.printer.to_text(proto.graph.node[0]),
)
def test_other_reductions_stay(proto: onnx.ModelProto) -> None:
    untouched(pooling.global_pooling, proto)


@pytest.mark.parametrize("axes", [[1, 2], [-2, 1], [-3, -2]], ids=str)
def test_mean_over_a_channels_last_map(axes: list[int]) -> None:
    old = mean(f"ReduceMean<keepdims = 0, axes = {axes}>(x)", opset=17)
    result = check(pooling.global_pooling, old, "Transpose GlobalAveragePool Flatten", **MEAN)
    (perm,) = result.graph.node[0].attribute
    assert list(perm.ints) == [0, 3, 1, 2]


def test_axes_known_only_at_run_time() -> None:
    model = ir.from_proto(parse("(float[N,4,5,6] x, int64[2] axes) => (float[] y) { y = ReduceMean(x, axes) }"))
    pooling.global_pooling(model)
    assert [node.op_type for node in model.graph] == ["ReduceMean"]


# ---- max_pool_padding


def padded(body: str, *, opset: int = 18, pads: Any = (0, 0, 1, 1, 0, 0, 1, 1), **weights: Any) -> onnx.ModelProto:
    text = f"(float[N,2,6,6] x) => (float[] y) {{ {body} }}"
    return parse(text, opset=opset, pads=np.array(pads), **weights)


POOL = "MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(p)"


@pytest.mark.parametrize("first", ["Relu(x)", "Sigmoid(x)", "HardSigmoid(x)", "Clip(x, zero)"])
def test_zeros_before_a_max_of_what_is_positive(first: str) -> None:
    weights = {"zero": np.float32(0)} if "zero" in first else {}
    operator = first.partition("(")[0]
    for opset in (13, 18, 22):
        proto = padded(f"r = {first} p = Pad(r, pads) y = {POOL}", opset=opset, **weights)
        check(pooling.max_pool_padding, proto, f"{operator} MaxPool", atol=0)


def test_padding_adds_up() -> None:
    pool = "MaxPool<kernel_shape = [4, 3], strides = [2, 2], pads = [1, 0, 2, 1]>(p)"
    proto = padded(f"r = Relu(x) p = Pad(r, pads) y = {pool}", pads=(0, 0, 1, 2, 0, 0, 1, 0))
    result = check(pooling.max_pool_padding, proto, "Relu MaxPool", atol=0)
    (pads,) = (list(a.ints) for a in result.graph.node[1].attribute if a.name == "pads")
    assert pads == [2, 2, 3, 1]


SHOWN = {
    "negative numbers": f"p = Pad(x, pads) y = {POOL}",
    "below zero after all": f"r = Clip(x, low) p = Pad(r, pads) y = {POOL}",
    "no lower bound": f"r = Clip(x, , high) p = Pad(r, pads) y = {POOL}",
}


@pytest.mark.parametrize("name", SHOWN)
def test_onnxruntime_does_not_merge_what_it_must_not(name: str) -> None:
    """Its optimizer turns the zeros into minus infinity; a Pad that names its axes it leaves alone."""
    numbers = {"low": np.float32(-9), "high": np.float32(1)}
    proto = padded(SHOWN[name], **{key: value for key, value in numbers.items() if key in SHOWN[name]})
    result = rewritten(pooling.max_pool_padding, proto)
    assert [node.op_type for node in result.graph.node] == [node.op_type for node in proto.graph.node]
    feeds = {"x": -1 - np.abs(feeds_for(proto, 3)["x"])}  # every zero of the border wins
    expected = run(proto, feeds)[0]
    np.testing.assert_array_equal(run(result, feeds)[0], expected)
    np.testing.assert_array_equal(run(result, feeds, optimized=True)[0], expected)


PADDED_OTHERWISE = {
    "channels": ("r = Relu(x) p = Pad(r, pads) y = " + POOL, {"pads": (0, 1, 1, 1, 0, 0, 1, 1)}),
    "as wide as the kernel": ("r = Relu(x) p = Pad(r, pads) y = " + POOL, {"pads": (0, 0, 3, 0, 0, 0, 0, 0)}),
    "cropping": ("r = Relu(x) p = Pad(r, pads) y = " + POOL, {"pads": (0, 0, -1, 0, 0, 0, 0, 0)}),
    "rounded up": (
        "r = Relu(x) p = Pad(r, pads) y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(p)",
        {"pads": (0, 0, 0, 0, 0, 0, 1, 1)},
    ),
    "padded by the pool itself": (
        'r = Relu(x) p = Pad(r, pads) y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER">(p)',
        {},
    ),
    "axes in another order": (
        "r = Relu(x) p = Pad(r, pads, , axes) y = " + POOL,
        {"axes": np.array([2, 3, 0, 1]), "pads": (1, 1, 0, 0, 1, 1, 0, 0)},
    ),
    "ones": ("r = Relu(x) p = Pad(r, pads, one) y = " + POOL, {"one": np.float32(1)}),
    "the edge": ('r = Relu(x) p = Pad<mode = "edge">(r, pads) y = ' + POOL, {}),
    "a mean": ("r = Relu(x) p = Pad(r, pads) y = AveragePool<kernel_shape = [3, 3]>(p)", {}),
    "before opset 18": ("p = Pad(x, pads) y = " + POOL, {"opset": 17}),
}


@pytest.mark.parametrize("name", PADDED_OTHERWISE)
def test_padding_that_a_pool_cannot_do(name: str) -> None:
    body, more = PADDED_OTHERWISE[name]
    untouched(pooling.max_pool_padding, padded(body, **more))


def test_indices_count_the_padding() -> None:
    text = f"(float[N,2,6,6] x) => (float[] y, int64[] i) {{ r = Relu(x) p = Pad(r, pads) y, i = {POOL} }}"
    untouched(pooling.max_pool_padding, parse(text, pads=np.array((0, 0, 1, 1, 0, 0, 1, 1))))


def test_a_padded_map_that_is_read_again() -> None:
    text = (
        f"(float[N,2,6,6] x) => (float[] y, float[] z, float[] n) {{ r = Relu(x) p = Pad(r, pads) y = {POOL} "
        "z = MaxPool<kernel_shape = [2, 2]>(p) n = Neg(p) }"
    )
    proto = parse(text, pads=np.array((0, 0, 1, 1, 0, 0, 1, 1)))
    check(pooling.max_pool_padding, proto, "Relu Pad MaxPool MaxPool Neg", atol=0)
