"""Scores -> classes, of each task that has classes. The oracle is Python's own float64 arithmetic."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInput
from runtime.metadata import Labels, Task
from runtime.tasks import ANSWERS, METHODS
from runtime.tasks.binary import classify_binary, sigmoid, two_sided
from runtime.tasks.classification import classify
from runtime.tasks.multilabel import classify_multilabel

TWO = Labels(("cat", "dog"), ids=("n1", "n2"))
THREE = Labels(("a", "b", "c"))


def exact(logit: float) -> float:
    """The sigmoid in float64, without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def test_every_task_is_answered_or_has_its_method() -> None:
    assert {*ANSWERS, *METHODS, "other"} == set(get_args(Task))
    assert not ANSWERS.keys() & METHODS.keys()


@given(st.floats(-87, 87, width=32))
def test_sigmoid(logit: float) -> None:
    # exp of float32 is right to 1 in 2^23 or so, of its result; beyond 87 it is no normal float32.
    assert float(sigmoid(np.float32([logit]))[0]) == pytest.approx(exact(logit), rel=1e-6)


def test_sigmoid_at_the_ends() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ends = sigmoid(np.float32([-np.inf, -3e38, -200, 0, 200, 3e38, np.inf]))
    np.testing.assert_array_equal(ends, np.float32([0, 0, 0, 0.5, 1, 1, 1]))
    assert ends.dtype == np.float32


def test_binary_answers_with_both_labels() -> None:
    first, second, third = classify_binary(np.float32([[2.0], [-3.0], [0.0]]), TWO)
    assert [guess.label for guess in first.top] == ["dog", "cat"]
    assert [guess.probability for guess in first.top] == pytest.approx([exact(2), exact(-2)])
    assert (second.label, second.index, second.top[0].id) == ("cat", 0, "n1")
    assert second.probability == pytest.approx(exact(3))
    assert third.label == "cat"  # as every tie: the lower index
    assert third.probability == 0.5


def test_binary_of_probabilities() -> None:
    first, second = classify_binary(np.float32([[0.75], [0.1]]), TWO, logits=False, trained=False)
    assert [(g.label, g.probability) for g in first.top] == [("dog", 0.75), ("cat", 0.25)]
    assert (second.label, second.trained) == ("cat", False)
    assert second.probability == pytest.approx(0.9)


def test_the_improbable_class_of_a_binary_keeps_its_digits() -> None:
    (answer,) = classify_binary(np.float32([[30.0]]), TWO)
    assert answer.top[0].probability == 1.0
    assert answer.top[1].probability == pytest.approx(math.exp(-30), rel=1e-6)
    # Both probabilities round to the same 1.0 and 0.0: the logits still rank.
    assert classify_binary(np.float32([[-200.0]]), TWO)[0].label == "cat"


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6))
def test_binary_is_softmax_over_zero_and_the_logit(logits: list[float]) -> None:
    scores = np.float32(logits)[:, None]
    pairs = np.concatenate([np.zeros_like(scores), scores], axis=1)
    for one, other in zip(classify_binary(scores, TWO), classify(pairs, TWO), strict=True):
        assert [guess.index for guess in one.top] == [guess.index for guess in other.top]
        assert [g.probability for g in one.top] == pytest.approx([g.probability for g in other.top], rel=1e-5)


def test_two_sided_along_any_axis() -> None:
    scores = np.float32([[[1, -1]]])
    planes = two_sided(scores, logits=True, axis=0)
    assert planes.shape == (2, 1, 2)
    np.testing.assert_allclose(planes.sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(two_sided(np.float32([[0.25]]), logits=False), np.float32([[0.75, 0.25]]))


def test_multilabel_judges_each_class_for_itself() -> None:
    first, second = classify_multilabel(np.float32([[1, 3, -2], [-9, -8, -7]]), THREE)
    assert [(g.label, g.index) for g in first.top] == [("b", 1), ("a", 0), ("c", 2)]
    assert [g.probability for g in first.top] == pytest.approx([exact(3), exact(1), exact(-2)])
    assert second.label == "c"
    assert sum(g.probability for g in second.top) < 0.01


def test_multilabel_of_probabilities_and_of_large_logits() -> None:
    (answer,) = classify_multilabel(np.float32([[0.2, 0.9, 0.9]]), THREE, logits=False, top=2)
    assert [(g.label, g.probability) for g in answer.top] == [("b", pytest.approx(0.9)), ("c", pytest.approx(0.9))]
    (answer,) = classify_multilabel(np.float32([[100, 300, 200]]), THREE)
    assert [g.label for g in answer.top] == ["b", "c", "a"]  # all three are 1.0


@pytest.mark.parametrize("task", ANSWERS)
def test_top_below_one(task: str) -> None:
    labels = TWO if task == "binary" else THREE
    scores = np.zeros((1, 1 if task == "binary" else 3), np.float32)
    with pytest.raises(InvalidInput, match="top must be at least 1, not 0"):
        ANSWERS[task](scores, labels, top=0)
