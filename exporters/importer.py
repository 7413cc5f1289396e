"""An ONNX file from elsewhere, top to bottom: read, run, convert, verify, stamp, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from exporters.artifact import staged, write
from exporters.import_describe import describe, restamp
from exporters.import_graph import last_operator
from exporters.import_parity import check_written, run_original
from exporters.import_read import Foreign, default_opset, picture, printable, read, without_pixel_input
from exporters.import_rewrite import Plan, as_planned, rewrite
from exporters.import_task import Evidence, decide
from exporters.opset import OPSETS
from exporters.pixels import as_stated, pixel_rule
from runtime.errors import InvalidInput, ParityError
from runtime.metadata import Labels, Layout, Metadata, Preprocess
from runtime.model import Model

STEPS = ("read", "run", "convert", "verify", "write")


@dataclass(frozen=True, slots=True)
class Imported:
    """A file that was verified and written. changes: what differs from the file given, one line each."""

    path: Path
    metadata: Metadata
    bytes: int
    changes: tuple[str, ...]


def import_onnx(
    path: Path,
    output: Path,
    *,
    name: str | None = None,
    preprocess: Preprocess | Literal["none"] | None = None,
    labels: Labels | None = None,
    task: str | None = None,
    scores: str | None = None,
    output_name: str | None = None,
    opset: int | None = None,
    license: str | None = None,
    pixels: Layout | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Imported:
    """Check an ONNX file of any origin, write it to ``output`` with metadata, verified against itself.

    preprocess: "none" for an input that is no picture; None keeps what the file's own edgezoo metadata says, and
        is an error for an input that could be a picture where there is none.
    labels, task, scores: None for what the output shows, or the file's own metadata says.
    output_name: the output that holds the scores; the others stay behind it. None for the first.
    pixels: layout of a uint8 input that takes pictures as they are; None keeps what the file has of edgezoo's.
    opset: None raises files below the first of OPSETS where the converter can, and leaves others as they are.
    on_step: called with each of STEPS as it begins.

    Raises UserError kinds for a file or an option that will not do and ParityError where the result would answer
    otherwise than the file; in every case no file appears.
    """
    if opset is not None and opset not in OPSETS:
        raise InvalidInput(f"opset {opset} is not supported: choose {OPSETS.start} to {OPSETS.stop - 1}")
    with staged(output) as draft:
        on_step("read")
        given = read(path)
        _keep_apart(given, output)
        given, had = _behind_pixels(given, preprocess)
        pixels, rule = pixels or had, _rule(given, preprocess)
        mapped = given.stamped is not None and given.stamped.task == "score-map"
        stated = pixel_rule(rule, pixels, mapped=mapped) if pixels else rule
        order = _order(given, output_name)
        on_step("run")
        original = run_original(given, rule, order[0], stated if pixels else None)
        batch = original.batches[-1]
        seen = Evidence(
            where=str(path),
            answers=[answer[order[0]] for answer in original.answers[batch]],
            batch=batch,
            operator=last_operator(given.proto.graph, given.outputs[order[0]].name),
            is_picture=rule is not None,
            stamped=given.stamped,
        )
        meaning = decide(seen, task=task, scores=scores, labels=labels)
        plan = Plan(order=order, meaning=meaning, freeze=original.freeze, opset=opset)
        expected = {size: [as_planned(answer, plan) for answer in runs] for size, runs in original.answers.items()}
        while True:
            on_step("convert")
            proto, changes = rewrite(given, plan)
            if pixels != had:
                changes = (*changes, f"the input takes uint8 pixels, {pixels}, and normalises them")
            metadata = describe(given, proto, meaning, rule, name=name, license=license, changes=changes)
            metadata, proto = replace(metadata, preprocess=stated), as_stated(proto, rule, stated)
            restamp(given, proto, metadata)
            write(proto, draft)
            on_step("verify")
            try:
                parity = check_written(draft, original, expected)
                break
            except ParityError as error:
                raised = default_opset(proto)
                if opset is not None or raised == given.opset:
                    raise ParityError(f"{path}: {str(error).replace(str(draft), output.name)}") from error
                # The converter is at fault: the file as it was, and that is said.
                plan = replace(plan, keep=f"at opset {raised} it answers otherwise")
        on_step("write")
        metadata = replace(metadata, parity=parity)
        restamp(given, proto, metadata)
        write(proto, draft)
        with Model(draft) as model:  # the very bytes that will be renamed
            if model.metadata != metadata:
                raise ParityError(f"{path}: the written file does not read back as it was verified")
        check_written(draft, original, {size: runs[:1] for size, runs in expected.items()})
        size = sum(part.stat().st_size for part in draft.parent.iterdir())
    return Imported(output, metadata, size, (*given.notes, *original.notes, *changes, *meaning.notes))


def _keep_apart(given: Foreign, output: Path) -> None:
    """The file that was given, and the files its weights are in, are never written over."""
    theirs = {given.path.resolve(), *((given.path.parent / name).resolve() for name in given.data)}
    for mine in (output, output.with_name(output.name + ".data")):
        if mine.resolve() in theirs:
            raise InvalidInput(f"{output}: would replace {mine.name}, which is being imported: give another -o")


def _behind_pixels(given: Foreign, asked: object) -> tuple[Foreign, Layout | None]:
    """Of a file of edgezoo's that takes pixels the network behind them, and their layout; others as they are."""
    rule = given.stamped.preprocess if given.stamped else None
    if rule is None or rule.input == "float32":
        return given, None
    if asked is not None:
        raise InvalidInput(f"{given.path}: normalises pixels itself: leave --preprocess out, or give the float32 file")
    return without_pixel_input(given), rule.layout


def _rule(given: Foreign, asked: Preprocess | Literal["none"] | None) -> Preprocess | None:
    """The preprocessing in force; None where the input is no picture."""
    shape = given.input.shape
    if asked == "none":
        return None
    if asked is None:
        if given.stamped is not None:
            return given.stamped.preprocess
        if picture(shape) is None:
            return None
        raise InvalidInput(
            f"{given.path}: the input {list(shape)} looks like a picture: say how it was trained to see one, as "
            "--preprocess torch, tf, caffe, 0-255, 0-1 or half; or --preprocess none"
        )
    planes = (asked.channels, *asked.size) if asked.layout == "NCHW" else (*asked.size, asked.channels)
    if len(shape) != 4 or any(isinstance(a, int) and a != b for a, b in zip(shape[1:], planes, strict=True)):
        raise InvalidInput(
            f"{given.path}: the input is {list(shape)}, the preprocessing gives {['N', *planes]} ({asked.layout}): "
            "change size, color or layout in --preprocess, or say none"
        )
    return asked


def _order(given: Foreign, chosen: str | None) -> tuple[int, ...]:
    """Positions of the outputs as they will come: the chosen one, then the others."""
    names = [output.name for output in given.outputs]
    if chosen is not None and chosen not in names:
        shown = ", ".join(printable(name) for name in names[:8])
        raise InvalidInput(f"{given.path}: no output {chosen!r}: it has {shown}{', ...' if len(names) > 8 else ''}")
    first = names.index(chosen) if chosen is not None else 0
    return (first, *(index for index in range(len(names)) if index != first))
