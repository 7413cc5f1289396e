"""Where the time of one inference goes: onnxruntime's own profile, operator by operator."""

from __future__ import annotations

import json
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.engines import open_session

_WARM_UP = 3
_RUNS = 20


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One operator of the graph that onnxruntime really runs, after its own fusions.

    name: of the node there. provider: that ran it. milliseconds: the median of one run.
    """

    name: str
    operator: str
    provider: str
    milliseconds: float


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
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = defaultdict(list)
    told: dict[str, tuple[str, str]] = {}
    for event in events:
        node, is_kernel, _ = event["name"].rpartition("_kernel_time")
        if event.get("cat") == "Node" and is_kernel:
            taken[node].append(event["dur"] / 1000)
            told[node] = event["args"]["op_name"], event["args"].get("provider", "")
    return [NodeTime(node, *told[node], float(np.median(times[_WARM_UP:]))) for node, times in taken.items()]
