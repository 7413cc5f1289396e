"""Ticks are held against a search through all round numbers, in exact arithmetic."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from zoo.ticks import MOST, axis, linear_ticks, log_ticks

STEPS = [number * Fraction(10) ** power for power in range(-14, 14) for number in (1, 2, 5)]


def _ranges(count: int) -> list[tuple[float, float]]:
    rng = random.Random(0)
    found = []
    for _ in range(count):
        low = rng.uniform(-1, 1) * 10 ** rng.uniform(-4, 6)
        found.append((low, low + 10 ** rng.uniform(-3, 6)))
    return [*found, (0.0, 1.0), (0.0, 0.8), (-1.0, 1.0), (55.0, 85.0), (0.1, 0.3)]


@pytest.mark.parametrize(("low", "high"), _ranges(100))
def test_linear_ticks_are_the_multiples_of_the_finest_step_that_fits(low: float, high: float) -> None:
    for step in STEPS:
        first, last = math.ceil(Fraction(low) / step), math.floor(Fraction(high) / step)
        if last - first < MOST:
            expected = [float(number * step) for number in range(first, last + 1)]
            break
    found = linear_ticks(low, high)
    # A bound that is a multiple but for its last bit may be counted in.
    assert set(expected) <= set(found)
    assert all(math.isclose(extra, low) or math.isclose(extra, high) for extra in set(found) - set(expected))
    assert 2 <= len(found) <= MOST


def test_logarithmic_ticks_are_round_and_as_dense_as_may_be() -> None:
    rng = random.Random(1)
    for _ in range(200):
        low = 10 ** rng.uniform(-3, 4)
        high = low * 10 ** rng.uniform(0.1, 6)
        found = log_ticks(low, high)
        assert 2 <= len(found) <= MOST
        assert all(low <= value <= high for value in found)
        choices = [
            [
                number * 10.0**power
                for power in range(-5, 12)
                for number in numbers
                if low <= number * 10.0**power <= high
            ]
            for numbers in ((1, 2, 5), (1, 3), (1,))
        ]
        expected = next(choice for choice in choices if len(choice) <= MOST)
        if len(expected) >= 3:
            assert found == pytest.approx(expected, rel=1e-12)


def test_an_axis_holds_its_values_in_order() -> None:
    values = [4.1, 0.07, 512.0, 33.0]
    for log in (False, True):
        shown = axis("ms", values, log=log)
        parts = [shown.part(value) for value in sorted(values)]
        assert parts == sorted(parts)
        assert 0 < parts[0] < parts[-1] < 1
        assert shown.place(shown.low, 60, 700) == pytest.approx(60)
        assert shown.place(shown.high, 60, 700) == pytest.approx(700)
    third = axis("ms", [1.0, 10.0, 100.0], log=True)
    assert third.part(10) - third.part(1) == pytest.approx(third.part(100) - third.part(10))


@pytest.mark.parametrize("values", [[], [0.0], [71.9], [5.0, 5.0]])
def test_a_single_value_and_none_have_an_axis_too(values: list[float]) -> None:
    for zero in (False, True):
        shown = axis("x", values, zero=zero)
        assert shown.low < shown.high
        assert all(0 <= shown.part(value) <= 1 for value in values)
        assert len(shown.ticks) >= 2
    if all(values):
        assert len(axis("x", values, log=True).ticks) >= 2


def test_ticks_are_written_without_the_dirt_of_floats() -> None:
    assert [words for _, words in axis("x", [0.0, 1.0]).ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert [words for _, words in axis("x", [0.11, 2900.0], log=True).ticks] == ["0.1", "1", "10", "100", "1,000"]
