"""The guard: a smaller file measured against the float32 one on pictures that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.quantize.observe import Progress, telling
from exporters.quantize.timing import milliseconds
from exporters.source import FloatArray
from runtime.image import ImageSource, preprocess
from runtime.model import Model
from runtime.tasks.alike import ALIKE, Alike

FEW = 200
"""Below this many pictures a drop of half a point is one picture, or none."""

CHANGED_PER_POINT = 10.0
"""Without labels, percent of changed answers that stand for a point of accuracy lost.

Of the answers that quantization changes many were wrong before, or are right after: 6 to 33 percent changed for each
point that mobilenet_v2, squeezenet1_1 and mobilenet_v3_small lost, where they lost any (benchmarks/int8.py on 900
photos, 2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-21).
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """images: measured on. agreement: percent, as ``alike`` has it.
    distance: of the logits, norm over norm; of the logits that probabilities tell of, where those are the scores.

    top1, top5: (float32, smaller) in percent, None without labels.
    milliseconds: (float32, smaller), medians of interleaved runs; None where the target is not at hand.
    alike: what counts for files of this task.
    """

    images: int
    agreement: float
    distance: float
    top1: tuple[float, float] | None
    top5: tuple[float, float] | None
    milliseconds: tuple[float, float] | None
    alike: Alike = ALIKE["classification"]

    @property
    def ratio(self) -> float | None:
        """Time of the smaller file over that of the float32 one."""
        return self.milliseconds and self.milliseconds[1] / self.milliseconds[0]

    @property
    def drop(self) -> float:
        """Points of top-1 that are lost; without labels what the changed answers stand for."""
        return self.top1[0] - self.top1[1] if self.top1 else (100 - self.agreement) / CHANGED_PER_POINT

    def complaint(self, max_drop: float) -> str | None:
        """Why this file should not be shipped; None when it may."""
        if self.drop > max_drop + 1e-9:
            lost = (
                f"top-1 falls from {self.top1[0]:.2f} to {self.top1[1]:.2f} %"
                if self.top1
                else f"{100 - self.agreement:.1f} % {self.alike.changes}"
            )
            return f"{lost} on {self.images} pictures, {max_drop} points allowed"
        if self.milliseconds and self.milliseconds[1] >= self.milliseconds[0]:
            return f"it is not faster: {self.milliseconds[1]:.3g} ms against {self.milliseconds[0]:.3g} ms in float32"
        return None


def measure(
    float_file: Path,
    smaller_file: Path,
    images: Sequence[ImageSource],
    answers: Sequence[int] | None,
    progress: Progress,
    *,
    engine: str = "onnxruntime",
    timed: bool = True,
) -> Measured:
    """Compare two files of the same task in an engine, each by its own preprocessing. timed: compare times too.

    Raises InvalidImage, and DeviceUnavailable.
    """
    logits: list[tuple[FloatArray, FloatArray]] = []
    with Model(float_file, engine=engine) as exact, Model(smaller_file, engine=engine) as small:
        size, middle, alike = exact.batch_size or 8, 0.0 if exact.logits else 0.5, ALIKE[exact.task]
        for batch in _batches(images, size):
            fed = _fed(batch, exact)
            same = fed if small.rule == exact.rule else _fed(batch, small)
            logits.append((exact.run(fed)[: len(batch)], small.run(same)[: len(batch)]))
            progress("measuring", len(logits) * size, len(images))
        ones = [_fed(images[:1], exact), _fed(images[:1], small)]
    wanted, got = (np.concatenate(part).astype(np.float64) for part in zip(*logits, strict=True))
    form = "" if exact.logits else "Sigmoid" if wanted.shape[1] == 1 or not alike.exclusive else "Softmax"
    apart = [telling(some, form, rivals=alike.exclusive) for some in (wanted, got)] if form else [wanted, got]
    both = milliseconds([str(float_file), str(smaller_file)], ones, engine=engine) if timed else None
    if not alike.exclusive:
        answers = None
    return Measured(
        images=len(images),
        agreement=alike.percent(wanted, got, middle),
        distance=float(np.linalg.norm(apart[1] - apart[0]) / max(float(np.linalg.norm(apart[0])), 1e-12)),
        top1=None if answers is None else (_right(wanted, answers, 1, middle), _right(got, answers, 1, middle)),
        top5=None if answers is None else (_right(wanted, answers, 5, middle), _right(got, answers, 5, middle)),
        milliseconds=(both[0], both[1]) if both else None,
        alike=alike,
    )


def _fed(images: Sequence[ImageSource], model: Model) -> npt.NDArray[Any]:
    """What the model takes for pictures, filled up to the batch that it is frozen to."""
    pixels = np.concatenate([preprocess(image, model.rule) for image in images])
    missing = (model.batch_size or len(images)) - len(images)
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])


def _batches(images: Sequence[ImageSource], size: int) -> Iterator[list[ImageSource]]:
    pending = iter(images)
    while batch := list(islice(pending, size)):
        yield batch


def _right(scores: npt.NDArray[np.float64], answers: Sequence[int], count: int, middle: float) -> float:
    """Percent of pictures whose class is among the first ``count``."""
    if scores.shape[1] == 1:
        scores = np.concatenate([np.full_like(scores, middle), scores], axis=1)
    rank = (scores > np.take_along_axis(scores, np.asarray(answers)[:, None], axis=1)).sum(axis=1)
    return 100 * float((rank < count).mean())
