"""Answers that hang by a hair: where grey levels a little off could give another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from runtime.metadata import Task

if TYPE_CHECKING:
    import numpy.typing as npt

NEAR = 0.12
"""Of the spread (standard deviation) of a picture's logits, by which the best stands above the second. Trained networks
spread them by 3, so that a probability is then less than 1.5 times the other. Where the fast
decoding changed a trained MobileNetV2's answer, photos at camera size, the two were nearly always nearer."""

LEVEL = 0.25
"""The same for the one logit of two sides, which has no spread."""


def undecided(scores: npt.NDArray[np.float32], task: Task, *, logits: bool) -> npt.NDArray[np.bool_]:
    """Whether the first class of each picture might be another, (N, classes) -> (N,); never without classes."""
    if task == "binary":
        flat = scores.reshape(len(scores), -1)[:, 0]
        odds = flat if logits else _log(flat) - _log(1 - flat)
        return np.asarray(np.abs(odds) < LEVEL)
    if task not in ("classification", "multilabel") or scores.shape[-1] < 2:
        return np.zeros(len(scores), np.bool_)
    values = scores if logits else _log(scores)
    second, first = np.partition(values, -2, axis=-1)[:, -2:].T
    return np.asarray(first - second < NEAR * values.std(axis=-1))


def _log(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.log(np.maximum(probabilities, 1e-30)), np.float32)
