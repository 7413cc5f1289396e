"""int8 for the commands: which pictures calibrate and which measure, the run itself, and what it found."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidInput
from zoo.terminal import advance, print_table

if TYPE_CHECKING:
    from exporters.quantize.road import Done


def add_arguments(parser: argparse.ArgumentParser, *, whose: str = "") -> None:
    """Options of every command that makes int8 files. whose: put before their help where there are others."""
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help=f"{whose}pictures like those it will see, with labels or without")
    add("--calibration", type=int, default=100, metavar="N", help=f"{whose}pictures to calibrate on (default: 100)")
    add("--max-drop", type=float, default=0.5, metavar="POINTS", help=f"{whose}of top-1 to lose (default: 0.5)")
    add("--target", default="auto", help=f"{whose}auto, x86-vnni, x86 or arm64 (default: auto, this machine)")
    add("--force", action="store_true", help=f"{whose}write the file even if it loses more, or is not faster")


def make(file: Path, output: Path, args: argparse.Namespace, *, table: Path | None = None) -> Done:
    """Write an int8 ``output`` of ``file``, by the options of ``add_arguments``. table: a CSV of labels.

    Raises what ``exporters.quantize.road.quantize`` does, and InvalidInput for pictures that do not suffice.
    """
    from exporters.quantize.guard import FEW
    from exporters.quantize.road import FEWEST, quantize
    from runtime.model import load
    from zoo.datasets import open_pictures

    with load(file) as model:
        pictures, answers = open_pictures(require_data(args), model.labels, table=table)
    # A table, and a file of pictures, have an order that somebody chose.
    ordered = table is not None or args.data.is_file() or (args.data / "labels.csv").is_file()
    kept = split(len(pictures), args.calibration, ordered=ordered)
    rest = sorted(set(range(len(pictures))) - set(kept))
    if not rest:
        raise InvalidInput(f"{args.data}: one picture: some are to calibrate on, and others to measure on")
    if len(kept) < FEWEST:
        _note(f"calibrated on {len(kept)} pictures: below {FEWEST} the ranges of activations are a matter of luck")
    if len(rest) < FEW:
        _note(f"measured on {len(rest)} pictures: one of them is {100 / len(rest):.1f} points")
    with advance(verbose=args.verbose) as progress:
        return quantize(
            file,
            output,
            [pictures[index] for index in kept],
            [pictures[index] for index in rest],
            [answers[index] for index in rest] if answers else None,
            target=args.target,
            max_drop=args.max_drop,
            force=args.force,
            progress=progress,
        )


def require_data(args: argparse.Namespace) -> Path:
    """The pictures' place. Raises InvalidInput where none was given, or there is none."""
    if args.data is None:
        raise InvalidInput("int8 needs pictures to take the ranges of activations from: give --data DIR")
    data: Path = args.data
    if not data.exists():  # said before a network is built for nothing
        raise InvalidInput(f"{data}: no such file or folder")
    return data


def split(count: int, calibration: int, *, ordered: bool) -> list[int]:
    """Which of so many pictures to calibrate on: as many as asked for, half of them where there are too few.

    ordered: the order is the user's: the first. Otherwise, files by class or by name, spread evenly.
    """
    if calibration < 1:
        raise InvalidInput(f"--calibration must be at least 1, not {calibration}")
    wanted = min(calibration, max(count // 2, 1) if count < 2 * calibration else calibration)
    return list(range(wanted)) if ordered else [index * count // wanted for index in range(wanted)]


def show(done: Done) -> None:
    """What was tried, and what the file was measured to be."""
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
