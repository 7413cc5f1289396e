"""What edgezoo costs on top of onnxruntime: per call, and at import.

    uv run python benchmarks/overhead.py lenet5.onnx [--json benchmarks/results/overhead.json]

Per call: ``Model.run`` and ``onnxruntime.InferenceSession.run`` take the same array in the same
process, alternating call by call, so that drift of the machine falls on both; the figure is the
median of the paired differences, with its quartiles. Import: ``python -c "import zoo"`` against
``python -c pass``, fresh processes, alternating.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import runtime
from runtime.machine import load_onnxruntime, report, usable_cores


def paired(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Seconds of both, and of the difference first - second, as medians and quartiles."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds):
        # Who goes first alternates: the second call finds warmer caches.
        for which in (0, 1) if index % 2 else (1, 0):
            start = time.perf_counter()
            (first, second)[which]()
            times[which].append(time.perf_counter() - start)
    differences = [one - other for one, other in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(differences, n=4)
    return {
        "first": statistics.median(times[0]),
        "second": statistics.median(times[1]),
        "difference": middle,
        "difference_q1": low,
        "difference_q3": high,
    }


def per_call(path: Path, rounds: int) -> dict[str, float]:
    """Microseconds of Model.run above InferenceSession.run, same options, same array."""
    model, onnxruntime = runtime.load(path), load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    shape = (1, model.rule.channels, *model.rule.size)
    batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours, bare = (lambda: model.run(batch)), (lambda: session.run(None, {name: batch}))
    paired(ours, bare, 200)  # warm up
    return {key: round(value * 1e6, 2) for key, value in paired(ours, bare, rounds).items()}


def at_import(rounds: int) -> dict[str, float]:
    """Milliseconds of ``import zoo`` above the bare interpreter."""

    def start(code: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    paired(start("import zoo"), start("pass"), 4)  # bytecode written, files in the page cache
    return {key: round(value * 1e3, 2) for key, value in paired(start("import zoo"), start("pass"), rounds).items()}


def main() -> int:
    """Measure, print, and write the record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="an .onnx file; a small one shows the overhead best")
    parser.add_argument("--rounds", type=int, default=2000, help="pairs of calls")
    parser.add_argument("--json", type=Path, help="write the record here")
    args = parser.parse_args()
    machine = report()
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": machine.cpu, "cores": machine.cores_usable, "platform": machine.platform},
        "versions": {
            key: value for key, value in machine.versions.items() if key in ("python", "numpy", "onnxruntime")
        },
        "rounds": args.rounds,
        "run_us": per_call(args.file, args.rounds),
        "import_ms": at_import(max(4, args.rounds // 50)),
    }
    for key, unit in (("run_us", "us"), ("import_ms", "ms")):
        row: dict[str, float] = record[key]  # type: ignore[assignment]
        print(
            f"{key}: {row['first']} {unit} against {row['second']} {unit}, "
            f"difference {row['difference']} (quartiles {row['difference_q1']} to {row['difference_q3']})"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
