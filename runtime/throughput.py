"""Pictures as they come: several are decoded and run at the same time, with a bounded number of them on the way.

Each worker thread takes a few pictures from file to scores (Pillow and the engines let go of Python's lock); the
caller's own thread reads the pictures and makes the answers. Nothing is started before the first answer is asked for,
and nothing is left running when the last one was taken, an error was raised, or nobody wants the rest.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from runtime.errors import InferenceFailed, InvalidInput, UserError
from runtime.machine import usable_cores
from runtime.tasks.classification import Classification
from runtime.tasks.undecided import undecided

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt

    from runtime.image import ImageSource
    from runtime.model import Model

Errors: TypeAlias = Literal["raise", "return"]
Scores: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

_AT_ONCE = {"cpu": 1}
_TOGETHER = 8
"""Pictures of one run where nobody says: on the CPU one, since eight take 96 % of their time one by one (mobilenet_v2,
onnxruntime 1.31.1, CPU time) and spread worse over the cores; elsewhere, and of quick pictures, whose time is that of
the call, eight."""

_WORTH_IT_S, _SURE = 0.001, 3
"""Pictures that take less are quick and not handed to threads: most of their time is Python's, which threads take in
turns. So many batches in a row must have been quick, or not: one alone may have waited for a core."""


class Group(NamedTuple):
    """What became of some pictures. scores: (n, classes) of those that could be read.

    failures: for each picture, in order, why it could not be read; None for one that has its row in the scores.
    """

    scores: Scores
    failures: list[UserError | None]


def predict_many(
    model: Model,
    answer: Callable[[Scores], list[Classification]],
    images: Iterable[ImageSource],
    *,
    batch_size: int | None,
    workers: int | None,
    errors: Errors,
) -> Iterator[Classification | UserError]:
    """See ``Model.predict_many``. answer: from scores (n, classes) to n answers."""
    if errors not in ("raise", "return"):
        raise InvalidInput(f"errors {errors!r}: 'raise' or 'return'")
    with closing(groups(model, images, batch_size=batch_size, workers=workers)) as found:
        for scores, failures in found:
            answers = iter(answer(scores) if len(scores) else ())
            for failure in failures:
                if failure is not None and errors == "raise":
                    raise failure
                yield next(answers) if failure is None else failure


def scores_many(
    model: Model, images: Iterable[ImageSource], *, batch_size: int | None, workers: int | None
) -> Iterator[Scores]:
    """See ``Model.scores_many``."""
    with closing(groups(model, images, batch_size=batch_size, workers=workers)) as found:
        for scores, failures in found:
            failure = next((failure for failure in failures if failure is not None), None)
            if failure is not None:
                scores = scores[: failures.index(failure)]
            if len(scores):
                yield scores
            if failure is not None:
                raise failure


def groups(
    model: Model, images: Iterable[ImageSource], *, batch_size: int | None, workers: int | None
) -> Generator[Group, None, None]:
    """What becomes of the pictures, some at a time, in order. Close it, or take all.

    Raises InvalidInput for options that cannot be, what ``Model.run`` raises, and what ``images`` itself raises, then
    after the answers to the pictures before.
    """
    if batch_size is not None and batch_size < 1:
        raise InvalidInput(f"batch_size must be at least 1, not {batch_size}")
    if workers is not None and workers < 0:
        raise InvalidInput(f"workers must be at least 0, not {workers}")
    _ = model.rule  # raises where no picture can be given
    given = model.batch_size or batch_size
    size = given or _AT_ONCE.get(model.device, _TOGETHER)
    pending, quick, slow = iter(images), 0, 0
    # Hooks are told in order, in the caller's thread.
    while workers == 0 or model._hooks or (workers is None and slow < _SURE):
        if not (chunk := list(islice(pending, size if given or quick < _SURE else _TOGETHER))):
            return
        start = time.perf_counter()
        group = _run(model, chunk, size)
        if not any(group.failures):
            took = (time.perf_counter() - start) / len(chunk)
            quick, slow = (quick + 1, 0) if took < _WORTH_IT_S else (0, slow + 1)
        yield group
    # One more than cores: while one waits for its file, the others run.
    yield from _at_once(model, pending, size, usable_cores() + 1 if workers is None else workers)


def _at_once(model: Model, pending: Iterator[ImageSource], size: int, workers: int) -> Iterator[Group]:
    from concurrent.futures import ThreadPoolExecutor  # 4 ms, for whoever asks for one picture

    over, broken, filling = False, None, list[Any]()
    running: deque[Future[Group]] = deque()
    fresh = 0  # pictures read since the last answers: a slow consumer must not drain what is on the way
    pool = ThreadPoolExecutor(workers, "edgezoo")
    try:
        while True:
            waiting = bool(running) and running[0].done()
            if not over and len(running) < 2 * workers and not (waiting and fresh >= size):
                try:
                    filling.append(next(pending))
                    fresh += 1
                except StopIteration:
                    over = True
                except Exception as error:  # noqa: BLE001 - the caller's own, raised below after what came before it
                    over, broken = True, error
                if filling and (over or len(filling) == size):
                    running.append(pool.submit(_run, model, filling, size))
                    filling = []
            elif running:
                yield running.popleft().result()
                fresh = 0
            else:
                break
        if broken is not None:
            raise broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _run(model: Model, pictures: list[ImageSource], size: int) -> Group:
    """One run of what can be read; a file frozen to ``size`` pictures is filled up with the last of them."""
    arrays: list[npt.NDArray[Any]] = []
    failures: list[UserError | None] = []
    reduced: dict[int, ImageSource] = {}
    for picture in pictures:
        try:
            array, differs = model.prepare_as(model.decode, picture)
            if differs:
                reduced[len(arrays)] = picture
            arrays.append(array)
            failures.append(None)
        except UserError as error:
            failures.append(error)
    if not arrays:
        return Group(np.empty((0, 0), np.float32), failures)
    scores = _scores(model, arrays, size)
    if reduced:
        unsure = undecided(scores, model.task, logits=model.logits)
        for place in [place for place in reduced if unsure[place]]:
            exact = model.prepare_as("exact", reduced[place])[0]
            scores[place] = _scores(model, [exact], size)[0]
    return Group(scores, failures)


def _scores(model: Model, arrays: list[npt.NDArray[Any]], size: int) -> Scores:
    """(n, classes). What is too much for the memory at once is run in halves."""
    count = len(arrays)
    filled = arrays + arrays[-1:] * (size - count if model.batch_size else 0)
    try:
        return model.run(filled[0] if len(filled) == 1 else np.concatenate(filled))[:count]
    except InferenceFailed as error:
        if model.batch_size or count < 2 or not re.search("allocate memory|out of memory", str(error), re.IGNORECASE):
            raise
    half = count // 2
    return np.concatenate([_scores(model, arrays[:half], size), _scores(model, arrays[half:], size)])
