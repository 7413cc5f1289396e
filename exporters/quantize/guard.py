"""The guard: a smaller file measured against the float32 one on pictures that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.quantize.observe import Progress
from exporters.quantize.reference import Apart, telling
from exporters.quantize.timing import milliseconds
from exporters.source import FloatArray
from runtime.image import ImageSource, preprocess, preprocess_whole
from runtime.model import Model
from runtime.tasks.alike import ALIKE, ONE_CLASS, Alike
from runtime.tasks.score_map import whole_windows

FEW = 200
"""Below this many pictures a drop of half a point is one picture, or none."""

CHANGED_PER_POINT = 10.0
"""Without labels, percent of changed answers that stand for a point of accuracy lost.

Of the answers that quantization changes many were wrong before, or are right after: 6 to 33 percent changed for each
point that mobilenet_v2, squeezenet1_1 and mobilenet_v3_small lost, where they lost any (benchmarks/int8.py on 900
photos, 2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-21).
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """max_drop: points of top-1, or what changed answers stand for. max_distance: of any output; None for any."""

    max_drop: float = 0.5
    max_distance: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """images: measured on. agreement: percent, as ``alike`` has it; None where that is.
    distances: of the outputs, norm over norm; of the logits that probabilities tell of, where those are the scores.
    alike: what counts for files of this task; None where nobody knows what they answer, and distances alone count.
    top1, top5: (float32, smaller) in percent, None without labels.
    milliseconds: (float32, smaller), medians of interleaved runs; None where the target is not at hand.
    """

    images: int
    agreement: float | None
    distances: Mapping[str, float]
    top1: tuple[float, float] | None
    top5: tuple[float, float] | None
    milliseconds: tuple[float, float] | None
    alike: Alike | None = ALIKE["classification"]

    @property
    def ratio(self) -> float | None:
        """Time of the smaller file over that of the float32 one."""
        return self.milliseconds and self.milliseconds[1] / self.milliseconds[0]

    @property
    def scores(self) -> str:
        """What the outputs are called."""
        return self.alike.scores if self.alike else "outputs"

    def said(self, of: str = "pictures") -> tuple[str, str]:
        """How many answers are the same, and how far outputs are apart, each in words; the former may be empty."""
        if self.alike is None or self.agreement is None:
            far = ", ".join(f"{name} {distance:.3f}" for name, distance in self.distances.items())
            return "", f"on {self.images} {of} {far} apart"
        return self.alike.said(self.agreement, self.images, of), f"{self.scores} {self.distance:.3f} apart"

    @property
    def distance(self) -> float:
        """Of the output that is the farthest from what it should be."""
        return max(self.distances.values())

    @property
    def drop(self) -> float:
        """Points of top-1 that are lost; without labels what the changed answers stand for. 0 where there are none."""
        if self.top1:
            return self.top1[0] - self.top1[1]
        return 0.0 if self.agreement is None else (100 - self.agreement) / CHANGED_PER_POINT

    def loss(self, limits: Limits) -> str | None:
        """What is lost beyond the limits; None when nothing is."""
        if limits.max_distance is not None and not self.distance <= limits.max_distance:
            worst = max(self.distances, key=self.distances.__getitem__)
            return f"{worst} is {self.distance:.3f} apart on {self.images} pictures, {limits.max_distance} allowed"
        if self.drop <= limits.max_drop + 1e-9:
            return None
        if self.top1:
            lost = f"top-1 falls from {self.top1[0]:.2f} to {self.top1[1]:.2f} %"
        else:
            assert self.alike is not None and self.agreement is not None
            lost = f"{100 - self.agreement:.1f} % {self.alike.changes}"
        return f"{lost} on {self.images} pictures, {limits.max_drop} points allowed"

    def complaint(self, limits: Limits) -> str | None:
        """Why this file should not be shipped; None when it may."""
        if lost := self.loss(limits):
            return lost
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
    with Model(float_file, engine=engine) as exact, Model(smaller_file, engine=engine) as small:
        alike, task, middle = ALIKE.get(exact.task), exact.task, 0.0 if exact.logits else 0.5
        ones = [_fed(images[:1], exact), _fed(images[:1], small)]
        if alike is None:
            found = Measured(len(images), None, _apart(exact, small, images, progress), None, None, None, None)
        else:
            wanted, got = _scores(exact, small, images, progress)
            form = "" if exact.logits else "Sigmoid" if wanted.shape[1] == 1 or not alike.exclusive else "Softmax"
            told = [telling(some, form, rivals=alike.exclusive) for some in (wanted, got)] if form else [wanted, got]
            apart = Apart(1, centred=False)
            apart.add(told[:1], told[1:])
            found = Measured(
                images=len(images),
                agreement=alike.percent(wanted, got, middle),
                distances={alike.scores: float(np.sqrt(apart.squares()[0]))},
                top1=None,
                top5=None,
                milliseconds=None,
                alike=alike,
            )
            if answers is not None and task in ONE_CLASS:
                pairs = [(_right(wanted, answers, n, middle), _right(got, answers, n, middle)) for n in (1, 5)]
                found = replace(found, top1=pairs[0], top5=pairs[1])
    if timed:
        whole, now = milliseconds([str(float_file), str(smaller_file)], ones, engine=engine)
        found = replace(found, milliseconds=(whole, now))
    return found


