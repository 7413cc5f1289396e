"""Scores -> classes: pure functions over arrays, and the answer a caller gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import InvalidInput
from runtime.metadata import Labels

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Guess:
    """One class and how probable the network holds it; ``id`` is the stable identifier, if there is one."""

    index: int
    label: str
    probability: float
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable classes of one picture, best first. ``trained`` is False for random weights."""

    top: tuple[Guess, ...]
    trained: bool = True

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.top[0].label

    @property
    def index(self) -> int:
        """Output index of the most probable class."""
        return self.top[0].index

    @property
    def probability(self) -> float:
        """Probability of the most probable class, 0 to 1."""
        return self.top[0].probability

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        note = "" if self.trained else " (untrained weights)"
        return f"{self.label} {self.probability:.1%}{note}"


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities along the last axis, computed without overflow. (..., classes) -> (..., classes)."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def top_indices(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Indices of the ``count`` largest scores, best first, lower index first among equals.

    (N, classes) -> (N, min(count, classes)).
    """
    count = min(count, scores.shape[-1])
    # Stable, so that ties and repeated runs give the same order.
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def classify(
    scores: npt.NDArray[np.float32], labels: Labels, *, top: int = 5, logits: bool = True, trained: bool = True
) -> list[Classification]:
    """Answers for a batch of scores (N, classes). Raises InvalidInput when ``top`` is below 1."""
    return answers(softmax(scores) if logits else scores, scores, labels, top=top, trained=trained)


def answers(
    probabilities: npt.NDArray[np.float32],
    ranking: npt.NDArray[np.float32],
    labels: Labels,
    *,
    top: int,
    trained: bool,
) -> list[Classification]:
    """One answer per row of ``probabilities`` (N, classes), its classes in the order of ``ranking`` (N, classes).

    Ranked by the scores: probabilities of large logits round to the same 1.0.
    Raises InvalidInput when ``top`` is below 1.
    """
    if top < 1:
        raise InvalidInput(f"top must be at least 1, not {top}")
    found = []
    for row, indices in zip(probabilities, top_indices(ranking, top).tolist(), strict=True):
        guesses = tuple(
            Guess(i, labels.names[i], float(row[i]), labels.ids[i] if labels.ids is not None else None) for i in indices
        )
        found.append(Classification(guesses, trained))
    return found
