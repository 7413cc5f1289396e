"""The road from a float32 artifact to a smaller one: calibrate, search, measure, and write or refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from exporters.artifact import staged, stamp, write
from exporters.import_describe import STAMPED
from exporters.import_read import default_opset
from exporters.pixels import as_stated, pixel_rule
from exporters.quantize.guard import Limits, Measured, measure
from exporters.quantize.halves import halved
from exporters.quantize.journal import Journal
from exporters.quantize.network import Network
from exporters.quantize.observe import Progress
from exporters.quantize.pictures import Pictures
from exporters.quantize.ready import frozen, frozen_batch, ready
from exporters.quantize.search import Search
from exporters.quantize.targets import TARGETS, at_hand, measured_by, this_machine
from exporters.quantize.way import STORED, Form, Way
from runtime.engines import ENGINES, open_session
from runtime.errors import InvalidArtifact, InvalidInput, ParityError, QuantizationRefused
from runtime.files import sha256
from runtime.image import ImageSource
from runtime.machine import report
from runtime.metadata import Layout, Metadata, Preprocess
from runtime.model import Model
from runtime.pixel_input import float_network
from runtime.quantization import Material, Precision, Quantization
from runtime.tasks.alike import ALIKE

FEWEST = 32
"""Calibration pictures below which ranges are a matter of luck."""

_OPSET = 13
"""The first whose DequantizeLinear has a scale for every channel."""

_MEASURED = 4  # ways, on the held-out pictures: the more, the more luck is in the figures


@dataclass(frozen=True, slots=True)
class Trial:
    """What to quantize on, and what to measure on.

    calibration: pictures that ranges are taken from; none for fp16 and bf16. held_out: others, to measure on;
    answers: their classes. calibrated_on, measured_on: what these are.
    """

    calibration: Sequence[ImageSource]
    held_out: Sequence[ImageSource]
    answers: Sequence[int] | None = None
    calibrated_on: Material = "pictures"
    measured_on: Material = "pictures"


@dataclass(frozen=True, slots=True)
class Done:
    """pictures: that were calibrated on, or else measured on. engine: that it was measured by.

    refused: why not to ship the file, where ``force`` wrote it all the same; None for a good one.
    left_out: outputs of the float32 file that this one has not. opset: of the float32 file.
    """

    path: Path
    bytes: int
    metadata: Metadata
    measured: Measured
    tried: list[Way]
    way: Way
    pictures: Pictures
    engine: str
    refused: str | None
    left_out: tuple[str, ...] = ()
    opset: int | None = None


def quantize(
    file: Path,
    output: Path,
    trial: Trial,
    *,
    precision: Precision = "int8",
    target: str = "auto",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    force: bool = False,
    plain: bool = False,
    pixels: Layout | None = None,
    searches: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Done:
    """Write ``output`` if it is faster than ``file`` and loses no more than ``limits`` allow.

    Up to four ways are measured on the held-out pictures, and the first that holds is taken: a little luck is in the
    figures. Where all of them lose too much, up to three more follow that have more layers in float. Where the target
    is not at hand, accuracy is measured on the CPU and time is not.

    target: a row of TARGETS, or "auto": this machine for int8, cuda for fp16 and bf16. force: write it whatever was
    measured. plain: int8 without a search for accuracy, in seconds: for times alone. pixels: layout of a uint8 input
    that takes pictures as they are; None leaves the input as it is. searches: a folder where an interrupted or refused
    search is kept, to go on from.

    Raises InvalidInput for a file or pictures that cannot be used, QuantizationRefused with the figures where the
    result does not hold, and what reading pictures and writing files raise.
    """
    import onnx

    chosen = target if target != "auto" else this_machine() if precision == "int8" else "cuda"
    if chosen not in TARGETS:
        raise InvalidInput(f"--target {target}: one of auto, {', '.join(TARGETS)}")
    with Model(file) as model:
        metadata, stated = usable(model, limits), model.rule
    digest, here = sha256(file), at_hand(TARGETS[chosen])
    engine = measured_by(TARGETS[chosen])
    proto, rule = float_network(onnx.load(file), stated, file)
    opset = default_opset(proto)
    if precision == "int8" and opset < _OPSET:
        raise InvalidInput(f"{file}: is of opset {opset}, int8 per channel needs {_OPSET}: export it at that or above")
    if pixels is not None:
        metadata = replace(metadata, preprocess=pixel_rule(rule, pixels))
    with staged(output) as draft:
        pictures = Pictures(trial.calibration, rule)
        batch = frozen_batch(proto)
        some = pictures if len(pictures) else Pictures(trial.held_out, rule)
        foreign = precision == "int8" and metadata.provenance.exporter.endswith(STAMPED)
        outputs = [item.name for item in proto.graph.output]
        alike = ALIKE.get(metadata.task)
        proto = ready(proto, some, file, foreign=foreign, outputs=1 if alike else None)
        journal = Journal(searches, _subject(digest, pictures, chosen))
        more: Iterator[Way] = iter(())
        if precision == "int8":
            search = Search(proto, pictures, TARGETS[chosen], journal, progress, alike=alike)
            tried = [search.plain()] if plain else search.ways()
            more = more if plain else search.rescue(list(tried))
        else:
            tried = [_in_half(proto, precision, engine)]

        def measured_alone(way: Way) -> Measured:
            _write(way, batch, rule, metadata, draft)
            return measure(file, draft, trial.held_out, trial.answers, progress, engine=engine, timed=here)

        way, measured = _first_that_holds(tried, more, measured_alone, limits)
        refused = measured.complaint(limits)
        if refused and not force:
            raise QuantizationRefused(f"{file}: not written: {refused}{_curve(tried)} (--force writes it)")
        record = _record(precision, way, measured, trial, pictures, chosen, digest)
        origin = replace(metadata.provenance, opset=default_opset(proto))
        told = replace(metadata, provenance=origin, quantization=record)
        _write(way, batch, rule, told, draft)
        with Model(draft) as model:
            if model.metadata != told:
                raise ParityError(f"{output}: does not read back as it was written")
        size = draft.stat().st_size
    journal.close()
    left_out = tuple(outputs[len(proto.graph.output) :])
    return Done(output, size, told, measured, tried, way, some, engine, refused, left_out, opset)


def _in_half(proto: Any, precision: Precision, engine: str) -> Way:
    """The only way to do it. Raises InvalidInput where onnxruntime lacks the kernels."""
    form = Form(Network(proto), {})
    way = Way(precision, halved(proto, precision), float_nodes=len(proto.graph.node), form=form)
    try:
        open_session(way.proto.SerializeToString(), engine=engine)
    except InvalidArtifact as error:
        said = str(error).partition(" (")[2].rpartition(")")[0]
        raise InvalidInput(
            f"--{precision}: onnxruntime has no such kernels for this network on device "
            f"{ENGINES[engine].device!r} ({said}): make it where they are, or use --fp16"
        ) from error
    return way


def _first_that_holds(
    tried: list[Way], more: Iterator[Way], measured: Callable[[Way], Measured], limits: Limits
) -> tuple[Way, Measured]:
    """The first way that holds, else the one that loses least. What is taken of ``more`` comes to ``tried``."""
    found: list[tuple[Way, Measured]] = []
    waiting = _worth_measuring(tried)
    while waiting:
        way = waiting.pop(0)
        found.append((way, measured(way)))
        if found[-1][1].complaint(limits) is None:
            return found[-1]
        if not waiting and all(figures.loss(limits) for _, figures in found):
            waiting = list(islice(more, 1))
            tried += waiting
    return min(found, key=lambda pair: (pair[1].drop, pair[1].distance))


def _worth_measuring(tried: list[Way]) -> list[Way]:
    """The best, then such as err less and less and are faster than float, the fastest first."""
    found = tried[:1]
    for way in sorted(tried[1:], key=lambda way: (way.ratio or 0, way.error)):
        if way.error < found[-1].error and (way.ratio is None or way.ratio < 1):
            found.append(way)
    return found[:_MEASURED]


def usable(model: Model, limits: Limits) -> Metadata:
    """What a file says of itself that a smaller one can be made of. Raises InvalidInput for others."""
    metadata = model.metadata
    if metadata is None:
        raise InvalidInput(f"{model.path}: carries no edgezoo metadata: stamp it with `zoo import` first")
    if model.baked:
        raise InvalidInput(f"{model.path}: has an explanation inside: quantize first, then `zoo stamp --explain`")
    if metadata.quantization is not None:
        raise InvalidInput(f"{model.path}: is {metadata.quantization.scheme} already: give the float32 file")
    if metadata.task not in ALIKE and limits.max_distance is None:
        raise InvalidInput(
            f"{model.path}: is of task {metadata.task}: nobody knows its answers, to count those that change: say with "
            "--max-distance how far its outputs may be apart, 0.1 for a tenth of what differs from picture to picture"
        )
    return metadata


def _subject(digest: str, pictures: Pictures, target: str) -> str:
    """Everything that a search's results depend on."""
    versions = [f"{name} {version(name)}" for name in ("edgezoo", "onnx", "numpy")]
    machine = report()
    return " ".join([digest, pictures.sha256(), target, machine.cpu, str(machine.onnxruntimes), *versions])


