"""What of a network's answers counts, and how far others are from it."""

from typing import Any

import numpy as np
import pytest

from exporters.quantize.reference import Apart, Reference, ending, telling
from runtime.tasks.alike import ALIKE
from tests.exporters.graphs import parse
from tests.exporters.quantize.networks import pictures


def test_tensors_are_held_against_what_tells_pictures_apart() -> None:
    random = np.random.default_rng(0)
    same, own = random.normal(size=(1, 3, 5)), random.normal(size=(12, 3, 5))
    own -= own.mean(axis=0)
    wrong = random.normal(size=(12, 3, 5))
    for centred, share in ((True, own), (False, own + 9 * same)):
        apart = Apart(2, centred=centred)
        for rows in np.array_split(np.arange(12), 5):
            exact = (own + 9 * same)[rows]
            apart.add([exact, exact], [exact + wrong[rows], exact])
        assert apart.squares() == pytest.approx([np.square(wrong).sum() / np.square(share).sum(), 0.0])


def test_what_is_the_same_for_every_picture_is_held_against_itself() -> None:
    apart, boxes = Apart(1, centred=True), np.full((4, 2), 3.0)
    apart.add([boxes], [boxes + 0.3])
    assert apart.squares() == pytest.approx([0.01])
    apart.add([boxes[:1]], [np.full((1, 2), np.nan)])
    assert apart.squares() == [np.inf]


def test_the_outputs_that_count() -> None:
    def network(factor: float) -> Any:
        graph = "(float[N,3,16,16] input) => (float[N,3] scores, float[N,3,16,16] map) {"
        graph += "mean = GlobalAveragePool (input)  scores = Flatten (mean)  map = Mul (input, k) }"
        return parse(graph, k=np.float32(factor))

    few = pictures(9)
    answers, raw = Reference(network(1), few, ALIKE["classification"]), Reference(network(1), few, None)
    assert (answers.outputs, raw.outputs) == (["scores"], ["scores", "map"])
    assert answers.distance(network(1)) == raw.distance(network(1)) == answers.distance(network(1.5)) == 0
    assert raw.distance(network(1.5)) > 0.5 / 2**0.5  # of one of the two half of its whole, more of what differs


def test_what_logits_have_in_common_tells_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    moved = logits + np.arange(5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(telling(moved), telling(logits), atol=1e-5)
    one: Any = logits[:, :1]
    np.testing.assert_array_equal(telling(logits, rivals=False), logits)
    np.testing.assert_array_equal(telling(one), one)  # of a single one the sign is the answer


def test_probabilities_tell_what_their_logits_do() -> None:
    logits = 5 * np.random.default_rng(0).normal(size=(5, 7))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(telling(shares.astype(np.float32), "Softmax"), telling(logits), atol=1e-5)
    each = (1 / (1 + np.exp(-logits))).astype(np.float32)
    np.testing.assert_allclose(telling(each, "Sigmoid"), telling(logits), atol=0.05)  # float32 ends near 1
    assert np.isfinite(telling(np.float32([[0.0, 1.0]]), "Softmax")).all()
    assert np.abs(telling(np.float32([[1.0]]), "Sigmoid")) < 17
    net = parse(
        "(float[N,3] x) => (float[N,3] y)"
        "{ r = Relu (x)  s = Softmax <axis = 1> (r)  y = Flatten (s)  z = Identity (r) }"
    )
    assert [ending(net.graph.node, name) for name in "yszrx"] == ["Softmax", "Softmax", "", "", ""]
