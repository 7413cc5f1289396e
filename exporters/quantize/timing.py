"""Which of several models is the faster: run in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines import open_session
from runtime.rest import rest

Array = npt.NDArray[Any]

_SETTLE_RUNS = 3  # of each turn, not counted: threads wake up, and the caches held another model
_RUNS = 4  # of a turn, that are counted
_MOST_TURNS = 15
_LEAST_TURNS = 4


def milliseconds(
    models: Sequence[bytes | str],
    picture: Array | Sequence[Array],
    *,
    device: str = "cpu",
    budget_s: float = 6.0,
    undisturbed: bool = False,
) -> list[float]:
    """The median time of one run of each model.

    picture: what all of them take, or what each of them does.
    undisturbed: the shortest instead, to choose by: where others take a core now and then, medians change places.
    device: of ``runtime.engines``.
    budget_s: seconds for all of them together; what is slow has fewer turns, at least four.
    """
    sessions = [open_session(model, device=device) for model in models]
    pictures = [picture] * len(sessions) if isinstance(picture, np.ndarray) else picture
    feeds = [{session.get_inputs()[0].name: one} for session, one in zip(sessions, pictures, strict=True)]
    samples: list[list[float]] = [[] for _ in sessions]
    start = time.perf_counter()
    for turn in range(_MOST_TURNS):
        if turn >= _LEAST_TURNS and time.perf_counter() - start > budget_s:
            break
        for session, feed, taken in zip(sessions, feeds, samples, strict=True):
            taken += _turn(session, feed)
    return [1000 * float(min(taken) if undisturbed else np.median(taken)) for taken in samples]


def _turn(session: Any, feed: dict[str, Array]) -> list[float]:
    rest()  # the threads of the model before spin on, on this one's cores
    taken = []
    for _ in range(_SETTLE_RUNS):
        session.run(None, feed)
    for _ in range(_RUNS):
        start = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - start)
    return taken
