"""Many pictures: in order, a bounded number on the way, one bad one apart, nothing left behind."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

import runtime
from runtime import throughput
from runtime.errors import InferenceFailed, InvalidImage, InvalidInput, UserError
from runtime.image import preprocess
from runtime.tasks.classification import Classification

Tiny = Callable[..., Path]
Picture = npt.NDArray[np.uint8]


def picture(level: int) -> Picture:
    return np.full((9, 9, 3), level % 256, np.uint8)


def ours() -> list[str]:
    """Names of the threads that this module's subject has started and that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgezoo")]


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_order_and_scores_are_those_of_a_loop(tiny: Tiny, size: int, workers: int) -> None:
    path = tiny()
    model, session = runtime.load(path), onnxruntime.InferenceSession(path)
    levels = list(range(0, 250, 11))
    expected = [session.run(None, {"input": preprocess(picture(level), model.rule)})[0] for level in levels]
    pictures = (picture(level) for level in levels)
    rows = list(model.scores_many(pictures, batch_size=size, workers=workers))
    assert [len(row) for row in rows] == [len(levels[start : start + size]) for start in range(0, len(levels), size)]
    np.testing.assert_allclose(np.concatenate(rows), np.concatenate(expected), atol=1e-5)  # batches sum differently
    answers = model.predict_many(map(picture, levels), batch_size=size, workers=workers)
    assert [answer.index for answer in answers] == [int(scores.argmax()) for scores in expected]


def test_pictures_are_read_in_the_callers_thread_and_a_bounded_number_ahead(tiny: Tiny) -> None:
    model, read, threads = runtime.load(tiny()), 0, set[int]()

    def endless() -> Iterator[Picture]:
        nonlocal read
        for level in itertools.count():
            read += 1
            threads.add(threading.get_ident())
            yield picture(level)

    answers = model.predict_many(endless(), batch_size=4, workers=3)
    assert read == 0
    for taken in range(1, 200):
        next(answers)
        assert read <= taken + (2 * 3 + 1) * 4
    answers.close()
    assert threads == {threading.get_ident()}
    assert ours() == []


def test_without_workers_one_batch_is_read_and_no_thread_started(tiny: Tiny) -> None:
    model, read = runtime.load(tiny()), list[int]()
    pictures = (read.append(level) or picture(level) for level in range(20))  # type: ignore[func-returns-value]
    answers = model.predict_many(pictures, batch_size=1, workers=0)
    for taken in range(1, 21):
        next(answers)
        assert len(read) == taken
        assert ours() == []


def test_one_picture_starts_no_thread(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = runtime.load(tiny())
    monkeypatch.setattr(throughput, "_WORTH_IT_S", 0.0)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail(f"{thread.name} was started"))
    assert isinstance(model.predict(picture(7)), Classification)
    assert len(list(model.predict_many([picture(7)]))) == 1


