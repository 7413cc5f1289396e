"""Writing Grad-CAM into a file, proven before it appears."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.artifact import staged, stamp, write
from exporters.pixels import as_stated
from runtime.engines import open_session
from runtime.errors import InvalidInput, ParityError
from runtime.explain.baked import bake
from runtime.explain.explainable import CLASS, OUTPUT, SWITCH
from runtime.explain.layers import find
from runtime.explain.subject import Floats, Subject
from runtime.image import preprocess
from runtime.model import Model

_PICTURES = 2
_SLOPE_STEP = 1e-3  # of the score: small beside a ReLU's kinks, large beside float32's rounding
_SLOPE_TOLERANCE = 0.05  # what kinks within that step may come to; a wrong rule is wrong by more
_MAP_TOLERANCE = 1e-4  # of the map's maximum: float32, whose sums onnxruntime may order differently


def write_explained(file: Path, output: Path, *, layer: str | None = None) -> str:
    """Write ``file`` with Grad-CAM of a layer as an optional output; the layer's name is given back.

    layer: the last convolutional map by default. It becomes the one that ``Model.explain`` starts from.

    Verified first, on random pictures: the answers are the same bit for bit with the explanation left out, the map is
    the one that ``Model.explain`` works out, and the gradient it rests on is the score's slope (a finite difference;
    not on int8 files, whose scores are steps).

    Raises InvalidInput for a file without metadata or with an explanation already, ParityError where it does not
    hold, and what reading, differentiating and writing raise.
    """
    with Model(file) as model:
        if model.metadata is None:
            raise InvalidInput(f"{file}: carries no edgezoo metadata: stamp it with `zoo import` first")
        if model.baked:
            raise InvalidInput(f"{file}: gives explanations already")
        subject = model.subject
        chosen = find(subject.layers, layer).name
        # The network behind its pixels where it takes such, as it has to be differentiated; then with them again.
        proto = as_stated(bake(subject.proto, chosen, subject.output), subject.rule, model.rule)
        stamp(proto, replace(model.metadata, explain_layer=chosen))
        with staged(output) as draft:
            write(proto, draft)
            for seed in range(_PICTURES):
                size = (*model.rule.size, 3) if model.rule.channels == 3 else model.rule.size
                picture = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
                given = np.repeat(preprocess(picture, model.rule), model.batch_size or 1, axis=0)
                _compare(model, subject, chosen, given, draft)
    return chosen


def _compare(model: Model, subject: Subject, layer: str, given: npt.NDArray[Any], draft: Path) -> None:
    """given: what the file takes, normalised or pixels."""
    scores, pixels = model.run(given), subject.normalised(given)
    session: Any = open_session(draft)
    feed = {model.input_name: given}
    plain, nothing = session.run(None, feed)[0], session.run([OUTPUT], feed)[0]
    if not np.array_equal(plain, scores) or len(nothing):
        raise ParityError(f"{draft.name}: with its explanation left out the file does not answer as before")
    index = int(subject.scores(pixels)[0].argmax())
    found = session.run([OUTPUT], feed | {SWITCH: np.array(True), CLASS: np.array([index])})[0]
    weights = np.zeros((len(pixels), subject.classes.outputs), np.float32)
    weights[:, index] = 1
    derived = subject.derive(pixels, weights, [layer], [layer])
    gradient, activation = derived.gradients[layer], derived.activations[layer]
    wanted = np.maximum((gradient.mean(axis=(2, 3), keepdims=True) * activation).sum(axis=1), 0)
    if np.abs(found - wanted).max() > _MAP_TOLERANCE * max(float(wanted.max()), 1e-6):
        raise ParityError(f"{draft.name}: its explanation is not that of the layer {layer!r}")
    if not subject.integer:
        _check_slope(subject, layer, pixels, weights, gradient, activation)


def _check_slope(
    subject: Subject, layer: str, pixels: Floats, weights: Floats, gradient: Floats, activation: Floats
) -> None:
    """Along the gradient the score rises as steeply as the gradient says.

    Only what is not 0 moves: maxima over zeros are tied, and have no slope.
    """
    along: Floats = np.where(activation != 0, gradient, 0).astype(np.float32)
    steepness = float((along.astype(np.float64) ** 2).sum())
    if steepness == 0:
        return
    score = float(np.abs((subject.scores(pixels) * weights).sum()))
    step = np.float32(_SLOPE_STEP * max(score, 1e-3) / steepness)
    up, down = (
        float((subject.from_layer(pixels, layer, activation + move) * weights).sum(dtype=np.float64))
        for move in (step * along, -step * along)
    )
    if abs((up - down) / (2 * step) - steepness) > _SLOPE_TOLERANCE * steepness:
        raise ParityError(f"the gradient at {layer!r} is not the slope of the score there: choose another layer")
