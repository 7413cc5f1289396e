"""One peer in a process of its own: it opens its file, answers for the photos, takes a turn whenever it is asked.

    python -m benchmarks.peer_worker NAME ROW FOLDER THREADS

It speaks as ``zoo.bench.child`` says: {"setting", "logits"} first; then {"seconds": S} is a turn, answered by
{"ms": [...]}. In between it sleeps on its standard input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_runners import OURS, PEERS, Batch, Infer, Opened, bind
from runtime.rest import rest
from runtime.tuning.race import turn
from zoo.bench.child import serve

_TRIED_S = 0.4  # for each of several ways


def fastest(opened: Opened, picture: Batch) -> tuple[str, Infer]:
    """Of several ways to run the same, the one with the shortest median."""
    if len(opened.ways) == 1:
        return next(iter(opened.ways.items()))
    times = {name: np.median(turn(lambda: infer(picture), _TRIED_S)) for name, infer in opened.ways.items()}  # noqa: B023 - called at once
    best = min(times, key=lambda name: float(times[name]))
    return best, opened.ways[best]


def main() -> int:
    """Serve the peer that the command line names."""
    name, row, folder, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    ready: list[Callable[[], Any]] = []

    def first() -> dict[str, Any]:
        peer = (OURS | PEERS)[name]
        bind(threads)
        opened = peer.open(folder, row, threads)
        pictures = np.load(folder / f"{peer.source}.npy")
        batches = [laid(picture[None], opened) for picture in pictures]
        way, infer = fastest(opened, batches[0])
        ready.append(lambda: infer(batches[0]))
        logits = [np.asarray(infer(batch), dtype=np.float32).ravel().tolist() for batch in batches]
        return {"setting": ", ".join(filter(None, (opened.setting, way))), "logits": logits}

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        taken = turn(ready[0], asked["seconds"])
        rest()  # the next turn is another process's
        return {"ms": taken}

    return serve(answer, first=first)


def laid(batch: Batch, opened: Opened) -> Batch:
    """A batch (1, C, H, W) as the peer takes it, one piece of memory."""
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1) if opened.layout == "NHWC" else batch)


if __name__ == "__main__":
    sys.exit(main())
