"""What counts as the same answer, on cases that can be told by eye."""

import numpy as np
import pytest

from runtime.tasks import alike
from runtime.tasks.alike import ALIKE, decided


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def test_classes() -> None:
    one, other = rows([1, 2, 0], [3, 1, 0], [0, 0, 1], [5, 0, 0]), rows([9, 2, 0], [3, 2, 1], [0, 0, 9], [1, 0, 0])
    assert ALIKE["classification"].percent(one, other, 0.0) == 75


@pytest.mark.parametrize(("middle", "percent"), [(0.0, 100.0), (0.5, 50.0)])
def test_of_one_score_the_side_of_the_middle(middle: float, percent: float) -> None:
    one, other = rows([0.4], [0.7]), rows([0.6], [0.9])
    assert ALIKE["binary"].percent(one, other, middle) == percent
    np.testing.assert_array_equal(decided(one, middle), [middle == 0.0, True])


def test_labels_that_neither_gives_do_not_count() -> None:
    one, other = -np.ones((2, 1000)), -np.ones((2, 1000))
    one[0, [1, 2]] = one[1, 3] = 1
    other[0, [2, 7]] = other[1, 3] = 1
    assert ALIKE["multilabel"].percent(one, other, 0.0) == 50  # two of the four given
    assert ALIKE["multilabel"].percent(one, other, 2.0) == 100  # none is given


def test_the_nearest_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.array([0.0, 0.1, 1.0, 1.15])
    one = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    other = one * np.array([[3.0], [0.2], [1.0], [50.0]])  # lengths do not matter
    same = ALIKE["features"].percent
    assert same(one, other, 0.0) == 100
    angles[2] = 0.15  # now nearer to the second than to the fourth, and the second nearer to it
    moved = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert same(one, moved, 0.0) == 50
    monkeypatch.setattr(alike, "_AT_ONCE", 3)
    assert same(one, moved, 0.0) == 50
    assert same(one[:1], other[:1], 0.0) == 100


def test_places_of_a_score_map() -> None:
    one = np.zeros((1, 2, 2, 2), np.float32)
    one[0, 1, 0, 0] = 1
    other = one.copy()
    other[0, 1, 1, 1] = 1
    assert ALIKE["score-map"].percent(one, other, 0.0) == 75


def test_in_words() -> None:
    for task, row in ALIKE.items():
        said = row.said(97.5, 900)
        assert "97.50 %" in said and "900 pictures" in said, task
    assert "12 noise" in ALIKE["features"].said(1, 12, "noise")
