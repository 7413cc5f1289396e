"""From a JPEG file to a label: what it takes with edgezoo, and with what a user would write instead.

    uv run python benchmarks/file_to_label.py [--json benchmarks/results/file_to_label.json]
    uv run python benchmarks/file_to_label.py --agreement PHOTOS --model FILE

Every road has a process of its own with the same threads on the same cores, all are open at once and take short turns,
round after round. --agreement compares the labels of the fast and of the exact decoding, on photos that are enlarged
to the size of a camera's pictures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.label_roads import MODEL, ROADS, ROW
from benchmarks.peer_files import require
from benchmarks.peer_runners import TOLERANCE, bind
from exporters.source import sample_files
from runtime.machine import usable_cores
from runtime.rest import rest
from runtime.tuning.race import turn
from runtime.tuning.record import remember
from runtime.tuning.search import tune
from zoo.bench.child import Child, serve
from zoo.bench.machine import Watch, describe
from zoo.bench.record import write
from zoo.bench.statistics import summary
from zoo.datasets import IMAGE_SUFFIXES
from zoo.terminal import print_table, track

QUALITY, GRAIN = 90, 4.0
"""Of the JPEGs: a camera's, with the noise of its sensor in grey levels, without which they are half as long."""

CAMERA = {
    "12 MP": ((4000, 3000), GRAIN),
    "2 MP": ((1600, 1200), GRAIN),
    "12 MP, no grain": ((4000, 3000), 0.0),
    "2 MP, no grain": ((1600, 1200), 0.0),
}
"""What is compared: (width, height) and grain."""

ROUNDS = 8


