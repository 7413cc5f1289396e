"""How alike the answers of two networks are, task by task: what a user of the one would notice of the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]

ONE_CLASS = ("classification", "binary")
"""Tasks where one class of a picture is the right one, so that labels can be held against the answers."""

_AT_ONCE = 1024  # pictures whose distances to all others are in memory


@dataclass(frozen=True, slots=True)
class Alike:
    """percent: (one network's scores, the other's, middle) -> 0 to 100, over all pictures.

    Of the scores (N, ...) above the middle, where each stands for itself, the answer is yes: 0 of logits, 0.5 of
    probabilities.
    same: the percentage in words. changes: what the rest of it does. exclusive: whether classes exclude each other.
    scores: what they are called before softmax or sigmoid.
    """

    percent: Callable[[Scores, Scores, float], float]
    same: str
    changes: str
    exclusive: bool = False
    scores: str = "logits"

    def said(self, percent: float, images: int, of: str = "pictures") -> str:
        """What was found, as a sentence."""
        return self.same.format(percent=f"{percent:.2f} %", pictures=f"{images} {of}")


def decided(scores: Scores, middle: float) -> npt.NDArray[np.int64]:
    """Which class is first: (N, classes, ...) -> (N, ...); of a single score whether it is above the middle."""
    return scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > middle).astype(np.int64)


def same_class(one: Scores, other: Scores, middle: float) -> float:
    """Percent of the pictures, of a score map of the places, with the same first class."""
    return 100 * float((decided(one, middle) == decided(other, middle)).mean())


def same_labels(one: Scores, other: Scores, middle: float) -> float:
    """Percent of the labels given by either that are given by both; labels that neither gives would hide the rest."""
    first, second = one > middle, other > middle
    given = int((first | second).sum())
    return 100 * int((first & second).sum()) / given if given else 100.0


def same_neighbour(one: Scores, other: Scores, middle: float) -> float:
    """Percent of the pictures to which the same other one is nearest, by the angle between features (N, dimensions)."""
    return 100 * float((_nearest(one) == _nearest(other)).mean()) if len(one) > 1 else 100.0


def _nearest(features: Scores) -> npt.NDArray[np.int64]:
    rows = features.reshape(len(features), -1).astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    found = []
    for start in range(0, len(rows), _AT_ONCE):
        near = rows[start : start + _AT_ONCE] @ rows.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf  # itself
        found.append(near.argmax(axis=1))
    return np.concatenate(found)


_CLASS = Alike(same_class, "same answer for {percent} of {pictures}", "of the answers change", exclusive=True)

# To let files of a task be compared, add a row; of others only the scores are.
ALIKE: dict[str, Alike] = {
    "classification": _CLASS,
    "binary": _CLASS,
    "multilabel": Alike(
        same_labels, "{percent} of the labels given to {pictures} are the same", "of the labels given change"
    ),
    "features": Alike(
        same_neighbour,
        "same nearest picture for {percent} of {pictures}",
        "of the pictures get another nearest one",
        scores="features",
    ),
    "score-map": Alike(
        same_class, "same answer at {percent} of the places of {pictures}", "of the places change", exclusive=True
    ),
}
