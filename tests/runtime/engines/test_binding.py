"""Bindings on the CPU's memory, where they are the same code as on a GPU's: against the session's own run."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from runtime.engines import open_session
from runtime.engines.binding import BoundSession
from runtime.machine import load_onnxruntime
from tests.conftest import tiny_proto

RANDOM = np.random.default_rng(0)


def batch(count: int) -> dict[str, np.ndarray]:
    return {"input": RANDOM.standard_normal((count, 3, 8, 8)).astype(np.float32)}


def pair(*, graphs: bool = False) -> tuple[BoundSession, object]:
    session = open_session(tiny_proto().SerializeToString())
    return BoundSession(load_onnxruntime(), session, "cpu", graphs=graphs), session


@pytest.mark.parametrize("graphs", [False, True])
def test_the_same_as_the_session(graphs: bool) -> None:
    bound, session = pair(graphs=graphs)
    for count in (1, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 1):
        feed = batch(count)
        np.testing.assert_array_equal(bound.run(["logits"], feed)[0], session.run(["logits"], feed)[0])  # type: ignore[attr-defined]
    assert len(bound._free) <= 8


def test_pictures_and_answers_are_the_callers_to_keep() -> None:
    bound, _ = pair()
    feed = batch(1)
    given = feed["input"].copy()
    first = bound.run(["logits"], feed)[0]
    kept = first.copy()
    bound.run(["logits"], batch(1))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(feed["input"], given)


@pytest.mark.parametrize("graphs", [False, True])
def test_threads_do_not_meet(graphs: bool) -> None:
    bound, session = pair(graphs=graphs)
    feeds = [batch(1) for _ in range(8)]
    expected = [session.run(["logits"], feed)[0] for feed in feeds]  # type: ignore[attr-defined]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(200):
            if not np.array_equal(bound.run(["logits"], feeds[index])[0], expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
