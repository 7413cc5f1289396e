"""What single pixels have to do with a class: gradients with respect to the network's input.

x: the input, (channels, height, width). y: the class's score before softmax. Every function gives (height, width).
"""

from __future__ import annotations

import numpy as np

from runtime.explain.subject import Floats, Subject

_BATCH = 8
_NOISY = 32
_NOISE = 0.15  # of the input's range, the paper's middle
_FIRST_STEPS, _MOST_STEPS = 32, 512
_INCOMPLETE = 0.01


def saliency(subject: Subject, pixels: Floats, index: int) -> Floats:
    """max over channels of |dy/dx|.

    Simonyan et al., "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps",
    2013.
    """
    return np.asarray(np.abs(gradient(subject, pixels, index)).max(axis=0))


def gradient_x_input(subject: Subject, pixels: Floats, index: int) -> Floats:
    """sum over channels of x * dy/dx; below 0 a pixel speaks against the class.

    Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation Differences",
    2016. The input is that of the network, after normalisation.
    """
    return np.asarray((planes(subject, pixels)[0] * gradient(subject, pixels, index)).sum(axis=0))


def smooth_grad(subject: Subject, pixels: Floats, index: int, *, samples: int = _NOISY, seed: int = 0) -> Floats:
    """max over channels of |mean of dy/dx over ``samples`` pictures x + noise|, noise normal, 15 % of x's range.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    random, total = np.random.default_rng(seed), np.zeros(planes(subject, pixels).shape[1:])
    spread = _NOISE * float(np.ptp(pixels))
    for start in range(0, samples, _BATCH):
        count = min(_BATCH, samples - start)
        noise = random.normal(scale=max(spread, 1e-12), size=(count, *pixels.shape[1:])).astype(np.float32)
        total += _gradients(subject, pixels + noise, index).sum(axis=0)
    return np.asarray(np.abs(total / samples).max(axis=0), dtype=np.float32)


def integrated_gradients(subject: Subject, pixels: Floats, index: int, *, steps: int | None = None) -> Floats:
    """sum over channels of (x - b) * mean of dy/dx along the straight line from b, a black picture, to x.

    Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017. The map sums up to y(x) - y(b): ``steps`` are
    doubled from 32 until it does to 1 %, or 512 are done.
    """
    base = black(subject, pixels)
    ends = (subject.scores(np.concatenate([pixels, base])) * subject.classes.seed([index, index])).sum(axis=1)
    wanted, count = float(ends[0] - ends[1]), steps or _FIRST_STEPS
    while True:
        mean = np.zeros(planes(subject, pixels).shape[1:])
        # The midpoints of equal steps: exact for straight lines, and no end counts half.
        for start in range(0, count, _BATCH):
            shares = (np.arange(start, min(start + _BATCH, count)) + 0.5) / count
            along = base + shares.reshape(-1, 1, 1, 1).astype(np.float32) * (pixels - base)
            mean += _gradients(subject, along, index).sum(axis=0) / count
        found: Floats = (planes(subject, pixels - base)[0] * mean).sum(axis=0).astype(np.float32)
        missing = abs(float(found.sum(dtype=np.float64)) - wanted) / max(abs(wanted), 1e-6)
        if steps or missing <= _INCOMPLETE or count >= _MOST_STEPS:
            return found
        count *= 2


def gradient(subject: Subject, pixels: Floats, index: int) -> Floats:
    """dy/dx of one picture, (channels, height, width)."""
    return np.asarray(_gradients(subject, pixels, index)[0])


def planes(subject: Subject, pixels: Floats) -> Floats:
    """(n, channels, height, width), whatever the file's layout."""
    return pixels if subject.rule.layout == "NCHW" else np.moveaxis(pixels, 3, 1)


def black(subject: Subject, pixels: Floats) -> Floats:
    """A black picture as the network sees it, of the same shape."""
    rule = subject.rule
    value = -np.asarray(rule.mean, np.float32) / np.asarray(rule.std, np.float32)
    shape = (1, -1, 1, 1) if rule.layout == "NCHW" else (1, 1, 1, -1)
    return np.array(np.broadcast_to(value.reshape(shape), pixels.shape), dtype=np.float32)


def _gradients(subject: Subject, pixels: Floats, index: int) -> Floats:
    found = subject.derive(pixels, subject.classes.seed([index] * len(pixels)), [subject.input])
    return planes(subject, found.gradients[subject.input])