def _scores(
    exact: Model, small: Model, images: Sequence[ImageSource], progress: Progress
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(pictures, scores) of either; of score maps, where pictures differ in size, (places, classes)."""
    found: list[tuple[FloatArray, FloatArray]] = []
    for count, one, other in _passes(exact, small, images, progress):
        wanted, got = exact.run(one)[:count], small.run(other)[:count]
        found.append((_places(wanted), _places(got)) if exact.task == "score-map" else (wanted, got))
    ones, others = (np.concatenate(part).astype(np.float64) for part in zip(*found, strict=True))
    return ones, others


def _places(scores: FloatArray) -> FloatArray:
    """Of a score map (pictures, classes, rows, columns) the (places, classes)."""
    return np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])


def _apart(exact: Model, small: Model, images: Sequence[ImageSource], progress: Progress) -> dict[str, float]:
    """How far every output is from what it should be; summed as they come, for they may be large."""
    apart, names = None, list[str]()
    for count, one, other in _passes(exact, small, images, progress):
        wanted, got = exact.run_all(one), small.run_all(other)
        names = list(wanted)
        apart = apart or Apart(len(names), centred=True)
        apart.add([wanted[name][:count] for name in names], [got[name][:count] for name in names])
    assert apart is not None
    return {name: float(np.sqrt(square)) for name, square in zip(names, apart.squares(), strict=True)}


def _passes(
    exact: Model, small: Model, images: Sequence[ImageSource], progress: Progress
) -> Iterator[tuple[int, npt.NDArray[Any], npt.NDArray[Any]]]:
    """How many pictures there are in a batch, and what either model takes for them."""
    size, done = 1 if exact.task == "score-map" else exact.batch_size or 8, 0
    for batch in _batches(images, size):
        fed = _fed(batch, exact)
        yield len(batch), fed, fed if small.rule == exact.rule else _fed(batch, small)
        done += len(batch)
        progress("measuring", done, len(images))


def _fed(images: Sequence[ImageSource], model: Model) -> npt.NDArray[Any]:
    """What the model takes for pictures, filled up to the batch that it is frozen to."""
    pixels = np.concatenate([_read(image, model) for image in images])
    missing = (model.batch_size or len(images)) - len(images)
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])


def _read(image: ImageSource, model: Model) -> npt.NDArray[Any]:
    """One picture; for a score map the whole of it, its shorter side as long as its preprocessing makes it."""
    window = model.metadata.window if model.metadata else None
    if window is None:
        return preprocess(image, model.rule)
    resize = model.rule.resize if isinstance(model.rule.resize, int) else 0
    return whole_windows(preprocess_whole(image, model.rule, shorter=max(resize, *window.size)), window)


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
