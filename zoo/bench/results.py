"""From what was measured of a row to the row of the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.bench.files import File, sha256
from zoo.bench.measure import Raw, calm, counted, settled
from zoo.bench.record import Row
from zoo.bench.rows import Subject
from zoo.bench.statistics import ratio, summary, thin
from zoo.published import lookup

FLOAT = "fp32"


@dataclass(frozen=True, slots=True)
class Line:
    """What a row of the record is of. accuracy: (top-1, top-5) in percent, measured on the user's pictures."""

    subject: Subject
    file: File
    precision: str
    device: str
    batch: int
    threads: int
    accuracy: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """Its name in a run."""
        parts = (self.subject.name, self.subject.source, self.precision, self.device, self.batch)
        return "/".join(str(part) for part in parts)


def row(line: Line, raw: Raw, peaks: Sequence[Mapping[str, Any]]) -> Row:
    """The row of the record, but for its ratio to float32."""
    problem = line.file.problem or raw.get("problem")
    if problem is None and not raw["rounds"]:
        problem = "not measured yet"
    found = _about(line) | _empty() | {"problem": problem}
    if problem is None:
        found |= _times(raw, found, peaks)
    return found


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, each of another precision with its time over that of float32, whose turns were beside its own."""
    whole = {_place(row): row for row in rows if row["precision"] == FLOAT and row["latency_ms"]}
    done = []
    for row in rows:
        other = whole.get(_place(row)) if row["precision"] != FLOAT and row["latency_ms"] else None
        done.append(row | {"ratio_to_fp32": other and ratio(other["turns_ms"], row["turns_ms"])})
    return done


def _place(row: Row) -> tuple[Any, ...]:
    return row["name"], row["source"], row["device"], row["batch"]


def _about(line: Line) -> Row:
    subject, file, variant = line.subject, line.file, line.subject.variant
    facts, published = (variant.facts, lookup(variant)) if variant else (None, None)
    told: Row = {
        "name": subject.name, "source": subject.source, "precision": line.precision, "device": line.device,
        "batch": line.batch, "threads": line.threads, "file": file.path.name, "sha256": None, "bytes": None,
        "size_mib": None, "input": None, "parameters": facts and facts.total, "trainable": facts and facts.trainable,
        "depth": facts and facts.depth, "macs": facts and facts.macs, "weights": file.weights,
        "calibrated_on": file.calibrated_on, "top1": None, "top5": None, "accuracy": None,
        "published": asdict(published) if published else None,
    }  # fmt: skip
    if file.problem is None:
        size = _size(file.path)
        told |= {"sha256": sha256(file.path), "bytes": size, "size_mib": round(size / 2**20, 3)}
        if facts is None:
            told |= _counted(file.path)
    if line.accuracy:
        told |= {"top1": round(line.accuracy[0], 3), "top5": round(line.accuracy[1], 3), "accuracy": "measured"}
    elif published and published.top1 is not None and line.precision == FLOAT:
        # Of another precision nothing was published: its accuracy is what quantization made of it.
        told |= {"top1": published.top1, "top5": published.top5, "accuracy": "published"}
    return told


def _size(path: Path) -> int:
    """Of the file and of the weights beside it, where they are."""
    return sum(
        file.stat().st_size
        for file in path.parent.glob(f"{path.name}*")
        if file.name in (path.name, f"{path.name}.data")
    )


def _counted(path: Path) -> Row:
    """Parameters, depth and multiplications of a file that is no row of the catalogue."""
    import onnx

    from zoo.layers import count

    table = count(onnx.load(path))
    weighted = sum(layer.parameters > 0 for layer in table.layers)
    return {"parameters": table.parameters, "depth": weighted, "macs": table.macs if table.complete else None}


def _empty() -> Row:
    return {
        "latency_ms": None, "samples_ms": [], "turns_ms": [], "waited_percent": None, "ratio_to_fp32": None,
        "images_per_second": None,
        "load_ms": None, "first_ms": None, "copies_ms": None, "peak_memory_mib": None, "device_memory_mib": None,
        "gflops": None, "share_of_peak": None, "engine": None, "provider": None, "provider_share": None,
    }  # fmt: skip


def _times(raw: Raw, about: Row, peaks: Sequence[Mapping[str, Any]]) -> Row:
    from runtime.machine import load_onnxruntime

    rounds = counted(raw)
    latency = summary(rounds)
    samples = [sample for turns in rounds for turn in turns for sample in turn]
    waits = [share for turns in raw["waited"] for share in turns if share is not None]
    seconds = latency["median"] / 1000
    gflops = 2 * about["macs"] * about["batch"] / seconds / 1e9 if about["macs"] else None
    most = next(
        (p["gflops"] for p in peaks if (p["device"], p["precision"]) == (about["device"], about["precision"])), 0
    )
    bare = float(np.median(raw["bare"])) if raw["bare"] else None
    return {
        "input": raw["input"],
        "latency_ms": {name: _digits(value) for name, value in latency.items()} | {"settled": settled(raw)},
        "samples_ms": [_digits(sample) for sample in thin(samples)],
        # A turn that does not count keeps its place: turns of one place were side by side.
        "turns_ms": [
            [_digits(float(np.median(turn))) if counts else None for turn, counts in zip(turns, told, strict=True)]
            for turns, told in zip(raw["rounds"], calm(raw), strict=True)
        ],
        "waited_percent": round(100 * float(np.mean(waits)), 2) if waits else None,
        "images_per_second": _digits(about["batch"] / seconds),
        "load_ms": _digits(float(np.median(raw["load_ms"]))),
        "first_ms": _digits(float(np.median(raw["first_ms"]))),
        "copies_ms": None if bare is None else _digits(max(0.0, latency["median"] - bare)),
        "peak_memory_mib": raw["memory"] and round(raw["memory"] / 2**20, 1),
        "device_memory_mib": raw["device_memory"] and round(raw["device_memory"] / 2**20, 1),
        "gflops": gflops and _digits(gflops),
        "share_of_peak": (gflops and most and _digits(gflops / most)) or None,
        "engine": f"onnxruntime {load_onnxruntime().__version__}",
        "provider": raw["provider"],
        # A session on the CPU has no other provider to give work to.
        "provider_share": 1.0 if raw["provider"] == "CPUExecutionProvider" else raw.get("share"),
    }


def _digits(value: float) -> float:
    """With five digits: more would be noise, and megabytes of it."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
