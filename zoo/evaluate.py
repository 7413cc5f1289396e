"""Accuracy of a file on labelled pictures, and how fast it gets there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidArtifact, InvalidInput
from runtime.model import Model
from runtime.tasks.alike import ONE_CLASS
from runtime.tasks.classification import top_indices
from zoo.datasets import Sample


@dataclass(frozen=True, slots=True)
class Evaluation:
    """top1, top5 in percent; images_per_s from file to answer, decoding included."""

    top1: float
    top5: float
    images: int
    images_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def check_task(model: Model) -> None:
    """Raise InvalidInput where a picture's one label cannot be held against what the model gives."""
    if model.task not in ONE_CLASS:
        raise InvalidInput(
            f"{model.path}: is of task {model.task}: accuracy is measured where one class is right, "
            "in files of task classification or binary"
        )


def evaluate(model: Model, samples: Iterable[Sample], *, batch_size: int = 8) -> Evaluation:
    """Run every sample and count how often its class is the first, and among the first five.

    The one score of a binary model stands for both of its classes.

    Raises InvalidInput for a task without exclusive classes, InvalidArtifact for scores that are not finite, and
    InvalidImage for a picture that cannot be read: a figure over fewer pictures would be another figure.
    """
    check_task(model)
    right: list[int] = []

    def images() -> Iterable[Any]:
        for sample in samples:
            right.append(sample.index)
            yield sample.image

    first = five = done = 0
    start = time.perf_counter()
    for scores in model.scores_many(images(), batch_size=batch_size):
        if not np.isfinite(scores).all():
            raise InvalidArtifact(f"{model.path}: its scores are not finite: wrong weights, or the wrong preprocessing")
        ranked = top_indices(_ranking(model, scores), 5)
        answers = right[done : done + len(ranked)]
        first += sum(int(row[0]) == answer for row, answer in zip(ranked, answers, strict=True))
        five += sum(answer in row for row, answer in zip(ranked, answers, strict=True))
        done += len(ranked)
    seconds = time.perf_counter() - start
    if not done:
        raise InvalidInput("no pictures to evaluate")
    return Evaluation(100 * first / done, 100 * five / done, done, done / seconds)


def _ranking(model: Model, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """One number per class, (N, classes): a binary model's one score against what is half-way."""
    if model.task != "binary":
        return scores
    half = 0.5 if model.metadata is not None and model.metadata.scores == "probabilities" else 0.0
    return np.concatenate([np.full_like(scores, half), scores], axis=-1)
