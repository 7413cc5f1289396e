"""``zoo quantize FILE --data DIR``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidInput
from zoo.terminal import advance, print_json, print_table

if TYPE_CHECKING:
    from exporters.quantize.road import Done


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo quantize``."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a float32 .onnx file that edgezoo wrote")
    add("--data", type=Path, metavar="DIR", help="pictures like those it will see, labelled as for `zoo eval` or not")
    add("--labels", type=Path, metavar="CSV", help="file and label of each picture in the folder")
    add("--calibration", type=int, default=100, metavar="N", help="pictures to calibrate on (default: 100)")
    add("--max-drop", type=float, default=0.5, metavar="POINTS", help="of top-1 that may be lost (default: 0.5)")
    add("--target", default="auto", help="auto, x86-vnni, x86 or arm64 (default: auto, this machine)")
    add("-o", "--output", type=Path, metavar="FILE", help="file to write (default: FILE_int8.onnx)")
    add("--force", action="store_true", help="write the file even if it loses more, or is not faster")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Quantize, measure, write or refuse, and say what was measured."""
    from exporters.quantize.guard import FEW
    from exporters.quantize.road import FEWEST, quantize
    from runtime.model import load
    from zoo.datasets import open_pictures

    if args.data is None:
        raise InvalidInput("int8 needs pictures to take the ranges of activations from: give --data DIR")
    with load(args.file) as model:
        pictures, answers = open_pictures(args.data, model.labels, table=args.labels)
    ordered = args.labels is not None or (args.data / "labels.csv").is_file()
    kept = split(len(pictures), args.calibration, ordered=ordered)
    rest = [index for index in range(len(pictures)) if index not in set(kept)]
    if not rest:
        raise InvalidInput(f"{args.data}: one picture: some are to calibrate on, and others to measure on")
    if len(kept) < FEWEST:
        _note(f"calibrated on {len(kept)} pictures: below {FEWEST} the ranges of activations are a matter of luck")
    if len(rest) < FEW:
        _note(f"measured on {len(rest)} pictures: one of them is {100 / len(rest):.1f} points")
    output = args.output or args.file.with_name(f"{args.file.stem}_int8.onnx")
    with advance(verbose=args.verbose) as progress:
        done = quantize(
            args.file,
            output,
            [pictures[index] for index in kept],
            [pictures[index] for index in rest],
            [answers[index] for index in rest] if answers else None,
            target=args.target,
            max_drop=args.max_drop,
            force=args.force,
            progress=progress,
        )
    if args.json:
        record = asdict(done.metadata)["quantization"]
        print_json({"path": str(done.path), "bytes": done.bytes, "quantization": record})
    else:
        _show(done)
    return 0


def split(count: int, calibration: int, *, ordered: bool) -> list[int]:
    """Which of so many pictures to calibrate on: as many as asked for, half of them where there are too few.

    ordered: the order is the user's: the first. Otherwise, files by class or by name, spread evenly.
    """
    if calibration < 1:
        raise InvalidInput(f"--calibration must be at least 1, not {calibration}")
    wanted = min(calibration, max(count // 2, 1) if count < 2 * calibration else calibration)
    return list(range(wanted)) if ordered else [index * count // wanted for index in range(wanted)]


def _show(done: Done) -> None:
    measured, columns = done.measured, ("tried", "error of the logits", "time of one picture", "of float32")
    rows = [
        (
            f"{'> ' if way is done.way else ''}{way.describe()}",
            f"{way.error:.3f}",
            f"{way.milliseconds:.2f} ms",
            f"{way.ratio:.2f}",
        )
        for way in done.tried
    ]
    print_table(None, columns, rows, right=set(columns[1:]))
    for name, pair in (("top-1", measured.top1), ("top-5", measured.top5)):
        if pair:
            print(f"{name} {pair[0]:.2f} % -> {pair[1]:.2f} %")
    same = f"{measured.agreement:.2f} % of {measured.images} pictures"
    print(f"same answer for {same}, logits {measured.distance:.3f} apart")
    print(f"{measured.int8_ms:.2f} ms against {measured.float_ms:.2f} ms in float32: {measured.ratio:.2f} of the time")
    print(f"wrote {done.path} ({done.bytes / 1e6:.2f} MB)")
    if done.refused:
        print(f"zoo: note: forced, although {done.refused}", file=sys.stderr)


def _note(text: str) -> None:
    print(f"zoo: note: {text}", file=sys.stderr)
