"""One score for two classes: how much rather the second than the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.metadata import Labels
from runtime.tasks.classification import Classification, answers

if TYPE_CHECKING:
    import numpy.typing as npt


def sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """1 / (1 + exp(-x)), elementwise, without overflow and without losing what is near 0."""
    small = np.exp(-np.abs(logits))  # never above 1
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small), dtype=np.float32)


def two_sided(scores: npt.NDArray[np.float32], *, logits: bool, axis: int = -1) -> npt.NDArray[np.float32]:
    """Probabilities of both classes from the one score along ``axis``: (..., 1, ...) -> (..., 2, ...)."""
    # From -x, not as 1 - p: the improbable class keeps its digits.
    both = [sigmoid(-scores), sigmoid(scores)] if logits else [1 - scores, scores]
    return np.concatenate(both, axis=axis)


def classify_binary(
    scores: npt.NDArray[np.float32], labels: Labels, *, top: int = 5, logits: bool = True, trained: bool = True
) -> list[Classification]:
    """Answers for a batch of scores (N, 1), over both labels. Raises InvalidInput when ``top`` is below 1."""
    ranking = np.concatenate([-scores, scores] if logits else [1 - scores, scores], axis=-1)
    return answers(two_sided(scores, logits=logits), ranking, labels, top=top, trained=trained)