def enlarged(photo: Image.Image, size: tuple[int, int], grain: float) -> bytes:
    """A photo as a camera of that resolution might have written it: stretched, with grain, as a JPEG."""
    big = np.asarray(photo.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    if grain:
        big += np.random.default_rng(0).normal(0, grain, big.shape[:2]).astype(np.float32)[..., None]
    stream = BytesIO()
    Image.fromarray(big.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def compare(folder: Path, threads: int, budget_s: float, roads: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each size of picture and each road."""
    tuned = any("tuned" in road for road in roads)
    for name in (MODEL, "int8.onnx", "openvino.onnx") if tuned else [MODEL]:
        if problem := require(name, ROW, folder, None):
            raise SystemExit(f"file_to_label.py: error: {problem}")
    with Image.open(sample_files("photos")[0]) as photo:
        for name, (size, grain) in CAMERA.items():
            (folder / f"{name}.jpg").write_bytes(enlarged(photo, size, grain))
    if tuned:
        pictures = sample_files("photos")
        record = tune(folder / MODEL, pictures=pictures, threads=threads, tolerance=TOLERANCE, budget_s=budget_s)
        remember(folder / MODEL, record)
    rows = []
    with ExitStack() as stack:
        children, problems = {}, {}
        for road in roads:
            arguments = ("benchmarks.file_to_label", "--serve", road, "--files", str(folder), "--threads", str(threads))
            child = stack.enter_context(Child(*arguments, environment={"OMP_NUM_THREADS": str(threads)}))
            told = child.answer()
            if "problem" in told:
                problems[road] = told["problem"]
            else:
                children[road] = child
        for name, (size, _) in CAMERA.items():
            file = folder / f"{name}.jpg"
            turns: dict[str, list[list[list[float]]]] = {road: [] for road in children}
            labels = {}
            for _ in track(range(ROUNDS), what=name, total=ROUNDS):
                for road, child in children.items():
                    told = child.ask({"file": str(file), "seconds": budget_s / ROUNDS})
                    turns[road].append([told["ms"]])
                    labels[road] = told["label"]
            for road, taken in turns.items():
                found = summary(taken)
                rows.append(
                    {"picture": name, "pixels": size, "bytes": file.stat().st_size, "road": road, "ms": found["median"]}
                    | {key: found[key] for key in ("low", "high", "samples")}
                    | {"label": labels[road]}
                )
        rows += [{"picture": None, "road": road, "skipped": problem} for road, problem in problems.items()]
    return rows


def serve_road(road: str, folder: Path, threads: int) -> int:
    """One road in this process."""
    ready: list[Any] = []

    def first() -> dict[str, Any]:
        bind(threads)
        ready.append(ROADS[road](folder, threads))
        return {"ready": True}

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        label = ready[0](asked["file"])
        taken = turn(lambda: ready[0](asked["file"]), asked["seconds"])
        rest()
        return {"ms": taken, "label": label}

    return serve(answer, first=first)


def agreement(photos: Path, model: Path, limit: int | None) -> dict[str, Any]:
    """How often the fast road gives the label of the exact one, for each size of picture.

    once: without looking again where it hangs by a hair; again: percent of the pictures that were looked at again.
    mean: difference of the inputs, in grey levels.
    """
    import zoo
    from runtime.tasks.undecided import undecided

    files = sorted(file for file in photos.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)[:limit]
    found: dict[str, Any] = {}
    with zoo.load(model) as fast:
        level = fast.rule.scale / float(np.mean(fast.rule.std))
        for name, (size, grain) in CAMERA.items():
            once, again, same, errors = 0, 0, 0, list[float]()
            for file in track(files, what=name, total=len(files)):
                with Image.open(file) as photo:
                    data = enlarged(photo, size if photo.width >= photo.height else size[::-1], grain)
                (quick, _), (exact, _) = fast.prepare_as("fast", data), fast.prepare_as("exact", data)
                first, wanted = fast.run(quick), fast.run(exact)
                once += int(first.argmax() == wanted.argmax())
                again += int(undecided(first, fast.task, logits=fast.logits)[0])
                same += int(fast.predict(data, top=1).index == wanted.argmax())
                errors.append(float(np.abs(quick - exact).mean()) / level)
            shares = {"agreement": same, "once": once, "again": again}
            found[name] = {"pictures": len(files), "mean": float(np.mean(errors))} | {
                key: 100 * count / len(files) for key, count in shares.items()
            }
    return found


def main() -> int:
    """Run, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--budget", type=float, default=4.0, metavar="S", help="of each road and size (default: 4)")
    parser.add_argument("--files", type=Path, metavar="DIR", help="keep the files, and use them again")
    parser.add_argument("--agreement", type=Path, metavar="PHOTOS", help="a folder: compare decodings instead")
    parser.add_argument("--model", type=Path, metavar="FILE", help="with --agreement: a trained mobilenet_v2")
    parser.add_argument("--limit", type=int, metavar="N", help="with --agreement: the first photos")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--road", action="append", choices=ROADS, help="these alone (default: all)")
    parser.add_argument("--serve", choices=ROADS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve_road(args.serve, args.files, args.threads)
    watch = Watch([], args.threads)
    record = json.loads(args.json.read_text(encoding="utf-8")) if args.json and args.json.is_file() else {}
    if args.agreement:
        record["agreement"] = agreement(args.agreement, args.model, args.limit)
        print(json.dumps(record["agreement"], indent=1))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.files or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            record["rows"] = rows = compare(folder, args.threads, args.budget, args.road or list(ROADS))
        shown = [row for row in rows if row.get("ms")]
        lines = [(r["picture"], r["road"], f"{r['ms']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}") for r in shown]
        print_table("from file to label", ("picture", "road", "ms", "95 % interval"), lines, right={"ms"})
        watch.probe()
        record |= {"machine": describe(watch), "noise": watch.reasons([]), "threads": args.threads}
    packages = ("onnxruntime-gpu", "torch", "torchvision", "openvino", "opencv-python-headless", "numpy", "Pillow")
    record["versions"] = {name: version(name) for name in packages if _installed(name)}
    record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if args.json:
        write(record, args.json)
    return 0


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
