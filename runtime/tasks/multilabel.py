"""Classes that are there or not, each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.metadata import Labels
from runtime.tasks.binary import sigmoid
from runtime.tasks.classification import Classification, answers

if TYPE_CHECKING:
    import numpy.typing as npt


def classify_multilabel(
    scores: npt.NDArray[np.float32], labels: Labels, *, top: int = 5, logits: bool = True, trained: bool = True
) -> list[Classification]:
    """Answers for a batch of scores (N, classes), whose probabilities do not add up to 1.

    Raises InvalidInput when ``top`` is below 1.
    """
    return answers(sigmoid(scores) if logits else scores, scores, labels, top=top, trained=trained)
