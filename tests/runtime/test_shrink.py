"""A resize told from averages of blocks: the resize itself where nothing is hidden, the best estimate where it is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from exporters.source import sample_files
from runtime.shrink import KERNELS, LENGTH, bands, shrink

Array = npt.NDArray[Any]


def matrix(full: int, block: int, to: int, interpolation: str) -> Array:
    """(to, blocks): the weight of every block in every output."""
    found, whole = np.zeros((to, -(-full // block))), bands(full, block, to, interpolation, 0, to)
    for band in whole:
        found[band.rows, band.start : band.stop] = band.weights
    return found


def pillow(full: int, to: int, interpolation: str) -> Array:
    """(to, full): what Pillow's resize makes of each pixel alone."""
    every = Image.fromarray(np.eye(full, dtype=np.float32))
    return np.asarray(every.resize((to, full), Image.Resampling[interpolation.upper()]), np.float64).T


def averaged(pixels: Array, block: int) -> Array:
    height, width = pixels.shape[:2]
    return pixels.reshape(height // block, block, width // block, block, -1).mean(axis=(1, 3))


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize(("full", "to"), [(300, 64), (97, 96), (50, 80), (1600, 299)])
def test_of_single_pixels_it_is_pillow_s(full: int, to: int, interpolation: str) -> None:
    np.testing.assert_allclose(matrix(full, 1, to, interpolation), pillow(full, to, interpolation), atol=1e-6)


@pytest.mark.parametrize(("full", "block", "to"), [(96, 4, 20), (88, 8, 11), (64, 2, 29)])
def test_no_other_weights_have_a_smaller_error(full: int, block: int, to: int) -> None:
    """Against the textbook's formula with every block, written out: a few neighbours tell nearly all that there is."""
    places = np.arange(full)
    covariance = np.exp(-np.abs(np.subtract.outer(places, places)) / LENGTH)
    starts = places // block
    average = (np.arange(-(-full // block))[:, None] == starts) / np.bincount(starts)[:, None]
    wanted = pillow(full, to, "bilinear")
    best = wanted @ covariance @ average.T @ np.linalg.inv(average @ covariance @ average.T)

    def error(weights: Array) -> float:
        lost = wanted - weights @ average
        return float(np.einsum("ij,jk,ik->i", lost, covariance, lost).mean())

    found = matrix(full, block, to, "bilinear")
    assert error(best) <= error(found) < 1.02 * error(best)
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "to", "share"), [((1536, 1024), (340, 227), 0.7), ((288, 192), (60, 40), 0.92)])
def test_on_photos_it_is_nearer_than_to_resize_again(
    size: tuple[int, int], to: tuple[int, int], share: float, interpolation: str
) -> None:
    """Most of all where neighbouring pixels are much alike, as a camera's are; and on sharp small ones."""
    kind = Image.Resampling[interpolation.upper()]
    errors = []
    for file in sample_files("photos"):
        with Image.open(file) as photo:
            whole = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        exact = np.asarray(whole.resize(to, kind), np.float64)
        reduced = np.rint(averaged(np.asarray(whole), 4)).astype(np.uint8)
        again = np.asarray(Image.fromarray(reduced).resize(to, kind), np.float64)
        told = shrink(reduced, whole.size, 4, to, interpolation)
        errors.append([np.abs(told - exact).mean(), np.abs(again - exact).mean()])
    ours, resized = np.mean(errors, axis=0)
    assert ours < share * resized


def test_a_very_long_side_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        found = matrix(65_000, 8, 224, "lanczos")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_the_margin_is_left_out() -> None:
    random = np.random.default_rng(0)
    for form in ((75, 100, 3), (75, 100)):
        reduced = random.integers(0, 256, form).astype(np.uint8)
        whole = shrink(reduced, (397, 300), 4, (85, 64), "bilinear")
        part = shrink(reduced, (397, 300), 4, (85, 64), "bilinear", (10, 6))
        assert whole.shape == (64, 85, *form[2:])
        assert np.abs(whole[6:-6, 10:-10].astype(int) - part).max() <= 1  # the order of sums


def test_one_grey_level_stays_what_it_is() -> None:
    for level in (0, 1, 128, 255):
        reduced = np.full((40, 30, 3), level, np.uint8)
        assert (shrink(reduced, (239, 313), 8, (29, 38), "lanczos") == level).all()
