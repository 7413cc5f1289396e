"""Where the time goes: every operator that ran, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from runtime.profile import Event, describe, node_of, node_times, profile, trace

PIXELS = np.zeros((1, 3, 8, 8), np.float32)


def test_every_operator_is_there_with_its_time(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = tiny()
    before = sorted(tmp_path.iterdir())
    times = node_times(file, PIXELS, runs=4)
    kinds = [time.operator for time in times]
    assert kinds.count("Conv") == 1
    assert any(kind in ("Gemm", "FusedGemm") for kind in kinds)
    assert all(time.milliseconds > 0 and time.provider == "CPUExecutionProvider" for time in times)
    assert len({time.name for time in times}) == len(times)
    assert kinds.index("Conv") < [kind in ("Gemm", "FusedGemm") for kind in kinds].index(True)
    assert sorted(tmp_path.iterdir()) == before


def test_shapes_are_those_of_the_graph(tiny: Callable[..., Path]) -> None:
    conv = next(time for time in node_times(tiny(), PIXELS, runs=2) if time.operator == "Conv")
    assert conv.inputs[0] == ("float", (1, 3, 8, 8))
    assert conv.outputs[0][0] == "float"
    assert conv.outputs[0][1][2:] == (8, 8)  # channels may be padded to a block
    assert describe(conv.inputs[0]) == "float 1x3x8x8"


@pytest.mark.parametrize("runs", [1, 12])
def test_a_profile_stands_beside_undisturbed_runs(tiny: Callable[..., Path], runs: int) -> None:
    taken = profile(tiny(), {"input": PIXELS}, runs=runs)
    assert taken.undisturbed_ms > 0
    whole = [event["dur"] / 1000 for event in taken.events if event["name"] == "model_run"]
    assert len(whole) >= runs
    assert min(whole) <= taken.profiled_ms
    assert 0 < sum(node.milliseconds for node in taken.nodes) <= max(whole)


def looped(turns: int) -> bytes:
    """A Loop that multiplies a matrix ``turns`` times."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weights"], ["next"], name="inner"),
            helper.make_node("Identity", ["go"], ["on"], name="switch"),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", 7, []),
            helper.make_tensor_value_info("go", 9, []),
            helper.make_tensor_value_info("state", 1, [96, 96]),
        ],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("next", 1, [96, 96])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "true", "x"], ["y"], name="loop", body=body)],
        "looped",
        [helper.make_tensor_value_info("x", 1, [96, 96])],
        [helper.make_tensor_value_info("y", 1, [96, 96])],
        [
            numpy_helper.from_array(np.array(turns, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "true"),
            numpy_helper.from_array(np.eye(96, dtype=np.float32), "weights"),
        ],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    return made


def test_the_time_of_a_loop_is_not_counted_twice() -> None:
    taken = profile(looped(60), {"x": np.ones((96, 96), np.float32)}, runs=1, threads=1)
    times = {node.name: node.milliseconds for node in taken.nodes}
    assert {"loop", "inner"} <= times.keys()
    inner = [event["dur"] / 1000 for event in taken.events if node_of(event) == "inner"]
    assert times["inner"] == pytest.approx(sum(inner[-60:]))  # all turns of the run that counts, the last
    assert sum(times.values()) <= taken.profiled_ms  # of that same run


def check_trace(text: str) -> list[Event]:
    """Hold a trace against the trace event format (Google, 2016); the events that last, in its order."""
    data: dict[str, Any] = json.loads(text)
    lasting = [event for event in data["traceEvents"] if event["ph"] == "X"]
    assert {event["ph"] for event in data["traceEvents"]} == {"X", "M"}
    for event in lasting:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert all(isinstance(event[key], int) and event[key] >= 0 for key in ("ts", "dur", "pid", "tid"))
    assert [event["ts"] for event in lasting] == sorted(event["ts"] for event in lasting)
    for thread in {event["tid"] for event in lasting}:
        ends: list[int] = []
        for event in (event for event in lasting if event["tid"] == thread):
            while ends and ends[-1] <= event["ts"]:
                ends.pop()
            end = event["ts"] + event["dur"]
            assert not ends or end <= ends[-1], "events of one thread must lie inside each other, or apart"
            ends.append(end)
    named = {event["tid"] for event in data["traceEvents"] if event["name"] == "thread_name"}
    assert named == {event["tid"] for event in lasting}
    return lasting


def test_a_trace_is_of_the_trace_event_format(tiny: Callable[..., Path]) -> None:
    taken = profile(tiny(), {"input": PIXELS}, runs=6, threads=2)
    conv = next(node for node in taken.nodes if node.operator == "Conv")
    lasting = check_trace(json.dumps(trace(taken.events, title="tiny", details={conv.name: {"macs": 7}})))
    runs = [event for event in lasting if event["name"] == "model_run"]
    nodes = [event for event in lasting if event["name"] == conv.name]
    assert len(runs) == len(nodes) >= 6
    assert nodes[0]["cat"] == nodes[0]["args"]["operator"] == "Conv"
    assert nodes[0]["args"]["inputs"].startswith("float 1x3x8x8")
    assert nodes[0]["args"]["macs"] == 7


def test_a_trace_is_cleaned() -> None:
    def event(name: str, start: int, length: int, thread: int = 5) -> Event:
        return {"name": name, "cat": "Session", "ph": "X", "ts": start, "dur": length, "pid": 9, "tid": thread}

    # Out of order, overlapping by a rounded microsecond, outlasting what holds it, on two threads, and damaged.
    events = [
        event("b", 14, 7), event("run", 0, 20), event("a", 10, 5), event("other", 3, 50, thread=8),
        {"ph": "X", "name": "half", "ts": 3}, {"ph": "B", "name": "begin", "ts": 4},
    ]  # fmt: skip
    lasting = check_trace(json.dumps(trace(events, title="made up")))
    assert [(each["name"], each["ts"], each["dur"], each["tid"]) for each in lasting] == [
        ("run", 0, 20, 1), ("other", 3, 50, 2), ("a", 10, 5, 1), ("b", 14, 1, 1),
    ]  # fmt: skip
