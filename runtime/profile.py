"""Where the time of one inference goes: onnxruntime's own profile, operator by operator."""

from __future__ import annotations

import json
import os
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines import open_session
from runtime.rest import rest

_WARM_UP = 3
_RUNS = 20
_BLOCK = 5  # runs of one session before the other's turn, the first of which is not counted

Event = dict[str, Any]
Tensor = tuple[str, tuple[int, ...]]
"""Type and shape: ("uint8", (1, 3, 224, 224))."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One operator of the graph that onnxruntime really runs, after its own fusions.

    name: of the node there. provider: that ran it. milliseconds: the median of one run, without the nodes of graphs
    inside it; of a node in a loop, all its turns. inputs, outputs: as they were in the first run, weights included.
    """

    name: str
    operator: str
    provider: str
    milliseconds: float
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile beside what it disturbs.

    nodes: in the order in which they run. undisturbed_ms, profiled_ms: the median of one whole run without and with
    the profile, taken in turns. events: what onnxruntime wrote, times in microseconds.
    """

    nodes: list[NodeTime]
    undisturbed_ms: float
    profiled_ms: float
    events: list[Event]


def node_times(
    model: str | os.PathLike[str] | bytes,
    pixels: npt.NDArray[np.float32],
    *,
    device: str = "cpu",
    threads: int | None = None,
    runs: int = _RUNS,
) -> list[NodeTime]:
    """The time of every operator on this input, in the order in which they run.

    Measuring costs each operator some microseconds: compare operators, not the sum with an undisturbed run.

    Raises what ``open_session`` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, device=device, threads=threads, profile=Path(folder, "run"))
        name = session.get_inputs()[0].name
        for _ in range(_WARM_UP + runs):
            session.run(None, {name: pixels})
        events = _events(session)
    return _nodes(events, range(_WARM_UP, _WARM_UP + runs))


def profile(
    model: str | os.PathLike[str] | bytes,
    feed: Mapping[str, npt.NDArray[Any]],
    *,
    device: str = "cpu",
    threads: int | None = None,
    runs: int = _RUNS,
) -> Profile:
    """The time of every operator on these inputs, by name, and what it costs to have measured it.

    Two sessions of the model are open at once, so that a drift of the machine falls on both.
    Raises what ``open_session`` does.
    """
    plain = open_session(model, device=device, threads=threads)
    whole: list[list[float]] = [[], []]
    kept: list[int] = []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        profiled = open_session(model, device=device, threads=threads, profile=Path(folder, "run"))
        for session in (plain, profiled):
            for _ in range(_WARM_UP):
                session.run(None, dict(feed))
        done += _WARM_UP
        while len(kept) < runs:
            block = min(_BLOCK, runs - len(kept))
            for session, times in zip((plain, profiled), whole, strict=True):
                rest()  # the other session's threads spin on
                session.run(None, dict(feed))  # the other session had the caches
                for _ in range(block):
                    start = perf_counter()
                    session.run(None, dict(feed))
                    times.append(1000 * (perf_counter() - start))
            kept += range(done + 1, done + 1 + block)
            done += 1 + block
        events = _events(profiled)
    undisturbed, disturbed = (float(np.median(times)) for times in whole)
    return Profile(_nodes(events, kept), undisturbed, disturbed, events)


def node_of(event: Event) -> str | None:
    """The name of the node whose kernel an event is the time of, None for any other event."""
    name, is_kernel, _ = str(event.get("name", "")).rpartition("_kernel_time")
    return name if event.get("cat") == "Node" and is_kernel else None


