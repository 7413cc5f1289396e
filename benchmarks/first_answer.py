"""The first answer of a fresh process: import, load, one JPEG, its label. What does each road take?

    uv run python benchmarks/first_answer.py [--json benchmarks/results/first_answer.json]

Each road is a script of its own in a fresh interpreter, all in turns, round after round; the figure is the median of
the whole process's time on the clock.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.file_to_label import GRAIN, enlarged
from benchmarks.label_roads import MODEL, ROW
from benchmarks.peer_files import require
from exporters.source import sample_files
from runtime.machine import usable_cores
from runtime.tuning.record import remember
from runtime.tuning.search import tune
from zoo.bench.machine import Watch, describe
from zoo.bench.record import write
from zoo.terminal import print_table, track

PICTURE = (1600, 1200)

_BARE = """
import sys
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = Image.open(sys.argv[2]).convert("RGB")
scale = 256 / min(image.size)
image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
left, top = (image.width - 224) // 2, (image.height - 224) // 2
pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
batch = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
print(session.run(None, {session.get_inputs()[0].name: batch})[0].argmax())
"""
_EDGEZOO = """
import sys
import zoo
print(zoo.load(sys.argv[1]{}).predict(sys.argv[2], top=1).index)
"""
_TORCH = """
import sys
import torch
from PIL import Image
from torchvision import models, transforms
prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                              transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
model = models.mobilenet_v2().eval()
with torch.inference_mode():
    print(model(prepare(Image.open(sys.argv[2]).convert("RGB"))[None]).argmax().item())
"""
_KERAS = """
import sys
import keras, numpy as np
model = keras.applications.MobileNetV2(weights=None)
image = keras.utils.load_img(sys.argv[2], target_size=(224, 224))
batch = keras.applications.mobilenet_v2.preprocess_input(keras.utils.img_to_array(image)[None])
print(np.argmax(model.predict(batch, verbose=0)))
"""
ROADS = {
    "numpy + onnxruntime + Pillow": _BARE,
    "edgezoo": _EDGEZOO.format(""),
    "edgezoo, tuned": _EDGEZOO.format(', engine="auto"'),
    "torch + torchvision": _TORCH,
    "keras": _KERAS,
}


def main() -> int:
    """Run, print, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--road", action="append", choices=ROADS, help="these alone (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    roads, watch = args.road or list(ROADS), Watch([], usable_cores())
    times: dict[str, list[float]] = {road: [] for road in roads}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if problem := require(MODEL, ROW, folder, None):
            raise SystemExit(f"first_answer.py: error: {problem}")
        with Image.open(sample_files("photos")[0]) as photo:
            (folder / "photo.jpg").write_bytes(enlarged(photo, PICTURE, GRAIN))
        if any("tuned" in road for road in roads):
            remember(folder / MODEL, tune(folder / MODEL, tolerance=0.05, budget_s=8))
        for _ in track(range(args.rounds + 1), what="starting", total=args.rounds + 1):
            for road in roads:
                argv = [sys.executable, "-c", ROADS[road], str(folder / MODEL), str(folder / "photo.jpg")]
                start = time.perf_counter()
                subprocess.run(argv, check=True, capture_output=True)
                times[road].append(time.perf_counter() - start)
    rows = [_row(road, taken[1:]) for road, taken in times.items()]  # the first round fills the disk's cache
    bare = next((row["s"] for row in rows if row["road"] == next(iter(ROADS))), None)
    lines = [
        (
            row["road"],
            f"{row['s']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['s'] / bare:.2f}" if bare else "",
        )
        for row in rows
    ]
    print_table("first answer of a process", ("road", "s", "quartiles", "times the bare script"), lines, right={"s"})
    watch.probe()
    record: dict[str, Any] = {"rows": rows, "machine": describe(watch), "noise": watch.reasons([])}
    record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if args.json:
        write(record, args.json)
    return 0


def _row(road: str, taken: list[float]) -> dict[str, Any]:
    low, high = np.percentile(taken, [25, 75])
    return {"road": road, "s": statistics.median(taken), "low": float(low), "high": float(high), "samples": taken}


if __name__ == "__main__":
    sys.exit(main())
