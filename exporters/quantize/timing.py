"""Which of several models is the faster: run in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from exporters.source import FloatArray
from runtime.engines import open_session

_WARM_UP = 5
_MOST_ROUNDS = 60
_LEAST_ROUNDS = 12


def milliseconds(models: Sequence[bytes | str], picture: FloatArray, *, budget_s: float = 4.0) -> list[float]:
    """The median time of one run of each model.

    budget_s: seconds for all of them together; what is slow is run less often, at least a dozen times.
    """
    sessions = [open_session(model) for model in models]
    name = sessions[0].get_inputs()[0].name
    samples: list[list[float]] = [[] for _ in sessions]
    start = time.perf_counter()
    for turn in range(_WARM_UP + _MOST_ROUNDS):
        if turn >= _WARM_UP + _LEAST_ROUNDS and time.perf_counter() - start > budget_s:
            break
        for session, taken in zip(sessions, samples, strict=True):
            begin = time.perf_counter()
            session.run(None, {name: picture})
            taken.append(time.perf_counter() - begin)
    return [1000 * float(np.median(taken[_WARM_UP:])) for taken in samples]


def ratio(model: Any, against: Any, picture: FloatArray) -> float:
    """How long the first takes as a share of the second."""
    first, second = milliseconds([model, against], picture)
    return first / second
