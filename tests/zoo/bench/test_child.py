"""A child answers, says what went wrong, and its death is an answer too."""

import os
import signal
from pathlib import Path

import pytest

from zoo.bench.child import Child

ECHO = """
import sys
from runtime.errors import InvalidInput
from zoo.bench.child import serve

def answer(asked):
    print("noise of a library")
    if "fail" in asked:
        raise InvalidInput("that is\\n wrong")
    if "bug" in asked:
        raise RuntimeError("a bug")
    return {"got": asked["say"]}

sys.exit(serve(answer))
"""


@pytest.fixture
def echo(tmp_path: Path) -> Child:
    (tmp_path / "echo_child.py").write_text(ECHO)
    return Child("echo_child", environment={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])})


def test_questions_and_answers(echo: Child) -> None:
    with echo:
        assert echo.ask({"say": "é"}) == {"got": "é"}
        assert echo.ask({"fail": 1}) == {"problem": "that is wrong"}
        assert echo.ask({"bug": 1}) == {"problem": "RuntimeError: a bug"}
        assert echo.ask({"say": 2}) == {"got": 2}


def test_a_killed_child_is_a_problem(echo: Child) -> None:
    with echo:
        assert echo.ask({"say": 1}) == {"got": 1}
        os.kill(echo.process, signal.SIGKILL)
        assert "signal 9" in echo.ask({"say": 2})["problem"]
        assert "signal 9" in echo.ask({"say": 3})["problem"]


def test_a_child_that_does_not_begin() -> None:
    with Child("no_such_module_anywhere") as child:
        assert child.answer() == {"problem": "its process ended with exit code 1"}
