"""Intervals against simulated machines whose true median is known, order statistics against published ones."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from zoo.bench.statistics import ratio, spearman, summary, thin

TRUE = 4.0


def machine(
    rng: np.random.Generator, *, rounds: int, turns: int, samples: int = 20, drift: float = 0.03, memory: float = 0.9
) -> list[list[list[float]]]:
    """Times in ms around TRUE: rounds that drift, turns that do a little, samples that remember the one before."""
    noise = np.zeros((rounds, turns, samples))
    fresh = rng.normal(size=noise.shape)
    noise[..., 0] = fresh[..., 0]
    for at in range(1, samples):
        noise[..., at] = memory * noise[..., at - 1] + np.sqrt(1 - memory**2) * fresh[..., at]
    shift = drift * rng.normal(size=(rounds, 1, 1)) + 0.01 * rng.normal(size=(rounds, turns, 1))
    result: list[list[list[float]]] = (TRUE * np.exp(shift + 0.02 * noise)).tolist()
    return result


def independent(turns: list[list[list[float]]]) -> tuple[float, float]:
    """The textbook's interval of a median of independent samples: Conover, Practical Nonparametric Statistics, 3.2."""
    ordered = sorted(sample for row in turns for turn in row for sample in turn)
    half = 1.96 * len(ordered) ** 0.5 / 2
    return ordered[round(len(ordered) / 2 - half) - 1], ordered[round(1 + len(ordered) / 2 + half) - 1]


@pytest.mark.parametrize(("rounds", "turns", "drift"), [(4, 3, 0.03), (4, 3, 0.0), (4, 1, 0.03), (2, 3, 0.03)])
def test_the_interval_of_the_median_covers_it_where_samples_hang_together(
    rounds: int, turns: int, drift: float
) -> None:
    rng = np.random.default_rng(7)
    trials = 150
    covered = naive = width = 0.0
    for _ in range(trials):
        taken = machine(rng, rounds=rounds, turns=turns, drift=drift)
        told, (low, high) = summary(taken), independent(taken)
        covered += told["low"] <= TRUE <= told["high"]
        naive += low <= TRUE <= high
        width += (told["high"] - told["low"]) / TRUE
    assert covered / trials >= 0.85
    assert naive / trials < 0.6
    assert width / trials < 0.15  # it does not cover by saying nothing


def test_the_interval_of_independent_samples_is_not_much_wider_than_theirs() -> None:
    rng = np.random.default_rng(3)
    widths = []
    for _ in range(40):
        taken = (TRUE * rng.lognormal(0, 0.05, size=(6, 4, 50))).tolist()
        told, (low, high) = summary(taken), independent(taken)
        widths.append((told["high"] - told["low"]) / (high - low))
    assert 1.0 <= statistics.median(widths) < 2.0


def test_summary_states_the_percentiles_of_all_samples() -> None:
    samples = [float(value) for value in range(1, 102)]
    told = summary([[samples[0::4], samples[1::4]], [samples[2::4], samples[3::4]]])
    assert (told["median"], told["p50"], told["p90"], told["p99"]) == (51, 51, 91, 100)
    assert (told["min"], told["samples"], told["rounds"]) == (1, 101, 2)
    assert told["low"] < 51 < told["high"]


def test_one_turn_gives_its_whole_range_and_two_alike_no_certainty() -> None:
    told = summary([[[3.0, 1.0, 2.0]]])
    assert (told["low"], told["median"], told["high"]) == (1, 2, 3)
    told = summary([[[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]])
    assert (told["low"], told["high"]) == (1, 3)
    with pytest.raises(ValueError, match="no samples"):
        summary([[[]], []])


def test_the_same_samples_give_the_same_interval() -> None:
    taken = machine(np.random.default_rng(1), rounds=4, turns=3)
    assert summary(taken) == summary(taken)


def test_a_drift_of_the_machine_leaves_the_ratio() -> None:
    rng = np.random.default_rng(5)
    trials = 150
    covered = width = 0.0
    for _ in range(trials):
        drift = np.exp(0.2 * rng.normal(size=(4, 1)))  # of 20 %, in both
        a, b = (time * drift * np.exp(0.01 * rng.normal(size=(4, 3))) for time in (4.0, 1.8))
        told = ratio(a.tolist(), b.tolist())
        assert told is not None
        covered += told["low"] <= 0.45 <= told["high"]
        width += (told["high"] - told["low"]) / told["median"]
    assert covered / trials >= 0.85
    assert width / trials < 0.06


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    told = ratio([[1.0, 2.0], [4.0]], [[3.0, 2.0], [8.0]])  # 3, 1, 2
    assert told is not None
    assert told["median"] == 2
    assert 0 < told["low"] < 2 < told["high"]
    unpaired = ratio([[1.0, 2.0], [4.0], [9.0]], [[3.0, 2.0, 50.0], [8.0]])
    assert unpaired == told
    assert ratio([[1.0]], [[2.0]]) is None


def test_spearman_is_the_published_example() -> None:
    # Wikipedia, "Spearman's rank correlation coefficient": IQ and hours of television, rho = -29/165.
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(iq, hours) == pytest.approx(-29 / 165)


def test_spearman_with_ties_is_pearsons_of_the_mean_ranks() -> None:
    rng = np.random.default_rng(2)
    xs, ys = rng.integers(0, 5, 40).tolist(), rng.integers(0, 5, 40).tolist()

    def mean_ranks(values: list[int]) -> list[float]:  # by counting, not by sorting
        return [
            sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    assert spearman(xs, ys) == pytest.approx(statistics.correlation(mean_ranks(xs), mean_ranks(ys)))
    assert spearman(xs, [-x for x in xs]) == pytest.approx(-1)
    assert np.isnan(spearman([1, 2, 3], [5, 5, 5]))
    with pytest.raises(ValueError, match="order"):
        spearman([1], [1])


def test_thinned_samples_keep_their_order_and_their_ends() -> None:
    assert thin([3.0, 1.0, 2.0]) == [3, 1, 2]
    samples = np.random.default_rng(0).random(1000).tolist()
    kept = thin(samples)
    assert len(kept) == 256
    assert (kept[0], kept[-1]) == (samples[0], samples[-1])
    places = [samples.index(sample) for sample in kept]
    assert set(np.diff(places)) <= {3, 4}
