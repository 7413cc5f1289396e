"""Grids resolve what they should, and the exact identities behind the cheap activations hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.quantize.grids import (
    Grid,
    chosen_range,
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


def test_clipping_gives_up_a_lone_outlier_only() -> None:
    def seen(values: np.ndarray) -> Observed:
        ends = values.min(keepdims=True), values.max(keepdims=True)
        return Observed((1, 1), *ends, ends[0], ends[1], np.histogram(values, 2048, (ends[0][0], ends[1][0]))[0])

    random = np.random.default_rng(0)
    even = seen(random.uniform(0, 1, 100_000))
    assert chosen_range(even, "clipped")[1] > 0.95
    tailed = seen(np.append(random.normal(0, 1, 1_000_000), 30.0))
    assert chosen_range(tailed, "whole")[1] == 30
    assert chosen_range(tailed, "clipped")[1] < 29
    assert chosen_range(tailed, "roomy") == pytest.approx([1.3 * end for end in chosen_range(tailed, "clipped")])
