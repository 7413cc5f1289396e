"""Explainers measured on pictures: how faithful each is to this network, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.errors import EdgeZooError, InvalidInput, UnknownName, UserError
from runtime.explain import faithfulness as measures
from runtime.explain.explainers import EXPLAINERS
from runtime.explain.explanation import Explanation
from runtime.explain.faithfulness import Box, Floats, Probability
from runtime.explain.pixels import planes
from runtime.gradients import NoGradient
from runtime.image import ImageSource, decode, describe_source, preprocess

if TYPE_CHECKING:
    from PIL import Image

    from runtime.model import Model

BASELINES = ("random pixels", "random 7 x 7", "centre")
"""Maps that ask no network. Two random ones, as fine as gradients and as coarse as a last layer: scattered pixels undo
a picture faster than the same share of it in one piece, whatever they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A picture and a class of it, None for the network's own answer; boxes: where the class is, if that is known."""

    image: ImageSource
    target: int | None = None
    boxes: tuple[Box, ...] = ()


class _Seen(NamedTuple):
    picture: Image.Image
    target: int
    whole: Floats
    probability: Probability
    boxes: tuple[Box, ...]


@dataclass(slots=True)
class _Row:
    """Of one method, a number for each picture. shuffled: of some of them. empty: pictures without a gradient."""

    method: str
    insertion: list[float] = field(default_factory=list)
    deletion: list[float] = field(default_factory=list)
    pointing: list[bool] = field(default_factory=list)
    shuffled: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    empty: int = 0

    @property
    def gains(self) -> list[float]:
        """Insertion less deletion."""
        return [high - low for high, low in zip(self.insertion, self.deletion, strict=True)]


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured of one method: means over the pictures, None for what was not measured.

    insertion, deletion: areas, 0 to 1. difference: of the two, interval: its 95 % bootstrap interval.
    pointing: share of pictures whose highest point is in a box. shuffled: rank correlation with the map of shuffled
    weights; unchanged: whether that is too high for a map of the network. milliseconds: median of one explanation, from
    a decoded picture. without_gradient: in how many pictures there was none, and the map counted as one of equal
    values. beats: the baselines that it is better than by an interval, paired picture by picture, above 0.
    """

    method: str
    baseline: bool
    insertion: float
    deletion: float
    difference: float
    interval: tuple[float, float]
    pointing: float | None
    shuffled: float | None
    unchanged: bool | None
    milliseconds: float | None
    without_gradient: int
    beats: tuple[str, ...]


class Scoring:
    """What is measured, picture by picture and method by method. left_out: method -> why; unread: picture -> why."""

    def __init__(
        self, model: Model, methods: Sequence[str], *, layer: str | None = None, tell: Callable[[str], object] = print
    ) -> None:
        self.model, self.layer, self._tell = model, layer, tell
        self.left_out: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        self.images = 0
        self._rows = {name: _Row(name) for name in (*BASELINES, *methods)}
        self._at: tuple[Case | None, _Seen | None] = None, None

    def add(self, case: Case, name: str, twin: Model | None = None) -> None:
        """Measure one method on one picture; the cases one after the other, for each is read once.

        twin: the model with shuffled weights, where it is to explain this picture too. A picture that cannot be read
        and a method that does not fit the network are told and left out. Raises UnknownName for a layer not there.
        """
        if self._at[0] is not case:
            self._at = case, self._see(case)
        seen = self._at[1]
        if seen is None or name in self.left_out:
            return
        row = self._rows[name]
        found = self._baseline(seen, name) if name in BASELINES else self._measured(seen, row, twin)
        if found is None:
            return
        values, full = found
        row.insertion.append(measures.insertion(seen.probability, seen.whole, full))
        row.deletion.append(measures.deletion(seen.probability, seen.whole, full))
        if seen.boxes:
            place = measures.highest(values)
            point = None if place is None else measures.to_original(place, self.model.rule, seen.picture.size)
            row.pointing.append(measures.points_at(point, seen.boxes))

    def scores(self) -> list[Score]:
        """Best first. Raises InvalidInput where nothing was measured."""
        if not self.images:
            raise InvalidInput("no picture could be read")
        kept = [row for row in self._rows.values() if row.insertion and row.method not in self.left_out]
        if all(row.method in BASELINES for row in kept):
            raise InvalidInput(f"{self.model.path}: no method explains it: {next(iter(self.left_out.values()), '')}")
        bases = [row for row in kept if row.method in BASELINES]
        return sorted((_score(row, bases) for row in kept), key=lambda score: -score.difference)

    def _see(self, case: Case) -> _Seen | None:
        subject = self.model.subject
        try:
            picture = decode(case.image, self.model.rule.color)
            batch = preprocess(picture, subject.rule)
        except UserError as error:
            name = describe_source(case.image)
            if name not in self.unread:
                self._tell(f"error: {error}")
            self.unread[name] = str(error)
            return None
        chances = subject.classes.probabilities(subject.scores(batch))[0]
        if not np.isfinite(chances).all():
            raise InvalidInput(f"{self.model.path}: its scores are not finite: wrong weights, or wrong preprocessing")
        target = int(chances.argmax()) if case.target is None else case.target
        self.images += 1
        whole = planes(subject, batch)
        return _Seen(picture, target, whole, measures.probability_of(subject, target), case.boxes)

    def _baseline(self, seen: _Seen, name: str) -> tuple[Floats, Floats]:
        size, seed = seen.whole.shape[2:], self.images
        if name == "centre":
            values = measures.centred_map(size)
        else:
            values = measures.random_map(size, cells=None if name == "random pixels" else 7, seed=seed)
        return values, values

    def _measured(self, seen: _Seen, row: _Row, twin: Model | None) -> tuple[Floats, Floats] | None:
        """The method's map, and at the picture's size; None where it does not fit the network."""
        start = time.perf_counter()
        try:
            found = self._explain(self.model, seen, row.method)
        except UnknownName:
            raise
        except NoGradient:
            row.empty += 1
            nothing = np.zeros(seen.whole.shape[2:], np.float32)
            return nothing, nothing
        except EdgeZooError as error:
            self.left_out[row.method] = str(error)
            self._tell(f"note: {row.method} is left out: {error}")
            return None
        row.milliseconds.append(1000 * (time.perf_counter() - start))
        if twin is not None:
            row.shuffled.extend(self._left(twin, seen, row.method, found.map))
        return found.map, found.full_size()

    def _left(self, twin: Model, seen: _Seen, name: str, values: Floats) -> list[float]:
        """How much of the map's order shuffled weights leave; nothing where their scores are beyond float32."""
        try:
            other = self._explain(twin, seen, name).map
        except NoGradient:
            return [0.0]
        except EdgeZooError:
            return []
        return [measures.spearman(np.abs(values), np.abs(other))]

    def _explain(self, model: Model, seen: _Seen, name: str) -> Explanation:
        layer = self.layer if EXPLAINERS[name].layered else None
        return model.explain(seen.picture, name, target=seen.target, layer=layer)


