"""Processes that answer questions: one JSON line in, one JSON line out, both ends of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

Answer = dict[str, Any]


class Child:
    """A module of ours in a process of its own. An answer of {"problem": text} says why there is none.

    module: that calls ``serve``. arguments: for it. environment: on top of this process's.
    """

    def __init__(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | (environment or {}),
        )

    @property
    def process(self) -> int:
        """The number the system knows it by."""
        return self._process.pid

    def ask(self, question: Answer) -> Answer:
        """The answer to one question."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError:
            return self._died()
        return self.answer()

    def answer(self) -> Answer:
        """The next answer: to the last question, or what the child says of itself first."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            return self._died()
        answer: Answer = json.loads(line)
        return answer

    def _died(self) -> Answer:
        code = self._process.wait()
        why = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
        return {"problem": f"its process {why}"}

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):  # it went before it had read everything
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self._process.kill()
        self.close()


def serve(answer: Callable[[Answer], Answer], *, first: Callable[[], Answer] | None = None) -> int:
    """The child's end: answer until stdin ends. first: what to say before any question."""
    with os.fdopen(os.dup(1), "w", buffering=1) as voice:
        os.dup2(2, 1)  # what libraries print is no answer

        def say(make: Callable[[], Answer]) -> bool:
            told = _safely(make)
            print(json.dumps(told), file=voice, flush=True)
            return "problem" not in told

        if first is None or say(first):
            for line in sys.stdin:
                say(lambda: answer(json.loads(line)))  # noqa: B023 - called at once
    return 0


def _safely(make: Callable[[], Answer]) -> Answer:
    """What went wrong is an answer too: a row that cannot be measured is a result, and the others go on."""
    from runtime.errors import EdgeZooError

    try:
        return make()
    except EdgeZooError as error:
        return {"problem": " ".join(str(error).split())}
    except MemoryError:
        return {"problem": "not enough memory"}
    except Exception as error:  # noqa: BLE001
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
