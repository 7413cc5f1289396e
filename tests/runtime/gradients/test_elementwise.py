"""Where a derivative does not exist, and where a rule takes a shorter way."""

from __future__ import annotations

import numpy as np

from runtime.gradients import ByWeights, add_gradients
from tests.runtime.gradients.running import graph, node, run64, session

X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


def test_kinks_follow_torch() -> None:
    """ReLU'(0) = 0, ReLU6'(0) = ReLU6'(6) = 0, the first of equal maxima, equal shares for Max and ReduceMax."""
    x = np.array([[-0.0, 0.0, 6.0, 1e-30]], np.float32)
    relu = session(add_gradients(graph(node("Relu", "x", "y")), ["x"], seed=ByWeights(), plain=False))
    assert relu.run(None, {"x": x, "seed": np.ones_like(x)})[0].tolist() == [[0, 0, 1, 1]]
    six = graph(node("Clip", "x", "y", min=0.0, max=6.0), opset=9)
    clip = session(add_gradients(six, ["x"], seed=ByWeights(), plain=False))
    assert clip.run(None, {"x": x, "seed": np.ones_like(x)})[0].tolist() == [[0, 0, 0, 1]]
    nearly = np.nextafter(np.float32(6), np.float32(0))
    assert clip.run(None, {"x": np.full((1, 4), nearly), "seed": np.ones_like(x)})[0].tolist() == [[1] * 4]
    pool = graph(node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2]), shape=(1, 1, 4, 4))
    ones = {"x": np.ones((1, 1, 4, 4), np.float32), "seed": np.ones((1, 1, 2, 2), np.float32)}
    found = session(add_gradients(pool, ["x"], seed=ByWeights(), plain=False)).run(None, ones)[0]
    assert found[0, 0].tolist() == [[1, 0, 1, 0], [0] * 4] * 2
    most = session(
        add_gradients(graph(node("ReduceMax", "x", "y", keepdims=1), opset=17), ["x"], seed=ByWeights(), plain=False)
    )
    assert most.run(None, {"x": np.ones((1, 4), np.float32), "seed": np.ones((1, 1), np.float32)})[0].tolist() == [
        [0.25] * 4
    ]


def test_a_gate_is_differentiated_at_once_where_nothing_else_reads_it() -> None:
    """x sigmoid(x), and the same with a second reader of the sigmoid; wrt the sigmoid itself it is x."""
    gate, product = node("Sigmoid", "x", "s"), node("Mul", "x s", "m")
    x, seed = X[0, 0, :, :4], X[0, 1, :, :4]
    s = 1 / (1 + np.exp(-x.astype(float)))
    alone = session(add_gradients(graph(gate, product, node("Neg", "m", "y")), ["x"], seed=ByWeights(), plain=False))
    slope = s + x * s * (1 - s)
    np.testing.assert_allclose(alone.run(None, {"x": x, "seed": seed})[0], -seed * slope, atol=1e-6)  # float32
    both = session(add_gradients(graph(gate, product, node("Add", "m s", "y")), ["x"], seed=ByWeights(), plain=False))
    np.testing.assert_allclose(both.run(None, {"x": x, "seed": seed})[0], seed * (slope + s * (1 - s)), atol=1e-6)
    at = session(add_gradients(graph(gate, product, node("Neg", "m", "y")), ["s", "x"], seed=ByWeights(), plain=False))
    for found, slope_at in zip(at.run(None, {"x": x, "seed": seed}), (x, slope), strict=True):
        np.testing.assert_allclose(found, -seed * slope_at, atol=1e-6)


def test_the_length_of_nothing_has_no_direction() -> None:
    model = graph(node("ReduceL2", "x", "y", axes=[1]), opset=17)
    made = session(add_gradients(model, ["x"], seed=ByWeights(), plain=False))
    found = made.run(None, {"x": np.zeros((2, 4), np.float32), "seed": np.ones((2, 1), np.float32)})[0]
    assert found.tolist() == [[0] * 4] * 2


def test_half_precision_takes_no_steep_slope() -> None:
    """A slope of 2^126 is infinite in float16; there the mask is a comparison."""
    model = graph(node("Relu", "x", "y"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = 10
    made = add_gradients(model, ["x"], seed=ByWeights(), plain=False)
    assert [entry.op_type for entry in made.graph.node if entry.op_type == "HardSigmoid"] == []
    x = np.array([[-1, 0, 1, 2]], np.float16)
    np.testing.assert_array_equal(run64(made, {"x": x, "seed": np.ones_like(x)})[0], [[0, 0, 1, 1]])
