"""A loaded model under many threads for long: no error, the same answers, and memory that does not grow.

    uv run python benchmarks/soak.py lenet5.onnx [--json benchmarks/results/soak.json]

Eight threads ask one model for the sample pictures, from file to answer. Every answer is compared with the one that
the same picture got at first. Memory is what the process has in use (resident), once after the first 1,000 pictures
and once at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import runtime
from runtime.machine import report
from runtime.memory import give_back
from zoo.datasets import IMAGE_SUFFIXES

GROWTH = 5.0  # percent
WARM = 1000  # pictures before memory is looked at
SAMPLES = Path(__file__).parents[1] / "exporters" / "samples"


def pictures(model: runtime.Model, folder: Path | None) -> list[Path]:
    """The files to ask for: of the folder, or the sample digits or photos, whichever the model is for."""
    folder = folder or SAMPLES / ("digits" if model.rule.color == "L" else "photos")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def resident() -> int:
    """Bytes of memory that the process has in use, freed memory given back first."""
    give_back()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(model: runtime.Model, files: list[Path], count: int, threads: int) -> dict[str, Any]:
    """Ask ``count`` times from some threads; memory after WARM pictures and at the end, and what went wrong."""
    expected = {path: model.predict(path) for path in files}
    told: list[str] = []

    def work(numbers: Iterator[int], lock: threading.Lock) -> None:
        while not told:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            path = files[number % len(files)]
            try:
                if model.predict(path) != expected[path]:
                    told.append(f"{path.name}: another answer, after {number:,} pictures")
            except Exception as error:  # noqa: BLE001 - any error at all is what is looked for
                told.append(f"{path.name}: {type(error).__name__}: {error}, after {number:,} pictures")

    def some(begin: int, end: int) -> None:
        numbers, lock = iter(range(begin, end)), threading.Lock()
        crew = [threading.Thread(target=work, args=(numbers, lock)) for _ in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()

    start, warm, done, step = time.perf_counter(), 0, 0, max(WARM, count // 20)
    while done < count and not told:
        end = min(count, done + (WARM if done == 0 else step))
        some(done, end)
        done = end
        memory = resident()
        warm = warm or memory
        seconds = time.perf_counter() - start
        line = f"{done:,} of {count:,} pictures, {done / seconds:.0f} a second, {memory / 2**20:.1f} MiB"
        print(line, file=sys.stderr, flush=True)
    return {
        "pictures": done,
        "threads": threads,
        "seconds": round(time.perf_counter() - start, 1),
        "memory_mib": {"after_the_first": round(warm / 2**20, 2), "at_the_end": round(memory / 2**20, 2)},
        "growth_percent": round(100 * (memory / warm - 1), 2),
        "errors": told,
    }


def main() -> int:
    """Run, print, and write the record if asked to; 1 where something went wrong or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="an .onnx file of classes")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of pictures (default: the samples)")
    parser.add_argument("--count", type=int, default=100_000, help="pictures to ask for (default: 100,000)")
    parser.add_argument("--threads", type=int, default=8, help="threads that ask (default: 8)")
    parser.add_argument("--json", type=Path, help="write the record here")
    args = parser.parse_args()
    machine = report()
    with runtime.load(args.file) as model:
        found = soak(model, pictures(model, args.images), args.count, args.threads)
    record = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": machine.cpu, "cores": machine.cores_usable, "platform": machine.platform},
        "versions": {key: machine.versions[key] for key in ("python", "numpy", "Pillow", "onnxruntime")},
        "file": args.file.name,
        **found,
    }
    memory = record["memory_mib"]
    print(
        f"{record['pictures']:,} pictures from {args.threads} threads in {record['seconds']} s: "
        f"{memory['after_the_first']} MiB after the first {WARM:,}, {memory['at_the_end']} MiB at the end "
        f"({record['growth_percent']:+} %); {len(record['errors'])} errors"
    )
    for error in record["errors"]:
        print(error, file=sys.stderr)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if record["errors"] or record["growth_percent"] > GROWTH else 0


if __name__ == "__main__":
    raise SystemExit(main())
