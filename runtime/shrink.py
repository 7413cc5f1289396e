"""What resizing a picture gives, told from a reduced one that holds the average of every block of its pixels.

libjpeg's reduced pictures are those averages. Resizing one again would blur: its pixels are blocks, not points. What
the resize of the whole picture would have given is estimated instead, by the linear estimate of the least squared
error where pixels correlate as in the first-order Markov model of photos, exp(-distance / LENGTH) along each axis
(A. K. Jain, Fundamentals of Digital Image Processing, 1989). On photos enlarged to a camera's size that is nearer to
the whole picture's by a third to a half, on sharp small ones by a tenth (tests/runtime).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

LENGTH = 100.0
"""Pixels over which a photo's correlate; longer than any kernel reaches, and then hardly of influence."""

_REACH = 2  # blocks beyond the resize's own, that tell of what lies inside these
_BAND = 16  # outputs that are computed together: each needs few blocks, and a dense product of all would be wasted
_AT_ONCE = 2**22  # products of a pixel's share with a block, of which a very long picture has more than memory holds
_ONE_THREAD = 2**18  # multiplications of a product, above which OpenBLAS (interface/gemm.c) takes more threads


def _cubic(x: Array) -> Array:
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


# Pillow's antialiased filters: how far they reach from the centre, and their weight at a distance.
KERNELS: dict[str, tuple[float, Callable[[Array], Array]]] = {
    "box": (0.5, lambda x: np.where(x <= 0.5, 1.0, 0.0)),
    "bilinear": (1.0, lambda x: np.maximum(1 - x, 0.0)),
    "hamming": (1.0, lambda x: np.where(x < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, lambda x: np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)),
}


class Band(NamedTuple):
    """Some neighbouring outputs, ``rows`` of the result: weights (outputs, blocks) of the blocks from start to stop."""

    rows: slice
    start: int
    stop: int
    weights: Array


def shrink(
    reduced: Array,
    full: tuple[int, int],
    block: int,
    to: tuple[int, int],
    interpolation: str,
    margin: tuple[int, int] = (0, 0),
) -> Array:
    """The resized picture, (height, width) or (height, width, channels) uint8, as ``reduced`` is; planes in memory.

    reduced: (rows, columns[, channels]) uint8, averages of ``block`` x ``block`` pixels of a picture of the size
    ``full``, filled up to whole blocks; at least ``rows_read`` of its rows. full, to: (width, height).
    interpolation: a row of KERNELS.
    margin: (columns, rows) of the resized picture that are left out at either end.
    """
    across, down = (
        bands(full[axis], block, to[axis], interpolation, margin[axis], to[axis] - margin[axis]) for axis in (0, 1)
    )
    left, channels = across[0].start, math.prod(reduced.shape[2:])
    part = reduced[:, left : across[-1].stop].astype(np.float32)
    flat = part.reshape(len(part), -1)
    tall = np.empty((to[1] - 2 * margin[1], flat.shape[1]), np.float32)
    for band in down:
        _multiply(band.weights, flat[band.start : band.stop], tall[band.rows])
    planes = np.ascontiguousarray(tall.reshape(-1, channels).T).reshape(channels * len(tall), -1)
    wide = np.empty((len(planes), to[0] - 2 * margin[0]), np.float32)
    for band in across:
        _multiply(planes[:, band.start - left : band.stop - left], band.weights.T, wide[:, band.rows])
    np.clip(np.rint(wide, out=wide), 0, 255, out=wide)
    pixels = wide.astype(np.uint8).reshape(*reduced.shape[2:], len(tall), -1)
    return pixels.transpose(1, 2, 0) if reduced.ndim == 3 else pixels


def rows_read(full: int, block: int, to: int, interpolation: str, margin: int) -> int:
    """How many rows of the reduced picture, from the first, ``shrink`` reads; all by their height."""
    return bands(full, block, to, interpolation, margin, to - margin)[-1].stop


def _multiply(a: Array, b: Array, out: Array) -> None:
    """``a @ b`` in parts, each so small that numpy's OpenBLAS computes it without a thread of its own.

    Its threads spin on for milliseconds, on the cores that the network is about to run on: that took longer than all
    of this.
    """
    rows, columns = out.shape
    step = max(1, _ONE_THREAD // (a.shape[1] * min(rows, columns)))
    for first in range(0, max(rows, columns), step):
        place = slice(first, first + step)
        if rows > columns:
            np.matmul(a[place], b, out=out[place])
        else:
            np.matmul(a, b[:, place], out=out[:, place])


@lru_cache(maxsize=64)
def bands(full: int, block: int, to: int, interpolation: str, first: int, last: int) -> tuple[Band, ...]:
    """The resize of one axis from ``full`` pixels to ``to``, as weights of the averages of ``block`` pixels each.

    Of the outputs from ``first`` to ``last``.
    """
    starts, weights = _estimate(full, block, to, interpolation)
    found = []
    for begin in range(first, last, _BAND):
        places = slice(begin, min(begin + _BAND, last))
        start, stop = int(starts[places][0]), int(starts[places][-1]) + weights.shape[1]
        dense = np.zeros((places.stop - begin, stop - start), np.float32)
        columns = (starts[places] - start)[:, None] + np.arange(weights.shape[1])
        np.put_along_axis(dense, columns, weights[places].astype(np.float32), axis=1)
        found.append(Band(slice(places.start - first, places.stop - first), start, stop, dense))
    return tuple(found)


def _estimate(full: int, block: int, to: int, interpolation: str) -> tuple[Array, Array]:
    """For each output the first of its blocks, (to,), and the weight of each from there on, (to, blocks)."""
    taps, shares = _resize(full, to, interpolation)
    count = min(math.ceil(taps.shape[1] / block) + 1 + 2 * _REACH, -(-full // block))
    starts = np.clip(taps[:, 0] // block - _REACH, 0, -(-full // block) - count)
    inside = np.arange(block)
    # Covariance of a pixel with a block's average, by where the pixel lies in pixels from the block's first.
    furthest = (count + _REACH + 1) * block + taps.shape[1]
    pixel = np.exp(-np.abs(np.arange(-furthest, furthest + 1)[:, None] - inside) / LENGTH).mean(axis=1)
    places = (starts[:, None] + np.arange(count)) * block  # (to, count)
    parts = np.array_split(np.arange(to), -(-to * taps.shape[1] * count // _AT_ONCE))
    wanted = np.concatenate(
        [np.einsum("ot,otb->ob", shares[o], pixel[furthest + taps[o, :, None] - places[o, None, :]]) for o in parts]
    )
    steps = block * np.subtract.outer(np.arange(count), np.arange(count))
    averages = pixel[furthest + steps[..., None] + inside].mean(axis=-1)
    weights = np.linalg.solve(averages, wanted.T).T
    return starts, weights / weights.sum(axis=1, keepdims=True)


def _resize(full: int, to: int, interpolation: str) -> tuple[Array, Array]:
    """Pillow's resize of one axis: for each output the pixels that it weighs, (to, taps), and their shares."""
    support, kernel = KERNELS[interpolation]
    step = full / to
    stretch = max(step, 1.0)
    centre = (np.arange(to) + 0.5) * step
    first = np.maximum((centre - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support * stretch + 0.5).astype(np.int64), full)
    taps = first[:, None] + np.arange(int((last - first).max()))
    shares = np.where(taps < last[:, None], kernel(np.abs(taps - centre[:, None] + 0.5) / stretch), 0.0)
    return taps, shares / shares.sum(axis=1, keepdims=True)
