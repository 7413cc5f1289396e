"""Awaiting an answer: the loop goes on, coroutines share a model, and one that is cancelled harms nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.errors import InvalidImage, InvalidInput

Tiny = Callable[..., Path]


def test_awaited_answers_are_those_of_predict(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(60)]

    async def all_at_once() -> Any:
        return await asyncio.gather(*(model.apredict(picture, top=2) for picture in pictures))

    assert asyncio.run(all_at_once()) == [model.predict(picture, top=2) for picture in pictures]


def test_errors_are_those_of_predict(tiny: Tiny) -> None:
    with pytest.raises(InvalidImage, match="not an image"):
        asyncio.run(runtime.load(tiny()).apredict(b"not a picture"))


def test_a_cancelled_one_ends_at_once_while_its_thread_goes_on(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, go, begun = runtime.load(tiny()), threading.Event(), threading.Event()
    picture, prepare = np.zeros((9, 9, 3), np.uint8), model.prepare_as

    def slowly(decode: Any, image: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return prepare(decode, image)

    async def cancelled() -> Any:
        monkeypatch.setattr(model, "prepare_as", slowly)
        task = asyncio.create_task(model.apredict(picture))
        while not begun.is_set() and not task.done():
            await asyncio.sleep(0.001)  # the loop goes on
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        return await model.apredict(picture)

    assert asyncio.run(cancelled()) == model.predict(picture)


def test_closing_while_others_ask_ends_them_with_one_line(tiny: Tiny) -> None:
    picture = np.zeros((9, 9, 3), np.uint8)
    for _ in range(5):
        model, said, begun = runtime.load(tiny(), threads=2), list[str](), threading.Barrier(9)

        def ask(model: runtime.Model = model, said: list[str] = said, begun: threading.Barrier = begun) -> None:
            begun.wait()
            try:
                while True:
                    model.predict(picture)
            except InvalidInput as error:
                said.append(str(error))

        crew = [threading.Thread(target=ask) for _ in range(8)]
        for thread in crew:
            thread.start()
        begun.wait()
        model.predict(picture)
        model.close()
        for thread in crew:
            thread.join(30)
        assert [line.endswith("the model is closed") for line in said] == [True] * 8
