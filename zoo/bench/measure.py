"""Rounds and turns: every row in each of several rounds, and what is to be compared side by side in time.

A round starts each model in a process of its own. The rows of one network, device and batch run alive beside each
other and take short turns, one after the other and then in the other order, so that a drift of the machine falls on
all of them alike. A row goes on for more rounds while its interval is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from zoo.bench.child import Child
from zoo.bench.machine import device_memory
from zoo.bench.statistics import summary
from zoo.bench.worker import Spec

TURNS = 6  # of a round
NARROW = 0.05
"""Half of the interval of the median, over the median: a row whose interval is this narrow is settled."""

CALM = 0.02
"""Share of a turn that threads may wait for a core: in one where they wait longer, other programs had it."""

Raw = dict[str, Any]
"""What was measured of a row so far, plain values: rounds [[[sample of a turn]]], waited [[share of a turn]], bare,
load_ms, first_ms, memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """budget_s: seconds of samples of each row, in so many rounds. patience: of what does not settle, times as much."""

    budget_s: float
    rounds: int
    threads: int | None = None
    patience: int = 2

    @property
    def most_rounds(self) -> int:
        """Of a row that does not settle."""
        return self.patience * self.rounds

    @property
    def turn_s(self) -> float:
        """Seconds of one turn."""
        return self.budget_s / (self.rounds * TURNS)


def empty() -> Raw:
    """Nothing measured yet."""
    return {
        "rounds": [],
        "waited": [],
        "bare": [],
        "load_ms": [],
        "first_ms": [],
        "memory": None,
        "device_memory": None,
    }


def calm(raw: Raw) -> list[list[bool]]:
    """Which turns count: those that nothing disturbed, where there are as many as a round has, else all."""
    quiet = [[waited is None or waited <= CALM for waited in turns] for turns in raw["waited"]]
    enough = min(TURNS, sum(map(len, quiet)))
    return quiet if sum(map(sum, quiet)) >= enough else [[True] * len(turns) for turns in quiet]


def counted(raw: Raw) -> list[list[list[float]]]:
    """The samples of the turns that count, by round and turn."""
    return [
        [turn for turn, counts in zip(turns, told, strict=True) if counts]
        for turns, told in zip(raw["rounds"], calm(raw), strict=True)
    ]


def settled(raw: Raw) -> bool:
    """Whether the interval of its median is narrow."""
    found = summary(counted(raw))
    return bool(found["high"] - found["low"] <= 2 * NARROW * found["median"])


def complete(raw: Raw, plan: Plan) -> bool:
    """Whether a row needs no more rounds."""
    if "problem" in raw:
        return True
    rounds = len(raw["rounds"])
    return rounds >= plan.most_rounds or (rounds >= plan.rounds and settled(raw))


Group = Sequence[tuple[str, Spec]]
"""Rows that are measured side by side, each by its key."""


def measure(
    groups: Sequence[Group], raws: dict[str, Raw], plan: Plan, *, each_round: Callable[[], None] = lambda: None
) -> Iterator[Group]:
    """Fill the raws, giving each group after each of its rounds. What they hold already is not measured again."""
    for number in range(plan.most_rounds):
        left = [group for group in groups if _rounds(group, raws) <= number and not _complete(group, raws, plan)]
        if left:
            each_round()
        for group in left:
            _round(group, raws, plan)
            yield group


def remaining(groups: Sequence[Group], raws: dict[str, Raw], plan: Plan) -> int:
    """Rounds of a row that are still to come, if what has not settled by now settles next."""
    return sum(
        len(group) * max(1, plan.rounds - _rounds(group, raws)) for group in groups if not _complete(group, raws, plan)
    )


def _rounds(group: Group, raws: dict[str, Raw]) -> int:
    return min((len(raws[key]["rounds"]) for key, _ in group if "problem" not in raws[key]), default=0)


def _complete(group: Group, raws: dict[str, Raw], plan: Plan) -> bool:
    return all(complete(raws[key], plan) for key, _ in group)


def _round(group: Group, raws: dict[str, Raw], plan: Plan) -> None:
    with ExitStack() as stack:
        alive: dict[str, Child] = {}
        for key, spec in group:
            if "problem" in raws[key]:
                continue
            child = stack.enter_context(Child("zoo.bench.worker", spec.to_json()))
            if _met(raws[key], child.answer()):
                alive[key] = child
        taken: dict[str, list[tuple[list[float], float | None]]] = {key: [] for key in alive}
        slowest = max((raws[key]["first_ms"][-1] for key in alive), default=0.0) / 1000
        for number in range(_turns(slowest, plan)):
            for key in list(alive) if number % 2 == 0 else list(reversed(alive)):
                _take(raws[key], alive[key].ask({"turn": plan.turn_s}), taken[key])
        for key, child in alive.items():
            raw = raws[key]
            if "problem" in raw:
                continue
            raw["rounds"].append([samples for samples, _ in taken[key]])
            raw["waited"].append([waited for _, waited in taken[key]])
            if raw["provider"] != "CPUExecutionProvider":
                raw["device_memory"] = max(device_memory(child.process) or 0, raw["device_memory"] or 0) or None
                if "share" not in raw:
                    raw["share"] = child.ask({"share": True}).get("share")


def _met(raw: Raw, told: dict[str, Any]) -> bool:
    """What a worker says when it has loaded its model."""
    if "problem" in told:
        raw["problem"] = told["problem"]
        return False
    raw["load_ms"].append(told["load_ms"])
    raw["first_ms"].append(told["first_ms"])
    raw["provider"], raw["input"] = told["provider"], told["input"]
    return True


def _take(raw: Raw, told: dict[str, Any], turns: list[tuple[list[float], float | None]]) -> None:
    if "problem" in told:
        raw["problem"] = told["problem"]
    if "problem" in raw:
        return
    turns.append((told["samples"], told["waited"]))
    raw["bare"] += told["bare"] or []
    raw["memory"] = max(told["memory"] or 0, raw["memory"] or 0) or None


def _turns(slowest_s: float, plan: Plan) -> int:
    """Fewer turns of a model of which one run takes longer than a turn: each begins with a run that is not counted."""
    return max(1, min(TURNS, round(plan.turn_s * TURNS / (2 * slowest_s)))) if slowest_s else TURNS
