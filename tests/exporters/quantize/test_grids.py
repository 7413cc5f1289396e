"""Grids resolve what they should, and the exact identities behind the cheap activations hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.quantize.grids import (
    Grid,
    Ranges,
    chosen_range,
    chosen_top,
    hard_sigmoid_input,
    hard_swish_input,
    spanning,
    weight_grid,
    with_room_for,
)
from exporters.quantize.observe import Observed


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_a_range_is_resolved_to_half_a_step(one: float, other: float) -> None:
    low, high = sorted((one, other))
    grid = spanning(low, high)
    values = np.linspace(low, high, 50)
    # Half a step, and half of one at the ends where the zero point was rounded.
    assert np.abs(grid.rounded(values) - values).max() <= grid.scale * 1.001
    assert grid.rounded(np.zeros(1))[0] == 0
    np.testing.assert_array_equal(grid.signed().rounded(values), grid.rounded(values))


@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5)])
def test_hard_sigmoid_is_another_reading_of_the_same_integers(alpha: float, beta: float) -> None:
    grid = hard_sigmoid_input(alpha, beta)
    values = np.linspace(-8, 8, 999)
    read = Grid(alpha * grid.scale, 0)
    assert np.abs(read.rounded(0 * values).max()) == 0
    answer = grid.integers(values).astype(float) * read.scale
    assert np.abs(answer - np.clip(alpha * values + beta, 0, 1)).max() < 0.005


@pytest.mark.parametrize("high", [0.0, 0.5, 2.9, 3.0, 7.7, 40.0])
def test_hard_swish_s_grid_has_its_knees_on_it(high: float) -> None:
    grid = hard_swish_input(high)
    assert abs(round(3 / grid.scale) * grid.scale - 3) < 1e-6
    assert grid.rounded(np.array([-9.0]))[0] == pytest.approx(-3)
    assert grid.rounded(np.array([high]))[0] == pytest.approx(high, abs=grid.scale)


def test_bias_of_a_row_of_next_to_no_weights_fits_int32() -> None:
    # The scale such a row would get makes its bias overflow: 0.5 / (0.02 * 1e-12 / 127) is 3e15.
    matrix, bias = np.array([[1e-12, 0.0], [0.3, -0.6]]), np.array([0.5, 0.5])
    integers, scales = with_room_for(bias, weight_grid(matrix, bits=8), lambda: matrix, 0.02, bits=8)
    stored = np.round(bias / (0.02 * scales.astype(np.float64)))
    assert np.abs(stored).max() < 2**31
    np.testing.assert_allclose(stored * 0.02 * scales, bias, rtol=1e-3)
    np.testing.assert_allclose(integers[1] * scales[1], matrix[1], atol=scales[1] / 2)


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
def test_weights_of_fewer_bits(bits: int, largest: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(4, 9))
    integers, scales = weight_grid(matrix, bits=bits)
    assert np.abs(integers).max(axis=1).tolist() == [largest] * 4
    assert np.abs(integers * scales[:, None] - matrix).max() <= scales.max() / 2 * 1.001


def seen(values: np.ndarray, others: np.ndarray) -> Observed:
    """A tensor of these values, and the histogram of others."""
    ends = values.min(keepdims=True), values.max(keepdims=True)
    item = Observed((1, 1), *ends, ends[0], ends[1])
    item.histogram = np.histogram(np.clip(others, *item.span), len(item.values()), item.span)[0]
    return item


@pytest.mark.parametrize("ranges", ["squared", "cubed"])
def test_clipping_gives_up_a_lone_outlier_only(ranges: Ranges) -> None:
    random = np.random.default_rng(0)
    even = random.uniform(0, 1, 100_000)
    assert chosen_range(seen(even, even), ranges)[1] > 0.95
    tailed = np.append(random.normal(0, 1, 1_000_000), 30.0)
    assert chosen_range(seen(tailed, tailed), "whole")[1] == 30
    assert chosen_range(seen(tailed, tailed), ranges)[1] < 29.5


def test_what_hard_swish_makes_nothing_of_is_not_counted() -> None:
    random = np.random.default_rng(0)
    above = random.lognormal(0, 1, 100_000) - 3
    below = np.where(above < np.median(above), -300 * random.random(len(above)), above)

    def error(high: float) -> float:
        counted = below[below > -3]
        return float(np.square(hard_swish_input(high).rounded(counted) - counted).mean())

    top, cut_off = chosen_top(seen(below, below), "squared"), chosen_range(seen(below, below), "squared")[1]
    assert error(top) < 1.1 * min(error(share * above.max()) for share in np.linspace(0.2, 1, 41))
    assert error(top) < 0.9 * error(cut_off)
    assert chosen_top(seen(above, above), "whole") == above.max()


def test_what_other_pictures_hold_beyond_the_range_widens_it() -> None:
    random = np.random.default_rng(0)
    few, many = random.normal(0, 1, 1000), random.normal(0, 1, 1_000_000)
    squared, cubed = (chosen_range(seen(few, many), ranges) for ranges in ("squared", "cubed"))
    assert few.max() < squared[1] <= cubed[1] < many.max()
    assert few.min() > squared[0] >= cubed[0] > many.min()
    best = {}
    for power, ends in ((2, squared), (3, cubed)):  # no end a tenth further in or out does better
        errors = {
            by: float((np.abs(spanning(by[0] * ends[0], by[1] * ends[1]).rounded(many) - many) ** power).mean())
            for by in [(1.0, 1.0), (0.8, 1.0), (1.2, 1.0), (1.0, 0.8), (1.0, 1.2)]
        }
        best[power] = min(errors, key=errors.__getitem__)
    assert best == {2: (1.0, 1.0), 3: (1.0, 1.0)}
