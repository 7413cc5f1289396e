"""Numbers -> colours: one map for strengths, one for what speaks against and for. Both are safe for the colour-blind.

Both are even: equal steps of a value are nearly equal steps of lightness (CIELAB), so a copy in grey says the same.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatMap: TypeAlias = npt.NDArray[np.float32]
Pixels: TypeAlias = npt.NDArray[np.uint8]

# Colours at equal steps, between which straight lines are drawn.
# From 0 to 1: black, violet, red, orange, pale yellow, as "inferno" (van der Walt and Smith, CC0).
STRENGTH = (
    (0, 0, 3),
    (22, 11, 57),
    (65, 9, 103),
    (106, 23, 110),
    (147, 37, 103),
    (186, 54, 85),
    (220, 80, 57),
    (242, 117, 26),
    (251, 164, 10),
    (246, 213, 66),
    (252, 254, 164),
)
# From -1 to 1: blue, white, orange, each side as light as the other (chosen in OKLCh).
AGAINST_AND_FOR = (
    (2, 120, 231),
    (62, 149, 234),
    (107, 176, 237),
    (151, 201, 240),
    (197, 224, 242),
    (245, 245, 245),
    (238, 215, 194),
    (231, 183, 144),
    (224, 150, 95),
    (216, 114, 40),
    (195, 84, 1),
)

_FINE = 64 * 64
"""Values above which a map is drawn to its 99.5th percentile: one stray pixel of a gradient would darken the rest."""
_FLAT = 1e-6
"""Part of a map's largest value below which its differences are rounding, and no places."""


def colours(values: FloatMap, *, signed: bool) -> Pixels:
    """0 to 1, or -1 to 1 where signed, to RGB: (...) -> (..., 3). Beyond the ends the ends' colours."""
    table = np.array(AGAINST_AND_FOR if signed else STRENGTH, np.float32)
    share_of_way = np.asarray(np.clip((values + 1) / 2 if signed else values, 0, 1), np.float32)
    place = share_of_way * (len(table) - 1)
    below = np.minimum(place.astype(np.intp), len(table) - 2)
    share = (place - below)[..., None]
    return np.asarray(np.rint(table[below] * (1 - share) + table[below + 1] * share), np.uint8)


def strengths(values: FloatMap, *, signed: bool) -> FloatMap:
    """A map as it is drawn: from 0 (its least) to 1 (its most), or -1 to 1 about an unmoved 0 where signed.

    A map that is the same everywhere gives zeros: it points nowhere. What is not finite counts as 0.
    """
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    if finite.size > _FINE:
        finite = _blurred(finite)
    low = 0.0 if signed else float(finite.min(initial=np.inf))
    shifted = finite - low if finite.size else finite
    most = float(np.abs(shifted).max(initial=0))
    if finite.size == 0 or is_flat(values):
        return np.zeros(values.shape, np.float32)
    if finite.size > _FINE:
        most = float(np.percentile(np.abs(shifted), 99.5)) or most
    return np.clip(shifted / most, -1, 1).astype(np.float32)


def is_flat(values: FloatMap) -> bool:
    """Whether a map is the same everywhere, rounding aside."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    if finite.size == 0:
        return True
    return bool(np.ptp(finite) <= _FLAT * np.abs(finite).max())


def _blurred(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Single pixels as dots that can be seen: a Gaussian of 1/150 of the longer side."""
    sigma = max(values.shape) / 150
    reach = int(np.ceil(2.5 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        size = values.shape[axis]
        wider = np.pad(values, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        parts = (weight * wider.take(range(at, at + size), axis) for at, weight in enumerate(weights))
        values = np.sum(list(parts), axis=0)
    return values
