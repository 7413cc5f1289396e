"""The road from a float32 artifact to an int8 one: calibrate, search, measure, and write or refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporters.artifact import staged, stamp, write
from exporters.quantize.guard import Measured, measure
from exporters.quantize.observe import Progress
from exporters.quantize.pictures import Pictures
from exporters.quantize.search import Way, ways
from exporters.quantize.targets import TARGETS, this_machine
from runtime.errors import InvalidInput, ParityError, QuantizationRefused
from runtime.image import ImageSource
from runtime.machine import report
from runtime.metadata import Metadata, Quantization
from runtime.model import Model

FEWEST = 32
"""Calibration pictures below which ranges are a matter of luck."""

_TASKS = ("classification", "binary")


@dataclass(frozen=True, slots=True)
class Done:
    """refused: why not to ship the file, where ``force`` wrote it all the same; None for a good one."""

    path: Path
    bytes: int
    metadata: Metadata
    measured: Measured
    tried: list[Way]
    way: Way
    refused: str | None


def quantize(
    file: Path,
    output: Path,
    calibration: Sequence[ImageSource],
    held_out: Sequence[ImageSource],
    answers: Sequence[int] | None,
    *,
    target: str = "auto",
    max_drop: float = 0.5,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Done:
    """Write ``output`` if it is faster than ``file`` and loses no more than ``max_drop`` points of top-1.

    calibration: pictures that ranges are taken from. held_out: others, to measure on; answers: their classes. Up to
        three ways are measured on them, and the first that holds is taken: a little luck is in the figures.
    target: a row of TARGETS, or "auto" for this machine. force: write it whatever was measured.

    Raises InvalidInput for a file or pictures that cannot be used, QuantizationRefused with the figures where the
    result does not hold, and what reading pictures and writing files raise.
    """
    import onnx

    chosen = this_machine() if target == "auto" else target
    if chosen not in TARGETS:
        raise InvalidInput(f"--target {target}: one of auto, {', '.join(TARGETS)}")
    with Model(file) as model:
        metadata, rule = _usable(model), model.rule
    proto = onnx.load(file)
    with staged(output) as draft:
        pictures = Pictures(calibration, rule)
        tried = ways(proto, pictures, TARGETS[chosen], progress)
        best: tuple[Way, Measured] | None = None
        for way in _worth_measuring(tried):
            _write(way, metadata, draft)
            measured = measure(file, draft, held_out, answers, progress)
            if best is None or measured.drop < best[1].drop:
                best = way, measured
            if measured.complaint(max_drop) is None:
                best = way, measured
                break
        assert best is not None
        way, measured = best
        refused = measured.complaint(max_drop)
        if refused and not force:
            raise QuantizationRefused(f"{file}: not written: {refused}{_curve(tried)} (--force writes it)")
        told = _recorded(metadata, file, way, measured, pictures, chosen)
        _write(way, told, draft)
        with Model(draft) as model:
            if model.metadata != told:
                raise ParityError(f"{output}: does not read back as it was written")
        size = draft.stat().st_size
    return Done(output, size, told, measured, tried, way, refused)


def _worth_measuring(tried: list[Way]) -> list[Way]:
    """The best, then the most accurate ones that are faster than float."""
    accurate = sorted((way for way in tried[1:] if way.ratio < 1), key=lambda way: way.error)
    return [tried[0], *accurate[:2]]


def _usable(model: Model) -> Metadata:
    metadata = model.metadata
    if metadata is None:
        raise InvalidInput(f"{model.path}: carries no edgezoo metadata: stamp it with `zoo import` first")
    if metadata.quantization is not None:
        raise InvalidInput(f"{model.path}: is {metadata.quantization.scheme} already: give the float32 file")
    if metadata.task not in _TASKS:
        raise InvalidInput(f"{model.path}: is of task {metadata.task}: int8 files are made of {', '.join(_TASKS)}")
    return metadata


def _recorded(
    metadata: Metadata, file: Path, way: Way, measured: Measured, pictures: Pictures, target: str
) -> Metadata:
    machine = report()
    record = Quantization(
        scheme=f"int8 QDQ, {TARGETS[target].weight_bits}-bit weights per channel",
        target=target,
        search=way.describe(),
        integer_nodes=way.integer_nodes,
        float_nodes=way.float_nodes,
        calibration=len(pictures),
        calibration_sha256=pictures.sha256(),
        images=measured.images,
        agreement=round(measured.agreement, 2),
        distance=round(measured.distance, 4),
        top1=_two(measured.top1),
        top5=_two(measured.top5),
        time_ratio=round(measured.ratio, 3),
        float_ms=round(measured.float_ms, 3),
        machine=f"{machine.cpu}, {machine.cores_usable} cores",
        float_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    return replace(metadata, quantization=record)


def _two(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    return pair and (round(pair[0], 2), round(pair[1], 2))


def _write(way: Way, metadata: Metadata, draft: Path) -> None:
    proto: Any = way.proto
    stamp(proto, metadata)
    write(proto, draft)


def _curve(tried: list[Way]) -> str:
    points = "; ".join(f"{way.describe()}: error {way.error:.3f}, {way.ratio:.2f} of the time" for way in tried)
    return f"; tried: {points}"
