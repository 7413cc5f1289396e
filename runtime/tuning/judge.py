"""Whether a setting still gives the network's answers: its scores held against those of the float32 reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput
from runtime.image import ImageSource
from runtime.model import Model
from runtime.tasks.alike import ALIKE, ONE_CLASS, Alike, decided
from runtime.tuning.record import Trial

TOLERANCE = 1e-2
"""Of the largest score, by which an answer may differ where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a setting must keep to. One of the two is None; see ``runtime.tuning.search.tune``."""

    tolerance: float | None
    max_drop: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What answers are compared on. truth: output indices, for pictures that have labels. kind: of the pictures.

    alike: what counts as the same answer; None where nobody knows. middle: see there.
    """

    pictures: Sequence[ImageSource]
    truth: npt.NDArray[np.int64] | None
    kind: str
    alike: Alike | None = ALIKE["classification"]
    middle: float = 0.0
    _prepared: dict[Any, list[npt.NDArray[Any]]] = field(default_factory=dict)

    def batches(self, model: Model) -> list[npt.NDArray[Any]]:
        """Every picture as a run of the model takes it; of a file with a fixed batch, filled up with copies of it.

        Files with the same preprocessing share them. Raises InvalidImage.
        """
        key = (model.rule, model.batch_size)
        if key not in self._prepared:
            copies = model.batch_size or 1
            self._prepared[key] = [np.repeat(model.prepare(one), copies, axis=0) for one in self.pictures]
        return self._prepared[key]

    def outputs(self, model: Model) -> dict[str, npt.NDArray[np.float32]]:
        """(pictures, scores) float32, of a score map with its places; one picture at a time, as they will be run.

        Of a file whose answers nobody knows every output, all pictures' values in a row.
        """
        if self.alike is None:
            passes = [model.run_all(batch) for batch in self.batches(model)]
            every = {name: [np.ravel(values[name]).astype(np.float32) for values in passes] for name in passes[0]}
            return {name: np.concatenate(values) for name, values in every.items()}
        found = np.stack([model.run(batch)[0].astype(np.float32) for batch in self.batches(model)])
        return {"scores": found if model.task == "score-map" else found.reshape(len(found), -1)}


def limits_of(tolerance: float | None, max_drop: float | None) -> Limits:
    """Raises InvalidInput where both are given, or one that is none."""
    if tolerance is not None and max_drop is not None:
        raise InvalidInput("a tolerance of the scores or a largest drop of the accuracy: give one of the two")
    for name, value in (("tolerance", tolerance), ("max_drop", max_drop)):
        if value is not None and not 0 <= value < 100:
            raise InvalidInput(f"{name} {value}: give a number from 0")
    return Limits(TOLERANCE if tolerance is None and max_drop is None else tolerance, max_drop)


def material_of(model: Model, pictures: Iterable[ImageSource] | None, truth: Sequence[int] | None) -> Material:
    """The pictures that were given, or noise. Raises InvalidInput where pictures, labels and model do not fit."""
    how = ALIKE.get(model.task), 0.0 if model.logits else 0.5
    if pictures is None:
        return Material(_noise(model), None, "noise", *how)
    given = list(pictures)
    if not given or (truth is not None and len(truth) != len(given)):
        raise InvalidInput(f"{len(given)} pictures and {len(truth or ())} labels: give a label for each, or none")
    if truth is not None and model.task not in ONE_CLASS:
        raise InvalidInput(f"{model.path}: is of task {model.task}: no one class of a picture is right: give no labels")
    return Material(given, None if truth is None else np.asarray(truth, np.int64), "pictures", *how)


def _noise(model: Model, count: int = 4) -> list[ImageSource]:
    """Pictures of random patches, as smooth as photos are at the network's size."""
    height, width = model.rule.size
    random, made = np.random.default_rng(0), list[ImageSource]()
    for _ in range(count):
        coarse = random.integers(0, 256, (-(-height // 16), -(-width // 16), 3)).astype(np.uint8)
        made.append(np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]))
    return made


def judge(
    trial: Trial,
    found: Mapping[str, npt.NDArray[np.float32]],
    wanted: Mapping[str, npt.NDArray[np.float32]],
    material: Material,
    limits: Limits,
) -> Trial:
    """The trial with its errors, and a verdict where they are too large. found, wanted: ``material.outputs``."""
    shapes = [{name: array.shape for name, array in some.items()} for some in (found, wanted)]
    if shapes[0] != shapes[1] or not all(np.isfinite(array).all() for array in found.values()):
        return replace(trial, verdict="gives other outputs than the reference")
    error = max(_error(found[name], array) for name, array in wanted.items())
    alike, middle, truth = material.alike, material.middle, material.truth
    pair = next(iter(found.values())), next(iter(wanted.values()))
    agreement = alike.percent(*pair, middle) if alike else None
    now, before = (None if truth is None else 100 * float((decided(scores, middle) == truth).mean()) for scores in pair)
    verdict = ""
    if limits.tolerance is not None and error > limits.tolerance:
        verdict = f"error {error:.1e}, {limits.tolerance:.0e} allowed"
    if limits.max_drop is not None:
        if now is not None and before is not None:
            drop, what = before - now, "points of top-1 lost"
        else:
            assert alike is not None and agreement is not None  # material_of's caller saw to it
            drop, what = 100 - agreement, f"% {alike.changes}"
        if drop > limits.max_drop:
            verdict = f"{drop:.2f} {what}, {limits.max_drop:g} allowed"
    return replace(trial, error=error, agreement=agreement, top1=now, verdict=verdict)


def _error(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    """Of the largest value."""
    return float(np.abs(found - wanted).max(initial=0.0) / max(float(np.abs(wanted).max(initial=0.0)), 1e-30))
