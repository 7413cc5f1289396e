"""Grids: which 256 numbers a tensor may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from exporters.quantize.network import Array
from exporters.quantize.observe import Observed

Ranges = Literal["whole", "clipped", "roomy"]
"""whole: all that calibration saw. clipped: less, where that makes the mean cubed error of the values smaller.
roomy: as clipped, and three tenths more at either end.

Cubed: outliers carry the answer more than their number says. With squares, which clip more of them, mobilenet_v2's
logits are 0.106 apart from float's, with cubes 0.072, with fourth powers 0.073 (900 photos, 2026-11-21).
"""

_ROOM = 1.3  # where every channel was equalised to the same reach, some channel of another picture goes beyond it
_UPPER = np.linspace(0.3, 1.0, 24)  # shares of the range that "clipped" tries at either end
_LOWER = np.linspace(0.3, 1.0, 8)
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
    if ranges == "roomy":
        low, high = chosen_range(item, "clipped")
        return _ROOM * low, _ROOM * high
    low, high = item.range
    if ranges == "whole" or item.histogram is None or low >= high:
        return low, high
    if item.clipped is not None:
        return item.clipped
    filled = item.histogram > 0
    values, counts = item.values()[filled], item.histogram[filled].astype(np.float64)
    tried = [(low * below, high * above) for below in (_LOWER if low < 0 else _LOWER[-1:]) for above in _UPPER]
    errors = [float((counts * np.abs(spanning(*ends).rounded(values) - values) ** 3).sum()) for ends in tried]
    item.clipped = tried[int(np.argmin(errors))]
    return item.clipped


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
