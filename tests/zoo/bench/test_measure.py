"""Rounds and turns, with workers that are made up: who is asked when, and when it is enough."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.bench import measure as measuring
from zoo.bench.measure import Plan, complete, empty, measure, remaining
from zoo.bench.worker import Spec


class Fake:
    """In place of a process: it notes what it is asked."""

    asked: list[str] = []  # noqa: RUF012 - the test clears it
    times: dict[str, Any] = {}  # noqa: RUF012
    process = 1

    def __init__(self, module: str, spec: str) -> None:
        self.file = __import__("json").loads(spec)["file"]
        self.asked.append(f"start {self.file}")

    def answer(self) -> dict[str, Any]:
        time = self.times[self.file]
        if isinstance(time, str):
            return {"problem": time}
        return {"load_ms": 5.0, "first_ms": time, "provider": "CPUExecutionProvider", "input": [3, 8, 8], "memory": 1}

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(self.file)
        time = self.times[self.file]
        if callable(time):
            return {"problem": "it died"}
        return {"samples": [time, 1.0001 * time], "waited": 0.0, "bare": None, "memory": 7}

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *error: object) -> None:
        self.asked.append(f"end {self.file}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    Fake.asked, Fake.times = [], {}
    monkeypatch.setattr(measuring, "Child", Fake)
    return Fake


def group(*names: str) -> list[tuple[str, Spec]]:
    return [(name, Spec(name)) for name in names]


def test_groups_take_turns_in_both_orders_round_after_round(fake: type[Fake]) -> None:
    fake.times = {"a": 10.0, "b": 5.0, "c": 1.0}
    groups, raws, plan = [group("a", "b"), group("c")], {name: empty() for name in "abc"}, Plan(0.8, 2)
    seen = [[key for key, _ in done] for done in measure(groups, raws, plan)]
    assert seen == [["a", "b"], ["c"], ["a", "b"], ["c"]]  # interleaved: no row's rounds are next to each other
    first = fake.asked[: fake.asked.index("start c")]
    assert first == ["start a", "start b", *("a", "b", "b", "a") * 3, "end b", "end a"]
    assert [len(raw["rounds"]) for raw in raws.values()] == [2, 2, 2]
    assert all(len(turns) == measuring.TURNS for raw in raws.values() for turns in raw["rounds"])
    assert raws["a"]["memory"] == 7 and raws["a"]["load_ms"] == [5.0, 5.0]


def test_what_is_measured_already_is_not_measured_again(fake: type[Fake]) -> None:
    fake.times = {"a": 10.0, "b": 5.0}
    groups, raws, plan = [group("a"), group("b")], {name: empty() for name in "ab"}, Plan(0.8, 3)
    going = measure(groups, raws, plan)
    for _ in range(3):  # both once, and one of them again: then it is interrupted
        next(going)
    assert remaining(groups, raws, plan) == 3
    fake.asked.clear()
    list(measure(groups, raws, plan))
    assert [word for word in fake.asked if word.startswith("start")] == ["start b", "start a", "start b"]
    assert [len(raw["rounds"]) for raw in raws.values()] == [3, 3]


def test_what_does_not_settle_gets_twice_the_rounds(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    fake.times = {"a": 10.0, "b": 5.0}
    groups, raws, plan = [group("a"), group("b")], {name: empty() for name in "ab"}, Plan(0.8, 2)
    monkeypatch.setattr(measuring, "settled", lambda raw: raw is raws["b"])
    list(measure(groups, raws, plan))
    assert [len(raws[name]["rounds"]) for name in "ab"] == [4, 2]
    assert complete(raws["a"], plan) and complete(raws["b"], plan)


def test_a_wide_interval_is_not_settled() -> None:
    waited = [[0.0] * 4] * 3
    assert measuring.settled(empty() | {"rounds": [[[1.0, 1.001]] * 4] * 3, "waited": waited})
    assert not measuring.settled(empty() | {"rounds": [[[1.0], [1.3], [0.9], [1.1]]] * 3, "waited": waited})


def test_turns_that_others_disturbed_do_not_count_while_enough_remain() -> None:
    rounds = [[[1.0], [9.0], [1.1], [8.0], [1.0]], [[1.2], [1.3], [7.0], [1.4], [1.1]]]
    waited = [[0.0, 0.5, 0.01, 0.9, 0.0], [None, 0.0, 1.1, 0.02, 0.0]]
    raw = empty() | {"rounds": rounds, "waited": waited}
    assert measuring.counted(raw) == [[[1.0], [1.1], [1.0]], [[1.2], [1.3], [1.4], [1.1]]]
    busy = raw | {"waited": [[0.0, 0.5, 0.01, 0.9, 0.0], [0.3] * 5]}
    assert measuring.counted(busy) == rounds
    one = empty() | {"rounds": [[[1.0]], [[5.0]]], "waited": [[0.0], [0.4]]}  # a slow model, with a turn a round
    assert measuring.counted(one) == [[[1.0]], [[5.0]]]


def test_a_problem_ends_a_row_and_not_its_neighbours(fake: type[Fake]) -> None:
    fake.times = {"a": "cannot be opened", "b": 5.0}
    raws = {name: empty() for name in "ab"}
    list(measure([group("a", "b")], raws, Plan(0.8, 2)))
    assert raws["a"]["problem"] == "cannot be opened" and not raws["a"]["rounds"]
    assert len(raws["b"]["rounds"]) == 2
    assert fake.asked.count("start a") == 1


def test_slow_models_take_fewer_turns(fake: type[Fake]) -> None:
    fake.times = {"a": 2000.0}
    raws = {"a": empty()}
    list(measure([group("a")], raws, Plan(4.0, 2)))
    assert [len(turns) for turns in raws["a"]["rounds"]] == [1, 1]
