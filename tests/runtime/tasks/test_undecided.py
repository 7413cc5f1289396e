"""What hangs by a hair is looked at again, and only that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.model import Model
from runtime.tasks import undecided as module
from runtime.tasks.undecided import LEVEL, NEAR, undecided
from tests.runtime.image.test_fast import jpeg, scene


def test_classes_that_are_nearly_level() -> None:
    # One step is the spread of 100 classes of which the others are evenly -1 and 1.
    others = np.tile([-1.0, 1.0], 49)
    near, far = ([*others, 5.0, 5.0 + gap] for gap in (0.1, 0.2))
    scores = np.array([near, far, [3.0] * 100, np.arange(100)], np.float32)
    spread = scores.std(axis=1)
    assert 0.1 < NEAR * spread[0] < NEAR * spread[1] < 0.2
    wanted = [True, False, False, True]  # all level: a network that says nothing gives nothing to decide
    assert undecided(scores, "classification", logits=True).tolist() == wanted
    exponents = np.exp(scores.astype(np.float64))
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    assert undecided(probabilities, "classification", logits=False).tolist()[:2] == wanted[:2]
    for scale in (1e-3, 1e3):  # untrained networks have small scores
        assert undecided(scores[:2] * np.float32(scale), "classification", logits=True).tolist() == wanted[:2]


def test_two_sides_of_one_score() -> None:
    scores = np.array([[0.9 * LEVEL], [-0.9 * LEVEL], [1.1 * LEVEL], [-4]], np.float32)
    assert undecided(scores, "binary", logits=True).tolist() == [True, True, False, False]
    assert undecided(1 / (1 + np.exp(-scores)), "binary", logits=False).tolist() == [True, True, False, False]
    assert undecided(np.array([[0.0], [1.0]], np.float32), "binary", logits=False).tolist() == [False, False]


def test_what_has_no_classes_is_never_undecided() -> None:
    assert not undecided(np.zeros((2, 5), np.float32), "features", logits=True).any()
    assert not undecided(np.zeros((2, 1), np.float32), "classification", logits=True).any()


@pytest.mark.parametrize("batch", ["batch", 2])
def test_it_is_then_decoded_exactly(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, batch: int | str
) -> None:
    pictures = [jpeg(scene(200, 150)), jpeg(scene(150, 200)), jpeg(scene(300, 160))]
    with Model(tiny(batch=batch)) as fast, Model(tiny(batch=batch), decode="exact") as exact:
        wanted = np.concatenate(list(exact.scores_many(pictures)))
        monkeypatch.setattr(module, "NEAR", 0.0)
        assert (np.concatenate(list(fast.scores_many(pictures))) != wanted).any(axis=1).all()
        monkeypatch.setattr(module, "NEAR", 1e9)
        np.testing.assert_allclose(np.concatenate(list(fast.scores_many(pictures))), wanted, rtol=1e-6, atol=1e-6)
        assert [one.label for one in fast.predict_many(pictures)] == [one.label for one in exact.predict_many(pictures)]
