"""What a series of times says, and how sure it is: intervals that know that neighbouring samples are not independent.

A machine drifts: for minutes it is a little faster or slower, so a thousand samples of one minute say little more than
one. Samples are therefore taken in rounds, in each of which every model has its turns, and the intervals here resample
whole rounds, and whole turns within them, never single samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000
_SEED = 20_260_101
_POINTS = 32  # of each turn: enough for its median, and few enough to resample in milliseconds
_NORMAL = 1.959964  # 97.5 % of a normal distribution lie below

Values = npt.NDArray[np.float64]


def summary(turns: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """The record's ``latency_ms``, without ``settled``: samples in milliseconds, by round and turn.

    low..high: the 95 % interval of the median, never narrower than that of independent samples. With one turn alone,
    which cannot tell how turns differ, it is the range of the samples.

    Raises ValueError without a sample.
    """
    groups = [[np.asarray(turn, float) for turn in row if len(turn)] for row in turns]
    groups = [row for row in groups if row]
    if not groups:
        raise ValueError("no samples to summarise")
    pooled = np.sort(np.concatenate([turn for row in groups for turn in row]))
    p50, p90, p99 = np.percentile(pooled, (50, 90, 99))
    low, high = float(pooled[0]), float(pooled[-1])
    if sum(map(len, groups)) > 1:
        near, far = _naive(pooled)
        below, above = _clustered(groups, float(p50))
        low, high = max(low, min(below, near)), min(high, max(above, far))
    return {
        "median": float(p50), "low": low, "high": high, "p50": float(p50), "p90": float(p90), "p99": float(p99),
        "min": float(pooled[0]), "samples": len(pooled), "rounds": len(groups),
    }  # fmt: skip


def ratio(
    turns_a: Sequence[Sequence[float | None]], turns_b: Sequence[Sequence[float | None]]
) -> dict[str, float] | None:
    """The time of b over that of a, with its 95 % interval, from the record's ``turns_ms`` of two rows.

    The turns of one place were taken side by side, so that a drift of the machine is in both and leaves their ratio.
    The result is the median of the pairs' ratios, keys ``median``, ``low`` and ``high``; None for fewer than two
    pairs, which cannot tell how sure they are. Turns without a partner, or None, are left out.
    """
    pairs = [
        [np.asarray([b / a]) for a, b in zip(row_a, row_b, strict=False) if a is not None and b is not None]
        for row_a, row_b in zip(turns_a, turns_b, strict=False)
    ]
    pairs = [row for row in pairs if row]
    if sum(map(len, pairs)) < 2:
        return None
    ratios = np.sort(np.concatenate([pair for row in pairs for pair in row]))
    median = float(np.median(ratios))
    low, high = _clustered(pairs, median)
    if len(ratios) > 5:  # fewer have no interval of their own, and their range would not be one
        near, far = _naive(ratios)
        low, high = min(low, near), max(high, far)
    return {"median": median, "low": low, "high": high}


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's rank correlation, ties sharing the mean of their ranks; nan where either does not vary.

    Raises ValueError for sequences of different length or fewer than two values.
    """
    if len(xs) != len(ys) or len(xs) < 2:
        raise ValueError(f"two or more pairs have an order: {len(xs)} and {len(ys)} values have none")
    a, b = (ranks(values) - (len(xs) + 1) / 2 for values in (xs, ys))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def ranks(values: Sequence[float]) -> Values:
    """The rank of each value from 1, the smallest; equal values share the mean of theirs."""
    _, place, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    result: Values = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return result


def thin(samples: Sequence[float], most: int = 256) -> list[float]:
    """At most ``most`` of the samples, evenly spaced, the first and the last among them, in their order."""
    if len(samples) <= most:
        return [float(sample) for sample in samples]
    return [float(samples[index]) for index in np.linspace(0, len(samples) - 1, most).round().astype(int)]


def _naive(ordered: Values) -> tuple[float, float]:
    """The 95 % interval of the median of independent samples, from their order statistics."""
    count = len(ordered)
    reach = _NORMAL * np.sqrt(count) / 2
    first, last = int(np.floor(count / 2 - reach)), int(np.ceil(count / 2 + reach))
    return float(ordered[max(first, 0)]), float(ordered[min(last, count - 1)])


def _clustered(groups: Sequence[Sequence[Values]], median: float) -> tuple[float, float]:
    """The 95 % interval of the median of all samples, when rounds and the turns in them are what was drawn.

    A bootstrap in two levels: rounds with replacement, then turns of each with replacement. It is widened, on a
    logarithmic scale, for there being few: by sqrt(n / (n - 1)) of the n rounds, whose spread a bootstrap
    underestimates, and by Student's t of all turns in place of the normal distribution.
    """
    if len(groups) == 1:  # one round: its turns are what varies
        groups = [[turn] for turn in groups[0]]
    flat = [turn for row in groups for turn in row]
    resampled = _medians(flat, _draw(np.asarray([len(row) for row in groups])))
    reach = np.sqrt(len(groups) / (len(groups) - 1)) * _student(len(flat) - 1) / _NORMAL
    low, high = np.quantile(resampled, (0.025, 0.975))
    return min(median, median * float((low / median) ** reach)), max(median, median * float((high / median) ** reach))


def _draw(sizes: npt.NDArray[np.int_]) -> Values:
    """How often each turn is in each resample: (resamples, turns)."""
    rng = np.random.default_rng(_SEED)
    rounds = rng.integers(len(sizes), size=(_RESAMPLES, len(sizes)))
    within = rng.random((_RESAMPLES, len(sizes), sizes.max()))
    lengths = sizes[rounds][:, :, None]
    turns = (np.cumsum(sizes) - sizes)[rounds][:, :, None] + (within * lengths).astype(int)
    weights = np.broadcast_to(np.arange(sizes.max()) < lengths, turns.shape)  # a short round draws as many as it has
    cell = np.arange(_RESAMPLES)[:, None, None] * sizes.sum() + turns
    counts = np.bincount(cell.ravel(), weights.ravel(), minlength=_RESAMPLES * sizes.sum())
    return counts.reshape(_RESAMPLES, -1).astype(float)


def _medians(turns: Sequence[Values], counts: Values) -> Values:
    """The median of each resample, from some quantiles of every turn, weighted with its number of samples."""
    lengths = [min(len(turn), _POINTS) for turn in turns]
    values = np.concatenate(
        [np.quantile(turn, (np.arange(n) + 0.5) / n) for turn, n in zip(turns, lengths, strict=True)]
    )
    order = np.argsort(values)
    own = np.repeat(np.arange(len(turns)), lengths)[order]
    weight = np.repeat([len(turn) / length for turn, length in zip(turns, lengths, strict=True)], lengths)[order]
    below = np.cumsum(counts[:, own] * weight, axis=1)
    half = below[:, -1:] / 2
    # Between the last value with less than half below it and the first with more: the mean of both, as a median is.
    left, right = (below < half - 1e-9).sum(axis=1), (below <= half + 1e-9).sum(axis=1)
    ordered = values[order]
    result: Values = (ordered[left] + ordered[np.minimum(right, len(ordered) - 1)]) / 2
    return result


def _student(degrees: int) -> float:
    """97.5 % of Student's t, by Cornish and Fisher's expansion: within 1 % from 3 degrees on."""
    z, terms = _NORMAL, (1.0, 1 / 4, 1 / 96, 1 / 384)
    powers = (z, z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z)
    series = [term * power / float(degrees) ** at for at, (term, power) in enumerate(zip(terms, powers, strict=True))]
    return float(sum(series))
