"""A forked child opens its file anew: it never waits for threads that stayed with the parent."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import forked
from runtime.engines import ENGINES, open_session
from runtime.errors import InferenceFailed
from runtime.model import Model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Tiny = Callable[..., Path]
BATCH = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


class Opened:
    """What a model is to ``forked``: a function that runs, and one that opens again."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0
        self.run = self.reopen()
        forked.guard(self, Opened.reopen)

    def reopen(self) -> Any:
        self.times += 1
        with forked.OPENING:
            return open_session(self.path, threads=2).run


def in_child(function: Callable[[], object], seconds: int = 20) -> int:
    """The exit code of a forked child: 0 where the function was true, -SIGALRM where it never came back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, about what is tested here
        child = os.fork()
    if child == 0:
        gc.disable()  # other tests leave sessions behind that nobody guards
        signal.alarm(seconds)
        try:
            os._exit(0 if function() else 3)
        finally:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def busy(run: Callable[[], object], threads: int) -> Iterator[None]:
    """Threads that run and run in the meantime."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            run()

    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in crew:
            thread.join()


def test_a_child_of_a_busy_parent_runs_what_it_inherited(tiny: Tiny) -> None:
    opened = Opened(tiny())
    expected = opened.run(None, {"input": BATCH})[0]

    def same() -> bool:
        first, second = (opened.run(None, {"input": BATCH})[0] for _ in range(2))
        return opened.times == 2 and np.array_equal(first, expected) and np.array_equal(second, expected)

    with busy(lambda: opened.run(None, {"input": BATCH}), 3), busy(lambda: Opened(opened.path), 1):
        codes = []
        for pause in range(10):
            time.sleep(pause / 1000)
            codes.append(in_child(same))
    assert codes == [0] * 10
    assert opened.times == 1  # the parent goes on with its own
    np.testing.assert_array_equal(opened.run(None, {"input": BATCH})[0], expected)


def test_threads_of_a_child_open_it_once(tiny: Tiny) -> None:
    opened = Opened(tiny())

    def shared() -> bool:
        found: list[Any] = []
        crew = [threading.Thread(target=lambda: found.append(opened.run(None, {"input": BATCH})[0])) for _ in range(8)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        return opened.times == 2 and len(found) == 8

    assert in_child(shared) == 0


def test_a_child_may_forget_what_it_inherited_and_fork_again(tiny: Tiny) -> None:
    kept, dropped = Opened(tiny()), [Opened(tiny())]
    dropped[0].run(None, {"input": BATCH})

    def lives() -> bool:
        dropped.clear()
        return in_child(lambda: kept.run(None, {"input": BATCH})) == 0

    assert in_child(lives) == 0


def test_a_session_alone_outlives_its_last_name(tiny: Tiny) -> None:
    sessions = [open_session(tiny(), threads=2)]
    sessions[0].run(None, {"input": BATCH})
    forked.on_fork(sessions[0], forked.never_destroy)
    assert in_child(lambda: sessions.pop() is not None) == 0


def test_what_is_closed_stays_closed(tiny: Tiny) -> None:
    opened = Opened(tiny())
    opened.run = lambda *_: "closed"
    forked.release(opened)
    assert in_child(lambda: opened.run(None, {}) == "closed") == 0


def test_a_device_that_does_not_come_along_says_so(tiny: Tiny) -> None:
    class Device(Opened):
        def reopen(self) -> Any:
            if self.times:
                raise forked.cannot("tiny.onnx")
            return super().reopen()

    device = Device(tiny())
    forked.release(device)
    forked.guard(device, Device.reopen)

    def refused() -> bool:
        with pytest.raises(InferenceFailed, match=r'tiny\.onnx: was opened before this process was forked.*"spawn"'):
            device.run(None, {"input": BATCH})
        return True

    assert in_child(refused) == 0


def test_owners_are_told_in_order_and_let_go_of() -> None:
    class Owner:
        def __init__(self) -> None:
            self.told: list[str] = []

    owner = Owner()
    forked.on_fork(owner, lambda owner: owner.told.append("first"))
    forked.on_fork(owner, lambda owner: owner.told.append("second"))
    told = owner.told
    assert in_child(lambda: told == ["first", "second"]) == 0
    assert told == []
    reference = weakref.ref(owner)
    del owner
    gc.collect()
    assert reference() is None


def test_a_model_works_on_in_a_child(tiny: Tiny) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    with Model(tiny(), threads=2) as model:
        label, shown = model.predict(picture).label, model.explain(picture, "grad-cam").map
        expected = model.run(BATCH)

        def same() -> bool:
            again = model.run(BATCH)
            explained = model.explain(picture, "grad-cam").map
            model.close()
            gc.collect()
            return (
                np.allclose(again, expected, rtol=1e-5, atol=1e-5)
                and np.allclose(explained, shown, atol=1e-5)
                and label == Model(model.path).predict(picture).label
            )

        with busy(lambda: model.run(BATCH), 2):
            assert [in_child(same) for _ in range(5)] == [0] * 5
        np.testing.assert_allclose(model.run(BATCH), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", [name for name, row in ENGINES.items() if row.lost_in_fork and row.device == "cpu"])
def test_an_engine_that_is_lost_says_so(tiny: Tiny, engine: str) -> None:
    pytest.importorskip(engine)
    with Model(tiny(), engine=engine) as model:
        model.run(BATCH)

        def refused() -> bool:
            try:
                model.run(BATCH)
            except InferenceFailed as error:
                return "spawn" in str(error)
            return False

        assert [in_child(refused) for _ in range(3)] == [0] * 3
