from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Labels, Window
from runtime.tasks.classification import softmax
from runtime.tasks.score_map import ScoreMap, whole_windows

WINDOW = Window(size=(20, 30), stride=(4, 8), crop_error=0.1)
NAMES = Labels(("a", "b", "c"))


@pytest.fixture
def found() -> ScoreMap:
    scores = np.zeros((3, 2, 4), np.float32)
    scores[1, 1, 2], scores[2, 0, 3], scores[0, 0, 0] = 5, 4, 3
    return ScoreMap(scores, NAMES, WINDOW, size=(25, 60))


def test_probabilities_are_softmax_at_every_place(found: ScoreMap) -> None:
    probabilities = found.probabilities()
    assert probabilities.shape == (3, 2, 4)
    for row in range(2):
        for column in range(4):
            expected = softmax(found.scores[None, :, row, column])[0]
            np.testing.assert_array_equal(probabilities[:, row, column], expected)


def test_best_says_what_and_where(found: ScoreMap) -> None:
    label, probability, box = found.best()
    assert (label, box) == ("b", (4, 16, 20, 30))
    assert probability == pytest.approx(np.exp(5) / (np.exp(5) + 2))
    assert found.best("c")[2] == (0, 24, 20, 30)
    assert found.best("a")[2] == (0, 0, 20, 30)
    with pytest.raises(UnknownName, match="no label 'd' among the 3"):
        found.best("d")


def test_boxes(found: ScoreMap) -> None:
    assert found.box_at(1, 3) == (4, 24, 20, 30)
    for row, column in ((2, 0), (0, 4), (-1, 0)):
        with pytest.raises(InvalidInput, match=r"no place .* in a map of 2 x 4"):
            found.box_at(row, column)


def test_one_score_for_two_labels() -> None:
    scores = np.float32([[[2, -3]]])
    found = ScoreMap(scores, Labels(("no", "yes")), WINDOW, size=(20, 38))
    probabilities = found.probabilities()
    assert probabilities.shape == (2, 1, 2)
    np.testing.assert_allclose(probabilities[1, 0], 1 / (1 + np.exp([-2.0, 3.0])), rtol=1e-6)
    assert found.best()[0] == "no"
    assert found.best("yes")[2] == (0, 0, 20, 30)


def test_probabilities_stay_what_they_are() -> None:
    scores = np.float32([[[0.1, 0.6]], [[0.9, 0.4]]])
    found = ScoreMap(scores, Labels(("a", "b")), WINDOW, size=(20, 38), logits=False)
    np.testing.assert_array_equal(found.probabilities(), scores)
    assert found.best() == ("b", pytest.approx(0.9), (0, 0, 20, 30))


def test_as_plain_values(found: ScoreMap) -> None:
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["labels"][1][2] == "b"
    assert plain["best"]["box"] == [4, 16, 20, 30]
    assert np.shape(plain["probabilities"]) == (2, 4)
    assert (plain["size"], plain["window"]) == ([25, 60], {"size": [20, 30], "stride": [4, 8]})


@given(st.integers(20, 60), st.integers(30, 80))
def test_what_is_beyond_the_last_whole_window_goes(height: int, width: int) -> None:
    batch = np.arange(2 * height * width, dtype=np.float32).reshape(1, 2, height, width)
    kept = whole_windows(batch, WINDOW)
    rows, columns = (kept.shape[2] - 20) // 4 + 1, (kept.shape[3] - 30) // 8 + 1
    assert kept.shape[2:] == (20 + 4 * (rows - 1), 30 + 8 * (columns - 1))
    # No window more would fit, and what is kept begins where the picture does.
    assert (rows, columns) == (
        sum(4 * i + 20 <= height for i in range(20)),
        sum(8 * i + 30 <= width for i in range(20)),
    )
    np.testing.assert_array_equal(kept, batch[:, :, : kept.shape[2], : kept.shape[3]])
    assert kept.flags.c_contiguous


def test_a_picture_smaller_than_a_window() -> None:
    for height, width in ((19, 50), (50, 29)):
        message = rf"cat.jpg: {height} x {width} pixels \(height x width\), smaller than the model's window of 20 x 30"
        with pytest.raises(InvalidInput, match=message):
            whole_windows(np.zeros((1, 3, height, width), np.float32), WINDOW, name="cat.jpg")
