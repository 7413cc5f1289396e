"""Pictures a second from file to answer: ``predict_many`` against a plain loop of ``predict``.

    uv run python benchmarks/throughput.py mobilenet_v2.onnx [--images photos/] [--json FILE]

Every way runs over the same pictures in every round, in turns, and begins when the threads of the one before sleep;
the figure is the median of the rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import runtime
from benchmarks.soak import pictures
from runtime.machine import report
from runtime.rest import rest


def ways(
    model: runtime.Model, files: list[Path], batches: list[int], workers: list[int]
) -> dict[str, Callable[[], Any]]:
    """What is compared, by name."""
    found: dict[str, Callable[[], Any]] = {
        "a loop of predict": lambda: [model.predict(file) for file in files],
        "predict_many": lambda: list(model.predict_many(files)),
    }
    for size in batches:
        for count in workers:
            found[f"predict_many, batch_size={size}, workers={count}"] = (
                lambda size=size, count=count: list(model.predict_many(files, batch_size=size, workers=count))  # type: ignore[misc]
            )
    return found


def measure(compared: dict[str, Callable[[], Any]], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Pictures a second of every way: median, lowest, highest."""
    taken: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(rounds):
        for name, run in compared.items():
            rest()
            start = time.perf_counter()
            run()
            taken[name].append(count / (time.perf_counter() - start))
    return {
        name: {"median": round(statistics.median(each), 1), "low": round(min(each), 1), "high": round(max(each), 1)}
        for name, each in taken.items()
    }


def main() -> int:
    """Measure, print, and write the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="an .onnx file of classes")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of pictures (default: the samples)")
    parser.add_argument("--limit", type=int, default=200, help="pictures of a round (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--batch", type=int, nargs="*", default=[], metavar="N", help="batch sizes to compare, too")
    parser.add_argument("--workers", type=int, nargs="*", default=[2], metavar="N", help="numbers of threads")
    parser.add_argument("--json", type=Path, help="write the record here")
    args = parser.parse_args()
    machine = report()
    with runtime.load(args.file) as model:
        files = pictures(model, args.images)
        files = (files * (args.limit // len(files) + 1))[: args.limit]
        compared = ways(model, files, args.batch, args.workers)
        measure(compared, len(files), 1)  # warm up: files in the page cache
        found = measure(compared, len(files), args.rounds)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": machine.cpu, "cores": machine.cores_usable, "platform": machine.platform},
        "versions": {key: machine.versions[key] for key in ("python", "numpy", "Pillow", "onnxruntime")},
        "file": args.file.name,
        "pictures": len(files),
        "rounds": args.rounds,
        "pictures_per_s": found,
    }
    for name, row in found.items():
        print(f"{row['median']:8.1f} pictures/s ({row['low']} to {row['high']})  {name}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