def test_threads_are_started_for_pictures_that_take_their_time_and_are_no_failures(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, limit = runtime.load(tiny()), throughput._SURE
    for worth, started in ((1e9, False), (0.0, True)):
        monkeypatch.setattr(throughput, "_WORTH_IT_S", worth)
        answers = model.predict_many(itertools.chain([b"bad"] * 9, map(picture, itertools.count())), errors="return")
        for _ in range(9 + limit):
            next(answers)
            assert ours() == []
        next(answers)
        assert bool(ours()) is started
        answers.close()


def test_quick_pictures_are_run_together(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = runtime.load(tiny()), {}
    for worth in (0.0, 1e9):
        monkeypatch.setattr(throughput, "_WORTH_IT_S", worth)
        sizes[worth] = [len(scores) for scores in model.scores_many(map(picture, range(22)))]
    assert sizes == {0.0: [1] * 22, 1e9: [1, 1, 1, 8, 8, 3]}
    assert [len(scores) for scores in model.scores_many(map(picture, range(7)), batch_size=3)] == [3, 3, 1]


def test_hooks_are_told_in_order_in_the_callers_thread(tiny: Tiny) -> None:
    model, told = runtime.load(tiny()), list[tuple[int, float]]()
    remove = model.on_activation("logits", lambda _, values: told.append((threading.get_ident(), float(values[0, 0]))))
    list(model.predict_many(map(picture, range(0, 200, 10)), batch_size=1, workers=4))
    remove()
    expected = [float(scores[0, 0]) for scores in model.scores_many(map(picture, range(0, 200, 10)), batch_size=1)]
    assert {thread for thread, _ in told} == {threading.get_ident()}
    np.testing.assert_allclose([value for _, value in told], expected, rtol=1e-5)


def test_pictures_are_let_go_of(tiny: Tiny) -> None:
    model, alive = runtime.load(tiny()), list[weakref.ref[Any]]()

    def pictures() -> Iterator[Picture]:
        for level in range(300):
            one = picture(level)
            alive.append(weakref.ref(one))
            yield one

    most = 0
    for _ in model.predict_many(pictures(), batch_size=4, workers=2):
        gc.collect()
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 300
    assert most <= (2 * 2 + 1) * 4 + 1  # two batches for each worker, one being filled, and the generator's own


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("size", [1, 4])
def test_a_bad_picture_stands_in_its_place(tiny: Tiny, size: int, workers: int) -> None:
    model = runtime.load(tiny())
    given: list[Any] = [picture(level) for level in range(0, 200, 20)]
    expected: list[Any] = [model.predict(one) for one in given]
    for place in (0, 3, 4, 5, 6, 7, 12):  # a whole batch of them, too
        given.insert(place, b"not a picture")
        expected.insert(place, None)
    answers = list(model.predict_many(given, batch_size=size, workers=workers, errors="return"))
    assert [isinstance(answer, InvalidImage) for answer in answers] == [answer is None for answer in expected]
    for answer, wanted in zip(answers, expected, strict=True):
        if not isinstance(answer, UserError):
            assert answer.index == wanted.index
    found = []
    with pytest.raises(InvalidImage, match="not an image"):
        for answer in model.predict_many(given[1:], batch_size=size, workers=workers):
            found.append(answer.index)
    assert found == [wanted.index for wanted in expected[1:3]]
    with pytest.raises(InvalidImage):
        list(model.scores_many(given, batch_size=size, workers=workers))
    assert ours() == []


def test_an_error_of_the_callers_own_comes_after_the_answers_before_it(tiny: Tiny) -> None:
    model, found = runtime.load(tiny()), []

    def pictures() -> Iterator[Picture]:
        yield from map(picture, range(11))
        raise KeyError("camera")

    with pytest.raises(KeyError, match="camera"):
        for answer in model.predict_many(pictures(), batch_size=4, workers=2, errors="return"):
            found.append(answer)
    assert len(found) == 11
    assert ours() == []


def test_an_error_of_the_network_is_no_pictures_fault(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = runtime.load(tiny())
    monkeypatch.setattr(model, "run", lambda batch: (_ for _ in ()).throw(InferenceFailed("stopped")))
    with pytest.raises(InferenceFailed, match="stopped"):
        list(model.predict_many(map(picture, range(30)), workers=2, errors="return"))
    assert ours() == []


def test_nothing_runs_on_when_nobody_takes_the_rest(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    for answer in model.predict_many(map(picture, itertools.count()), workers=3):
        assert answer.top
        break
    gc.collect()
    assert ours() == []
    model.predict_many(map(picture, itertools.count()))  # never begun
    assert ours() == []


def test_a_model_that_is_closed_meanwhile_says_so(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    answers = model.predict_many(map(picture, itertools.count()), batch_size=2, workers=2, errors="return")
    next(answers)
    model.close()
    with pytest.raises(InvalidInput, match="closed"):
        list(answers)
    assert ours() == []


def test_wrong_options(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    for options, said in (
        ({"batch_size": 0}, "batch_size"), ({"workers": -1}, "workers"), ({"errors": "ignore"}, "errors 'ignore'"),
        ({"top": 0}, "top"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=said):
            list(model.predict_many([picture(0)], **options))  # type: ignore[arg-type]


def test_what_is_too_much_for_the_memory_is_run_in_halves(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8) for seed in range(7)]
    with runtime.load(tiny()) as model:
        wanted, run, sizes = np.concatenate(list(model.scores_many(pictures, batch_size=1))), model.run, list[int]()

        def little(batch: Any) -> Any:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise InferenceFailed("tiny.onnx: Failed to allocate memory for requested buffer of size 1")
            return run(batch)

        monkeypatch.setattr(model, "run", little)
        found = np.concatenate(list(model.scores_many(pictures, batch_size=7, workers=0)))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
        assert max(sizes) == 7 and min(sizes) >= 1

        def broken(batch: Any) -> Any:
            raise InferenceFailed("tiny.onnx: another reason")

        monkeypatch.setattr(model, "run", broken)
        with pytest.raises(InferenceFailed, match="another reason"):
            list(model.scores_many(pictures, batch_size=7, workers=0))
