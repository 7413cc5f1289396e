"""Smaller files for the commands: which pictures calibrate and which measure, the run itself, and what it found."""

from __future__ import annotations

import argparse
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidInput, OutputNotWritable
from zoo.terminal import advance, print_table

if TYPE_CHECKING:
    from exporters.quantize.guard import Limits
    from exporters.quantize.road import Done, Trial
    from runtime.quantization import Precision


CALIBRATION, MAX_DROP = 100, 0.5


def add_arguments(parser: argparse.ArgumentParser, *, whose: str = "") -> None:
    """Options of every command that makes smaller files. whose: put before their help where there are others."""
    add = parser.add_argument
    form = parser.add_mutually_exclusive_group()
    if whose:
        form.add_argument("--int8", action="store_true", help="quantize it, as `zoo quantize` does, on --data")
    form.add_argument("--fp16", action="store_true", help="in float16, for GPUs, measured on --data")
    form.add_argument("--bf16", action="store_true", help="in bfloat16, for GPUs that have it, measured on --data")
    add("--data", type=Path, metavar="DIR", help=f"{whose}pictures like those it will see, with labels or without")
    add("--calibration", type=int, metavar="N", help=f"{whose}pictures to calibrate on (default: {CALIBRATION})")
    add("--random-calibration", action="store_true", help=f"{whose}calibrate on noise; marked in the file")
    add("--max-drop", type=float, metavar="POINTS", help=f"{whose}of top-1 to lose (default: {MAX_DROP})")
    add("--max-distance", type=float, metavar="SHARE", help=f"{whose}of outputs, how far they may be apart")
    add(
        "--target",
        metavar="NAME",
        help=f"{whose}auto, x86-vnni, x86, arm64, cuda or openvino (default: auto, this machine)",
    )
    add("--force", action="store_true", help=f"{whose}write the file even if it loses more, or is not faster")
    add("--report", type=Path, metavar="HTML", help=f"{whose}write a page with every layer's error and time")


OPTIONS = ("data", "calibration", "random_calibration", "max_drop", "max_distance", "target", "force", "report")
"""Of ``add_arguments``, those that say how."""


def precision(args: argparse.Namespace) -> Precision | None:
    """What the options ask for; None for nothing."""
    return "fp16" if args.fp16 else "bf16" if args.bf16 else "int8" if getattr(args, "int8", False) else None


def make(
    file: Path, output: Path, args: argparse.Namespace, precision: Precision, *, table: Path | None = None
) -> Done:
    """Write a smaller ``output`` of ``file``, by the options of ``add_arguments``. table: a CSV of labels.

    Raises what ``exporters.quantize.road.quantize`` does, and InvalidInput for pictures that do not suffice.
    """
    from exporters.cache import folder
    from exporters.quantize.guard import Limits
    from exporters.quantize.road import quantize

    if args.report and not args.report.absolute().parent.is_dir():
        raise OutputNotWritable(f"{args.report.parent}: no such folder: create it first")
    limits = Limits(MAX_DROP if args.max_drop is None else args.max_drop, args.max_distance)
    trial = _trial(file, args, precision, table, limits)
    with advance(verbose=args.verbose) as progress:
        done = quantize(
            file,
            output,
            trial,
            precision=precision,
            target=args.target or "auto",
            limits=limits,
            force=args.force,
            pixels=args.uint8_input,
            searches=folder("searches"),
            progress=progress,
        )
        if args.report:
            from exporters.quantize.layers import compare
            from runtime.engines import ENGINES
            from zoo.quantize_report import report

            layers = compare(
                done.way, file, done.path, done.pictures, device=ENGINES[done.engine].device, progress=progress
            )
            args.report.write_text(report(done, layers), encoding="utf-8")
    if done.opset != done.metadata.provenance.opset:
        _note(f"{output} is of opset {done.metadata.provenance.opset}, {file.name} of {done.opset}: for HardSwish")
    if done.left_out:
        _note(f"{output} has the scores alone: {', '.join(done.left_out)} of {file.name} left out")
    if done.measured.milliseconds is None:
        told = done.metadata.quantization
        _note(f"its time was not measured: {told and told.target} is not at hand")
    return done


