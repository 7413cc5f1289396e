"""What happens to a class when parts of the picture, or of a layer, are taken away. No gradients: any network will do.

x: the picture. f: the class's probability, y: its score before softmax. Every function gives (rows, columns).
"""

from __future__ import annotations

import numpy as np

from runtime.explain.explanation import resized
from runtime.explain.pixels import black, planes
from runtime.explain.subject import Floats, Subject

_BATCH = 16


def occlusion(subject: Subject, pixels: Floats, index: int, *, patch: int | None = None) -> Floats:
    """f(x) - f(x with a patch of x's mean colour), averaged over the patches that cover a pixel.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014. patch: its side in pixels, an
    eighth of the picture's shorter one by default; they overlap by half.
    """
    whole = planes(subject, pixels)
    height, width = whole.shape[2:]
    side = max(1, min(patch or min(height, width) // 8, height, width))
    places = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
    mean = whole.mean(axis=(2, 3), keepdims=True)
    before = _probability(subject, pixels, index)[0]
    drop, times = np.zeros((height, width)), np.zeros((height, width))
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH]
        covered = np.repeat(whole, len(some), axis=0)
        for picture, (top, left) in zip(covered, some, strict=True):
            picture[:, top : top + side, left : left + side] = mean[0]
        after = _probability(subject, _as_input(subject, covered), index)
        for (top, left), value in zip(some, before - after, strict=True):
            drop[top : top + side, left : left + side] += value
            times[top : top + side, left : left + side] += 1
    return (drop / times).astype(np.float32)


def rise(
    subject: Subject, pixels: Floats, index: int, *, masks: int = 1000, cells: int = 7, kept: float = 0.5, seed: int = 0
) -> Floats:
    """mean over random masks M of f(x * M) * M, over the share that is kept; x * M is black where M is 0.

    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", 2018. masks: how many;
    cells: of the coarse grid that they are drawn on, shifted at random and interpolated; kept: the share that shows.
    """
    random, whole = np.random.default_rng(seed), planes(subject, pixels)
    height, width = whole.shape[2:]
    dark, total = planes(subject, black(subject, pixels)), np.zeros((height, width))
    step = -(-height // cells), -(-width // cells)
    for start in range(0, masks, _BATCH):
        some = []
        for _ in range(min(_BATCH, masks - start)):
            coarse = (random.random((cells + 1, cells + 1)) < kept).astype(np.float32)
            fine = resized(coarse, ((cells + 1) * step[0], (cells + 1) * step[1]))
            top, left = random.integers(step[0]), random.integers(step[1])
            some.append(fine[top : top + height, left : left + width])
        mask = np.stack(some)[:, None]
        values = _probability(subject, _as_input(subject, dark + mask * (whole - dark)), index)
        total += np.tensordot(values, mask[:, 0], axes=1)
    return (total / (masks * kept)).astype(np.float32)


def score_cam(subject: Subject, pixels: Floats, index: int, layer: str) -> Floats:
    """relu(sum_k a_k A_k), a = softmax over k of y(x * H_k) - y(0), H_k: A_k scaled to 0..1 and to x's size.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", 2020. A: the
    layer's activation, (K, h, w). 0 is the network's own zero, the mean colour for most.
    """
    activation = subject.activations(pixels, [layer])[layer][0]
    whole, weights = planes(subject, pixels), subject.classes.seed([index])
    size = whole.shape[2:]
    gains = []
    for start in range(0, len(activation), _BATCH):
        masks = np.stack([resized(_unit(one), size) for one in activation[start : start + _BATCH]])[:, None]
        gains.append((subject.scores(_as_input(subject, whole * masks)) * weights).sum(axis=1))
    nothing = (subject.scores(np.zeros_like(pixels)) * weights).sum()
    gain = np.concatenate(gains) - nothing
    share = np.exp(gain - gain.max())
    return np.maximum(np.tensordot(share / share.sum(), activation, axes=1), 0).astype(np.float32)


def ablation_cam(subject: Subject, pixels: Floats, index: int, layer: str) -> Floats:
    """relu(sum_k w_k A_k), w_k = (y - y without A_k) / y.

    Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization", 2020. A: the layer's activation, (K, h, w); the network runs from there on.
    """
    activation, weights = subject.activations(pixels, [layer])[layer], subject.classes.seed([index])
    whole = float((subject.from_layer(pixels, layer, activation) * weights).sum())
    left: list[Floats] = []
    for start in range(0, activation.shape[1], _BATCH):
        some = range(start, min(start + _BATCH, activation.shape[1]))
        without = np.repeat(activation, len(some), axis=0)
        for row, channel in enumerate(some):
            without[row, channel] = 0
        scores = subject.from_layer(np.repeat(pixels, len(some), axis=0), layer, without)
        left.append((scores * weights).sum(axis=1))
    # Over |y|: a class whose score is below 0 has reasons too.
    lost = (whole - np.concatenate(left)) / max(abs(whole), 1e-12)
    return np.maximum(np.tensordot(lost, activation[0], axes=1), 0).astype(np.float32)


def _probability(subject: Subject, pixels: Floats, index: int) -> Floats:
    return subject.classes.probabilities(subject.scores(pixels))[:, index]


def _as_input(subject: Subject, whole: Floats) -> Floats:
    turned = whole if subject.rule.layout == "NCHW" else np.moveaxis(whole, 1, 3)
    return np.ascontiguousarray(turned, dtype=np.float32)


def _starts(length: int, side: int) -> list[int]:
    """Where patches begin: every half a side, and so that the last one ends at the border."""
    return sorted({*range(0, length - side + 1, max(side // 2, 1)), length - side})


def _unit(values: Floats) -> Floats:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
