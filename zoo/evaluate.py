"""Accuracy of a file on labelled pictures, and how fast it gets there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from runtime.errors import InvalidInput
from runtime.model import Model
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


def evaluate(model: Model, samples: Iterable[Sample], *, batch_size: int = 8) -> Evaluation:
    """Run every sample and count how often its class is the first, and among the first five.

    Raises InvalidImage for a picture that cannot be read: a figure over fewer pictures would be another figure.
    """
    right: list[int] = []

    def images() -> Iterable[Any]:
        for sample in samples:
            right.append(sample.index)
            yield sample.image

    first = five = done = 0
    start = time.perf_counter()
    for scores in model.scores_many(images(), batch_size=batch_size):
        ranked = top_indices(scores, 5)
        answers = right[done : done + len(ranked)]
        first += sum(int(row[0]) == answer for row, answer in zip(ranked, answers, strict=True))
        five += sum(answer in row for row, answer in zip(ranked, answers, strict=True))
        done += len(ranked)
    seconds = time.perf_counter() - start
    if not done:
        raise InvalidInput("no pictures to evaluate")
    return Evaluation(100 * first / done, 100 * five / done, done, done / seconds)
