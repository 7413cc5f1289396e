"""What a filter looks for: pictures that excite it, found by gradient ascent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput
from runtime.explain.layers import find
from runtime.explain.seen import limits, to_pictures
from runtime.explain.subject import Floats

if TYPE_CHECKING:
    from runtime.model import Model

_STEPS = 64
_STEP = 0.06  # of the input's range, along the gradient of length 1 per pixel
_JITTER = 8  # a picture's side over this: how far it is shifted at random
_DECAY = 0.995  # towards grey, each step
_BLUR_EVERY = 4
_SOFT = np.array([0.1, 0.8, 0.1], np.float32)


def visualise(
    model: Model, layer: str | None, filters: Sequence[int], *, steps: int = _STEPS, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """One picture for each filter of a layer, (n, height, width, 3) uint8, all of them at once.

    Each climbs the gradient of the mean of the filter's map from grey noise. Regularised: the picture is shifted at
    random before each step, fades towards grey and is blurred a little, or it would become noise that excites the
    filter and shows nothing (Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", 2009; Yosinski et
    al., "Understanding Neural Networks Through Deep Visualization", 2015; Olah et al., "Feature Visualization", 2017).

    A filter that no step excites, from noise it sees nothing of, stays grey.

    Raises UnknownName for the layer, InvalidInput for a filter that it does not have, and NoGradient.
    """
    subject = model.subject
    chosen = find(subject.layers, layer)
    if not filters:
        raise InvalidInput("filters: give one or more")
    for number in filters:
        if not 0 <= number < chosen.shape[0]:
            raise InvalidInput(f"{chosen.name}: no filter {number}: they are 0 to {chosen.shape[0] - 1}")
    black, white, _ = limits(subject.rule)
    height, width = subject.rule.size
    channels_last = subject.rule.layout == "NHWC"
    axes = (1, 2) if channels_last else (2, 3)
    shape = (height, width, subject.rule.channels) if channels_last else (subject.rule.channels, height, width)
    random, grey, span = np.random.default_rng(seed), (black + white) / 2, white - black
    noise = random.normal(scale=0.05, size=(1, *shape)).astype(np.float32)  # the same for all: they can be compared
    pictures = np.repeat(grey + noise * span, len(filters), axis=0).astype(np.float32)
    weights = np.zeros((len(filters), *chosen.shape), np.float32)
    weights[np.arange(len(filters)), list(filters)] = 1 / (chosen.shape[1] * chosen.shape[2])
    excited = np.zeros(len(filters), bool)
    for step in range(steps):
        shift = tuple(int(random.integers(-(side // _JITTER), side // _JITTER + 1)) for side in (height, width))
        moved = np.roll(pictures, shift, axis=axes)
        slope = subject.derive_layer(np.ascontiguousarray(moved), chosen.name, weights)
        excited |= slope.any(axis=(1, 2, 3))
        size = np.sqrt((slope**2).mean(axis=(1, 2, 3), keepdims=True))
        climbed = moved + _STEP * span * slope / np.maximum(size, 1e-12)
        pictures = np.asarray(np.roll(climbed, (-shift[0], -shift[1]), axis=axes), dtype=np.float32)
        pictures = np.asarray(grey + _DECAY * (pictures - grey), dtype=np.float32)
        if step % _BLUR_EVERY == 0:
            pictures = np.asarray(_blurred(pictures, axes))
        pictures = np.clip(pictures, black, white).astype(np.float32)
    pictures[~excited] = np.broadcast_to(grey, pictures.shape)[~excited]
    return _stretched(to_pictures(pictures, subject.rule))


def _blurred(pictures: Floats, axes: tuple[int, int]) -> Floats:
    for axis in axes:
        before, after = np.roll(pictures, 1, axis), np.roll(pictures, -1, axis)
        pictures = _SOFT[0] * before + _SOFT[1] * pictures + _SOFT[2] * after
    return pictures


def _stretched(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Each picture with its darkest and brightest percent at black and white; one of a single colour stays so."""
    low, high = np.percentile(pictures, (1, 99), axis=(1, 2, 3), keepdims=True)
    scaled = np.where(high > low, (pictures - low) * (255 / np.maximum(high - low, 1)), pictures)
    return np.asarray(np.clip(np.round(scaled), 0, 255), dtype=np.uint8)
