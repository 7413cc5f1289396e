"""Several ways to do the same, timed against each other in turns; who falls far behind does not go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from runtime.rest import rest

_SETTLE_RUNS, _SETTLE_S = 2, 0.02
"""Of each turn, not counted: threads wake up, and the caches hold another's weights."""

LEAST_RUNS, _MOST_RUNS, _TURN_S = 3, 100, 0.05
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 40
_BEHIND = 1.3
"""Times as slow as the leader, after every _LEAST_ROUNDS: out."""

Key = TypeVar("Key", bound=Hashable)


def race(
    runs: Mapping[Key, Callable[[], object]],
    seconds: float,
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> dict[Key, list[float]]:
    """Milliseconds of one run of each, the median of every turn it had; three turns at least, however long they take.

    seconds: for all of them together.
    """
    found: dict[Key, list[float]] = {key: [] for key in runs}
    left, begin = list(runs), time.perf_counter()
    for number in range(_MOST_ROUNDS):
        spent = time.perf_counter() - begin
        if number >= _LEAST_ROUNDS and (spent > seconds or len(left) == 1):
            break
        progress("timing", min(int(100 * spent / max(seconds, 1e-9)), 99), 100)
        for key in left if number % 2 == 0 else reversed(left):
            rest()  # the threads of whoever had the turn before spin on, on this one's cores
            found[key].append(float(np.median(turn(runs[key], _TURN_S))))
        if number % _LEAST_ROUNDS == _LEAST_ROUNDS - 1:
            medians = {key: float(np.median(found[key])) for key in left}
            best = min(medians.values())
            left = [key for key in left if medians[key] <= _BEHIND * best]
    return found


def turn(run: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each run that was counted: for so long, LEAST_RUNS at least."""
    begin, settled = time.perf_counter(), 0
    while settled < _SETTLE_RUNS or time.perf_counter() - begin < _SETTLE_S:
        run()
        settled += 1
    begin, taken = time.perf_counter(), list[float]()
    while len(taken) < LEAST_RUNS or (time.perf_counter() - begin < seconds and len(taken) < _MOST_RUNS):
        start = time.perf_counter()
        run()
        taken.append(1000 * (time.perf_counter() - start))
    return taken