def _record(
    precision: Precision,
    way: Way,
    measured: Measured,
    trial: Trial,
    pictures: Pictures,
    target: str,
    digest: str,
) -> Quantization:
    machine, calibrated = report(), precision == "int8"
    style = TARGETS[target].style
    symmetric = ", symmetric" if style.symmetric else ""
    scheme = f"int8 QDQ, {style.weight_bits}-bit weights per channel{symmetric}"
    if way.name == STORED:
        scheme = "weights as int8 per channel, computed with in float32"
    return Quantization(
        scheme=scheme if calibrated else precision,
        target=target,
        search=way.name,
        integer_nodes=len(way.chosen),
        float_nodes=way.float_nodes,
        calibration=len(pictures) if calibrated else 0,
        calibration_sha256=pictures.sha256() if calibrated else None,
        images=measured.images,
        agreement=measured.agreement if measured.agreement is None else round(measured.agreement, 2),
        distance=round(measured.distance, 4),
        top1=_two(measured.top1),
        top5=_two(measured.top5),
        time_ratio=measured.ratio and round(measured.ratio, 3),
        float_ms=measured.milliseconds and round(measured.milliseconds[0], 3),
        machine=f"{machine.cpu}, {machine.cores_usable} cores",
        float_sha256=digest,
        precision=precision,
        calibrated_on=trial.calibrated_on if calibrated else None,
        measured_on=trial.measured_on,
    )


def _two(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    return pair and (round(pair[0], 2), round(pair[1], 2))


def _write(way: Way, batch: int | None, rule: Preprocess, metadata: Metadata, draft: Path) -> None:
    proto: Any = as_stated(frozen(way.proto, batch), rule, metadata.preprocess)
    stamp(proto, metadata)
    write(proto, draft)


def _curve(tried: list[Way]) -> str:
    if len(tried) < 2:
        return ""
    times = [f", {way.ratio:.2f} of the time" if way.ratio else "" for way in tried]
    points = [f"{way.name}: error {way.error:.3f}{time}" for way, time in zip(tried, times, strict=True)]
    return f"; tried: {'; '.join(points)}"
