"""Axes: where their round numbers are, on a linear or a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST = 8
"""Ticks of an axis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from ``low`` to ``high``. ticks: (value, as it is written), upwards."""

    name: str
    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def part(self, value: float) -> float:
        """How far along the axis a value lies: 0 is its beginning, 1 its end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value is drawn on an axis that goes from start to end."""
        return start + self.part(value) * (end - start)


def axis(name: str, values: Iterable[float], *, log: bool = False, zero: bool = False, above: float = 0.06) -> Axis:
    """The axis that shows values with a little room around them.

    zero: it begins there. log: values are positive. above: room over the highest value, as a part of the range, on a
    linear axis.
    """
    found = list(values)
    low, high = (min(found), max(found)) if found else (1.0, 1.0)
    if log:
        room = max((high / low) ** 0.06, 1.2)
        low, high = low / room, high * room
        return Axis(name, low, high, True, _written(log_ticks(low, high)))
    size = (high - low) or 2 * abs(high) or 20.0
    low, high = (0.0, 1.1 * high if high > 0 else 1.0) if zero else (low - 0.06 * size, high + above * size)
    return Axis(name, low, high, False, _written(linear_ticks(low, high)))


def linear_ticks(low: float, high: float, most: int = MOST) -> list[float]:
    """The multiples of the smallest of 1, 2, 5, 10, 20 ... that lie from low to high and are at most ``most``."""
    power = math.floor(math.log10((high - low) / most)) - 1
    while True:
        for step in (1, 2, 5):
            first, last = (_whole(value / step, -power, round_up) for value, round_up in ((low, True), (high, False)))
            if last - first < most:
                return [_exact(number * step, power) for number in range(first, last + 1)]
        power += 1


def log_ticks(low: float, high: float, most: int = MOST) -> list[float]:
    """The round numbers from low to high, as many as there may be: 1, 2, 5, 10 ..., or 1, 3, 10 ..., or 1, 10, 100 ...

    Where fewer than three of those are in reach, the multiples of one step.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for numbers in ((1, 2, 5), (1, 3), (1,)):
        found = [_exact(number, power) for power in powers for number in numbers]
        best = [value for value in found if low <= value <= high]
        if len(best) <= most:
            break
    return best[:: math.ceil(len(best) / most)] if len(best) >= 3 else linear_ticks(low, high, most)


def _whole(value: float, power: int, up: bool) -> int:
    """value times a power of ten, rounded to a whole number; one that is nearly whole is."""
    scaled = value * 10.0**power
    nearest = round(scaled)
    if math.isclose(scaled, nearest, rel_tol=1e-9, abs_tol=1e-9):
        return nearest
    return math.ceil(scaled) if up else math.floor(scaled)


def _exact(number: int, power: int) -> float:
    return float(f"{number}e{power}")


def _written(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple((value, f"{value:,.10g}" if abs(value) < 1e15 else f"{value:g}") for value in values)