def _trial(file: Path, args: argparse.Namespace, precision: Precision, table: Path | None, limits: Limits) -> Trial:
    """Which pictures calibrate, and which measure."""
    from exporters.quantize.guard import FEW
    from exporters.quantize.pictures import noise
    from exporters.quantize.road import FEWEST, Trial, usable
    from runtime.model import load
    from runtime.tasks.alike import ALIKE
    from zoo.datasets import classes_of, open_pictures

    random, few = args.random_calibration, CALIBRATION if args.calibration is None else args.calibration
    if random and precision != "int8":
        raise InvalidInput(f"--random-calibration is for int8: {precision} takes no calibration")
    if limits.max_distance is not None and not 0 < limits.max_distance < inf:
        raise InvalidInput(f"--max-distance must be a number above 0, not {limits.max_distance}")
    if few < 1:
        raise InvalidInput(f"--calibration must be at least 1, not {few}")
    data = None if random and args.data is None else require_data(args, precision)
    with load(file) as model:
        counted = usable(model, limits).task in ALIKE
        if not counted and args.max_drop is not None:
            raise InvalidInput("--max-drop counts answers that change, and nobody knows this file's: leave it out")
        pictures, answers = open_pictures(data, classes_of(model), table=table) if data else (None, None)
        made = noise(model.rule, 2 * few) if random else []
    if random:
        _note("calibrated on noise, as asked: real pictures may saturate the ranges; the file says so")
    if pictures is None or data is None:
        return Trial(made[:few], made[few:], calibrated_on="noise", measured_on="noise")
    # A table, and a file of pictures, have an order that somebody chose.
    ordered = table is not None or data.is_file() or (data / "labels.csv").is_file()
    calibrates = precision == "int8" and not random
    kept = split(len(pictures), few, ordered=ordered) if calibrates else []
    rest = sorted(set(range(len(pictures))) - set(kept))
    if not rest:
        raise InvalidInput(f"{data}: one picture: some are to calibrate on, and others to measure on")
    if calibrates and len(kept) < FEWEST:
        _note(f"calibrated on {len(kept)} pictures: below {FEWEST} the ranges of activations are a matter of luck")
    if counted and len(rest) < FEW:
        _note(f"measured on {len(rest)} pictures: one of them is {100 / len(rest):.1f} points")
    return Trial(
        made[:few] if random else [pictures[index] for index in kept],
        [pictures[index] for index in rest],
        [answers[index] for index in rest] if answers else None,
        calibrated_on="noise" if random else "pictures",
    )


def require_data(args: argparse.Namespace, precision: Precision) -> Path:
    """The pictures' place. Raises InvalidInput where none was given, or there is none."""
    if args.data is None:
        why = "take the ranges of activations from" if precision == "int8" else "be measured on"
        raise InvalidInput(f"{precision} needs pictures to {why}: give --data DIR")
    data: Path = args.data
    if not data.exists():  # said before a network is built for nothing
        raise InvalidInput(f"{data}: no such file or folder")
    return data


def split(count: int, calibration: int, *, ordered: bool) -> list[int]:
    """Which of so many pictures to calibrate on: as many as asked for, half of them where there are too few.

    ordered: the order is the user's: the first. Otherwise, files by class or by name, spread evenly.
    """
    wanted = min(calibration, max(count // 2, 1) if count < 2 * calibration else calibration)
    return list(range(wanted)) if ordered else [index * count // wanted for index in range(wanted)]


def show(done: Done) -> None:
    """What was tried, and what the file was measured to be."""
    measured = done.measured
    columns = ("tried", f"error of the {measured.scores}", "time of one picture", "of float32")
    rows = [
        (
            f"{'> ' if way is done.way else ''}{way.name}",
            f"{way.error:.3f}",
            f"{way.times[1]:.3g} ms" if way.times else "not measured",
            f"{way.ratio:.2f}" if way.ratio else "",
        )
        for way in done.tried
    ]
    if len(rows) > 1:
        print_table(None, columns, rows, right=set(columns[1:]))
    for name, pair in (("top-1", measured.top1), ("top-5", measured.top5)):
        if pair:
            print(f"{name} {pair[0]:.2f} % -> {pair[1]:.2f} %")
    print(", ".join(part for part in measured.said() if part))
    if measured.milliseconds:
        whole, now = measured.milliseconds
        print(f"{now:.3g} ms against {whole:.3g} ms in float32: {measured.ratio:.2f} of the time")
    print(f"wrote {done.path} ({done.bytes / 1e6:.2f} MB)")
    if done.refused:
        print(f"zoo: note: forced, although {done.refused}", file=sys.stderr)


def _note(text: str) -> None:
    print(f"zoo: note: {text}", file=sys.stderr)
