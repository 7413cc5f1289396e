"""Colours: lightness is CIELAB's, colour blindness Machado's simulation (2009), both written out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.explain.colours import AGAINST_AND_FOR, STRENGTH, colours, is_flat, strengths

Array = np.ndarray[Any, Any]

# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(rgb: Array) -> Array:
    part = rgb / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(light: Array) -> Array:
    """Linear sRGB to CIELAB, D65."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.clip(light, 0, 1) @ np.array(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def ramp(low: float, signed: bool) -> Array:
    return colours(np.linspace(low, 1, 101, dtype=np.float32), signed=signed).astype(float)


def test_strength_is_lighter_with_every_step_and_evenly_so() -> None:
    lightness = lab(linear(ramp(0, False)))[:, 0]
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert lightness[0] < 2
    assert lightness[-1] > 95
    # 101 steps rounded to 8 bits; a rainbow ("jet") goes up and down by more than 2 a step.
    assert steps.max() < 3 * np.median(steps)


@pytest.mark.parametrize("kind", BLIND)
def test_strength_can_be_told_by_the_colour_blind(kind: str) -> None:
    lightness = lab(linear(ramp(0, False)) @ np.array(BLIND[kind]).T)[:, 0]
    assert np.diff(lightness[::5]).min() > 0


def test_against_and_for_are_neutral_between_and_equally_strong() -> None:
    seen = lab(linear(ramp(-1, True)))
    middle = seen[50]
    assert np.hypot(*middle[1:]) < 1  # no hue
    assert middle[0] > 95
    assert np.diff(seen[:51, 0]).min() > -0.5  # lighter towards the middle, rounding aside
    assert np.diff(seen[50:, 0]).max() < 0.5
    assert np.abs(seen[:, 0] - seen[::-1, 0]).max() < 3  # neither side stands out


@pytest.mark.parametrize("kind", BLIND)
def test_against_and_for_are_never_mistaken_by_the_colour_blind(kind: str) -> None:
    seen = lab(linear(ramp(-1, True)) @ np.array(BLIND[kind]).T)
    # From half their strength on; 10 is many times what can just be told apart (2.3).
    assert np.linalg.norm(seen[:26] - seen[::-1][:26], axis=1).min() > 10


def test_the_ends_and_what_lies_beyond_them() -> None:
    values = np.array([-5, -1, 0, 1, 5], np.float32)
    first, last = STRENGTH[0], STRENGTH[-1]
    assert colours(values, signed=False).tolist() == [list(each) for each in (first, first, first, last, last)]
    low, white, high = AGAINST_AND_FOR[0], AGAINST_AND_FOR[5], AGAINST_AND_FOR[-1]
    assert colours(values, signed=True).tolist() == [list(each) for each in (low, low, white, high, high)]


def test_strengths_run_from_the_least_to_the_most() -> None:
    values = np.array([[2, 4], [3, 6]], np.float32)
    assert strengths(values, signed=False).tolist() == [[0, 0.5], [0.25, 1]]
    assert strengths(np.array([[-4, 0], [1, 2]], np.float32), signed=True).tolist() == [[-1, 0], [0.25, 0.5]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-38, 3e38, np.nan, np.inf])
def test_a_map_that_is_the_same_everywhere_points_nowhere(value: float, signed: bool) -> None:
    for shape in ((7, 7), (1, 1), (100, 100)):
        values = np.full(shape, value, np.float32)
        assert is_flat(values)
        assert not strengths(values, signed=signed).any()


@pytest.mark.filterwarnings("error")
def test_rounding_is_no_place_and_a_small_map_is_one() -> None:
    values = np.full((7, 7), 0.3, np.float32)
    values[2, 3] = np.nextafter(values[2, 3], np.float32(1))
    assert is_flat(values)
    tiny = np.zeros((7, 7), np.float32)
    tiny[2, 3] = 1e-30
    assert not is_flat(tiny)
    assert strengths(tiny, signed=False)[2, 3] == 1


def test_one_stray_pixel_does_not_darken_the_rest() -> None:
    values = np.zeros((100, 100), np.float32)
    values[20:60, 20:60] = 1
    values[90, 90] = 50
    drawn = strengths(values, signed=False)
    assert drawn[30:50, 30:50].min() > 0.9
    assert drawn[75, 20] < 0.01


def test_a_single_pixel_stays_where_it_was() -> None:
    values = np.zeros((100, 60), np.float32)
    values[40, 30] = 1
    drawn = strengths(values, signed=False)
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (40, 30)
