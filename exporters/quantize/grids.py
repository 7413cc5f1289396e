"""Grids: which 256 numbers a tensor may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from exporters.quantize.network import Array
from exporters.quantize.observe import BEYOND, Observed

Ranges = Literal["whole", "squared", "cubed"]
"""whole: all that calibration saw. squared, cubed: more or less than that, what makes the mean squared or cubed error
of other pictures' values smallest.

Other pictures': where every channel was equalised to one reach, some channel of theirs goes beyond it. Which is the
best depends on the network. On 400 photos, the logits' error: mobilenet_v2 0.087 squared, 0.073 cubed, 0.078 whole
(0.079 with the cubed error of the pictures that it was equalised on), mobilenet_v3_small 0.172, 0.209 and 0.209
(0.215), squeezenet1_1 0.0139, 0.0137 and 0.0209 (0.0216); on 900, a mobilenet_v1 of a quarter's width 0.119, 0.095 and
0.070 (2026-11-22).
"""

_POWERS: dict[Ranges, int] = {"squared": 2, "cubed": 3}
_UPPER = np.linspace(0.3, BEYOND, 21)  # shares of what calibration saw that are tried at either end
_LOWER = np.linspace(0.3, BEYOND, 11)
_LARGEST_BIAS = 2.0**30  # of int32, with room for the sums it is added to


@dataclass(frozen=True, slots=True)
class Grid:
    """value = scale * (integer - zero_point), integers from ``least`` to ``least`` + 255."""

    scale: float
    zero_point: int
    least: int = 0

    @property
    def dtype(self) -> type[np.uint8] | type[np.int8]:
        """The integers' type."""
        return np.int8 if self.least else np.uint8

    def signed(self) -> Grid:
        """The same numbers, counted from -128."""
        return replace(self, zero_point=self.zero_point - 128, least=-128) if not self.least else self

    def integers(self, values: Array) -> Array:
        """What stands for these values."""
        steps = np.round(np.asarray(values, dtype=np.float64) / self.scale) + self.zero_point
        return np.clip(steps, self.least, self.least + 255).astype(self.dtype)

    def rounded(self, values: Array) -> Array:
        """The values that those integers stand for."""
        return (self.integers(values).astype(np.float64) - self.zero_point) * self.scale


def spanning(low: float, high: float) -> Grid:
    """The grid from ``low`` to ``high``, with 0 on it, and 0 within it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / 255))
    return Grid(scale, int(np.clip(round(-low / scale), 0, 255)))


def around_zero(reach: float) -> Grid:
    """The grid from ``-reach`` to ``reach``, with 0 in its middle."""
    return Grid(float(np.float32(max(reach, 1e-6) / 127)), 128)


def hard_sigmoid_input(alpha: float, beta: float) -> Grid:
    """Of what goes only into HardSigmoid: from where it becomes 0 to where it becomes 1, no further.

    Then it is no operation at all: the same integers, read with another scale and zero point.
    """
    steps = 255 * beta
    return Grid(float(np.float32(beta / alpha / int(steps))), int(steps))


def hard_swish_input(high: float) -> Grid:
    """Of what goes only into HardSwish: from -3, below which it is 0, with -3 and 0 on the grid."""
    zero_point = max(1, int(3 / ((max(high, 0.0) + 3) / 255)))
    return Grid(float(np.float32(3 / zero_point)), zero_point)


def chosen_range(item: Observed, ranges: Ranges) -> tuple[float, float]:
    """The (lowest, highest) value to resolve. All but "whole" need the tensor's histogram."""
    low, high = item.range
    if ranges == "whole" or item.histogram is None or low >= high:
        return low, high
    belows, aboves = (_LOWER if low < 0 else _LOWER[-1:]), (_UPPER if high > 0 else _UPPER[-1:])
    tried = [(low * below, high * above) for below in belows for above in aboves]
    return tried[_least_error(item, ranges, lambda: [spanning(*ends) for ends in tried])]


def chosen_top(item: Observed, ranges: Ranges) -> float:
    """The highest value to resolve of what goes only into HardSwish: below -3 there is nothing to tell apart."""
    _, high = item.range
    if ranges == "whole" or item.histogram is None or high <= 0:
        return high
    tried: list[float] = [high * above for above in _UPPER]
    return tried[_least_error(item, ranges, lambda: [hard_swish_input(top) for top in tried], least=-3.0)]


def _least_error(item: Observed, ranges: Ranges, grids: Callable[[], list[Grid]], *, least: float = -np.inf) -> int:
    """Which of the grids rounds the values above ``least`` best; the same ones are not asked for twice."""
    key = ranges, least
    if key not in item.chosen:
        values, counts = item.values(), item.histogram
        assert counts is not None
        counted = (counts > 0) & (values > least)
        some, weights = values[counted], counts[counted].astype(np.float64)
        wrong = [np.abs(grid.rounded(some) - some) for grid in grids()]
        for name, power in _POWERS.items():
            item.chosen[name, least] = int(np.argmin([weights @ by**power for by in wrong]))
    return item.chosen[key]


def weight_grid(matrix: Array, *, bits: int) -> tuple[Array, Array]:
    """Weights as int8 with one scale per output: (integers like ``matrix``, scales in float32 (outputs,)).

    matrix: (outputs, ...).
    """
    rows, largest = matrix.reshape(len(matrix), -1), _largest(bits)
    scales = np.maximum(np.abs(rows).max(axis=1) / largest, np.finfo(np.float32).tiny).astype(np.float32)
    return _on(rows, scales, largest).reshape(matrix.shape), scales


def with_room_for(
    bias: Array, grid: tuple[Array, Array], matrix: Callable[[], Array], input_scale: float, *, bits: int
) -> tuple[Array, Array]:
    """The ``weight_grid`` of ``matrix()``, coarser in rows that are far smaller than their bias.

    A bias is stored in int32 steps of ``input_scale`` times the weights' scale, and would overflow there: rows that
    are all but 0 occur in trained networks, and a bias that is cut off in one of them ruins the answer.
    """
    integers, scales = grid
    wanted = (np.abs(bias) / (input_scale * _LARGEST_BIAS)).astype(np.float32)
    short = wanted > scales
    if not short.any():
        return grid
    integers, scales = integers.copy(), np.maximum(scales, wanted)
    rows = matrix().reshape(len(bias), -1)[short]
    integers[short] = _on(rows, scales[short], _largest(bits)).reshape(-1, *integers.shape[1:])
    return integers, scales


def _largest(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _on(rows: Array, scales: Array, largest: int) -> Array:
    return np.clip(np.round(rows / scales[:, None].astype(np.float64)), -largest, largest).astype(np.int8)