@contextmanager
def shuffled_twin(model: Model) -> Iterator[Model]:
    """The model with its weights shuffled, in a file of its own that is gone afterwards. Raises InvalidInput."""
    import onnx

    from runtime.metadata import Labels
    from runtime.model import load

    labels = Labels(model.label_names) if model.label_names else None
    with tempfile.TemporaryDirectory(prefix="edgezoo-") as folder:
        path = Path(folder) / "shuffled.onnx"
        onnx.save(measures.shuffled(model.subject.proto), path)
        rule = model.subject.rule
        with load(path, device=model.device, threads=model.threads, preprocess=rule, labels=labels) as twin:
            twin.metadata = model.metadata  # a foreign file has none of its own
            yield twin


def _score(row: _Row, bases: Sequence[_Row]) -> Score:
    gains, shuffled = row.gains, _mean(row.shuffled)
    beaten = [one.method for one in bases if measures.interval(np.subtract(gains, one.gains).tolist())[0] > 0]
    times = row.milliseconds[1:] or row.milliseconds  # the first run opens sessions
    return Score(
        method=row.method,
        baseline=row.method in BASELINES,
        insertion=float(np.mean(row.insertion)),
        deletion=float(np.mean(row.deletion)),
        difference=float(np.mean(gains)),
        interval=measures.interval(gains),
        pointing=_mean(row.pointing),
        shuffled=shuffled,
        unchanged=None if shuffled is None else shuffled > measures.UNCHANGED,
        milliseconds=float(np.median(times)) if times else None,
        without_gradient=row.empty,
        beats=tuple(beaten),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