def trace(
    events: Sequence[Event], *, title: str, details: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """The events in the trace event format that ui.perfetto.dev and chrome://tracing open, a row for each thread.

    Sorted by time, and cut where rounding to microseconds lets neighbours overlap, which viewers refuse. title: of
    the process. details: what else is to be shown of the nodes, by name.
    """
    shown: list[Event] = []
    threads: dict[Any, int] = {}
    open_ones: dict[int, list[int]] = defaultdict(list)  # by thread: when what is going on ends
    whole = [event for event in events if event.get("ph") == "X" and {"ts", "dur", "name"} <= event.keys()]
    for event in sorted(whole, key=_outer_first):
        thread = threads.setdefault(event.get("tid"), len(threads) + 1)
        start, ends = max(0, int(event["ts"])), open_ones[thread]
        while ends and ends[-1] <= start:
            ends.pop()
        end = min([_end(event), *ends])
        ends.append(end)
        node, args = node_of(event), event.get("args") or {}
        told: dict[str, Any] = {"operator": args["op_name"], "provider": args.get("provider", "")} if node else {}
        for side in ("input", "output") if node else ():
            told[f"{side}s"] = ", ".join(map(describe, tensors(args.get(f"{side}_type_shape"))))
        told |= (details or {}).get(node or "", {})
        shown.append(
            {
                "name": node or event["name"], "cat": told.get("operator", event.get("cat", "")), "ph": "X",
                "ts": start, "dur": max(0, end - start), "pid": 1, "tid": thread, "args": told,
            }
        )  # fmt: skip
    names = [("process_name", 1, title), *(("thread_name", row, f"thread {row}") for row in threads.values())]
    head = [{"name": kind, "ph": "M", "pid": 1, "tid": row, "args": {"name": text}} for kind, row, text in names]
    return {"traceEvents": [*head, *shown], "displayTimeUnit": "ms"}


def describe(tensor: Tensor) -> str:
    """ "uint8 1x3x224x224"."""
    kind, shape = tensor
    return f"{kind} {'x'.join(map(str, shape))}".rstrip()


def tensors(described: Any) -> tuple[Tensor, ...]:
    """What a profile says of inputs or outputs, a list as [{"float": [1, 3, 8, 8]}]."""
    pairs = [pair for item in described or () for pair in item.items()]
    return tuple((str(kind), tuple(map(int, shape))) for kind, shape in pairs)


def _events(session: Any) -> list[Event]:
    """End the profile and read it."""
    events: list[Event] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return events


def _nodes(events: Sequence[Event], kept: Sequence[int]) -> list[NodeTime]:
    """Every node with the median over the runs that are kept, by their number."""
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    kernels = sorted((event for event in events if node_of(event) is not None), key=_outer_first)
    taken: dict[tuple[str, str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    told: dict[tuple[str, str, str], NodeTime] = {}
    for event, own in zip(kernels, _own(kernels), strict=True):
        args, name = event["args"], node_of(event) or ""
        # Names need not be unique in a foreign file; the number of a node is, in its graph.
        key = name, args["op_name"], str(args.get("node_index"))
        taken[key][bisect_right(starts, event["ts"]) - 1] += own / 1000
        if key not in told:
            shapes = (tensors(args.get(f"{side}_type_shape")) for side in ("input", "output"))
            told[key] = NodeTime(name, args["op_name"], args.get("provider", ""), 0.0, *shapes)
    return [
        NodeTime(
            node.name,
            node.operator,
            node.provider,
            float(np.median([taken[key].get(run, 0.0) for run in kept])),
            node.inputs,
            node.outputs,
        )
        for key, node in told.items()
    ]


def _outer_first(event: Event) -> tuple[int, int]:
    return event["ts"], -event["dur"]


def _own(kernels: Sequence[Event]) -> list[float]:
    """The microseconds of each event, without those of events inside it: the nodes of a loop's body."""
    own = [float(event["dur"]) for event in kernels]
    open_ones: list[int] = []
    for index, event in enumerate(kernels):
        while open_ones and _end(kernels[open_ones[-1]]) < _end(event):
            open_ones.pop()
        # Rounded to microseconds, neighbours may touch: inside is what ends no later, and starts earlier than the end.
        while open_ones and _end(kernels[open_ones[-1]]) <= event["ts"]:
            open_ones.pop()
        if open_ones:
            own[open_ones[-1]] = max(0.0, own[open_ones[-1]] - event["dur"])
        open_ones.append(index)
    return own


def _end(event: Event) -> int:
    return int(event["ts"]) + int(event["dur"])
