"""Turns: everyone has some, who is far behind has no more, and the times are of the runs."""

from __future__ import annotations

import time

import pytest

from runtime.tuning.race import race


def test_the_slow_fall_behind_and_the_fast_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.tuning.race._TURN_S", 0.01)
    monkeypatch.setattr("runtime.tuning.race._SETTLE_S", 0.0)
    calls: dict[str, int] = {"fast": 0, "near": 0, "slow": 0}

    def run(name: str, seconds: float) -> None:
        calls[name] += 1
        time.sleep(seconds)

    found = race(
        {
            "fast": lambda: run("fast", 0.004),
            "near": lambda: run("near", 0.0042),
            "slow": lambda: run("slow", 0.02),
        },
        2.0,
    )
    assert len(found["slow"]) == 3 < len(found["near"]) == len(found["fast"])
    assert all(4 <= turn < 20 <= slow for turn, slow in zip(found["fast"], found["slow"], strict=False))


def test_one_alone_is_timed_and_nobody_waits() -> None:
    assert len(race({"only": lambda: None}, 60.0)["only"]) == 3


def test_progress_counts_towards_the_budget() -> None:
    seen: list[int] = []
    race(
        {"a": lambda: time.sleep(0.01), "b": lambda: time.sleep(0.01)}, 0.5, lambda what, done, total: seen.append(done)
    )
    assert seen == sorted(seen) and seen[0] == 0 and max(seen) <= 99
