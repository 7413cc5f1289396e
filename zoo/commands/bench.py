"""``zoo bench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from exporters import EXPORTERS
from runtime.engines.table import DEVICES
from runtime.errors import InvalidInput
from zoo.terminal import print_json, print_table

if TYPE_CHECKING:
    from zoo.bench.record import Record

_NOTHING = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
QUICK_BUDGET, QUICK_ROUNDS = 1.8, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo bench``."""
    add = parser.add_argument
    add(
        "names", nargs="*", metavar="NAME|FILE",
        help="networks of the zoo, torchvision:NAME, timm:NAME, keras:NAME, or .onnx files "
        "(default: LeNet-5 to EfficientNet B7)",
    )  # fmt: skip
    add("--precision", nargs="+", choices=["fp32", "int8", "fp16"], default=["fp32"], help="(default: fp32)")
    add("--device", nargs="+", choices=DEVICES, default=["cpu"], help="(default: cpu)")
    add("--batch", nargs="+", type=int, default=[1], metavar="N", help="pictures in a run (default: 1)")
    add("--threads", type=int, metavar="N", help="of a run (default: all usable cores)")
    add(
        "--source", nargs="+", choices=list(EXPORTERS), default=[], help="frameworks to build from (default: the first)"
    )
    add(
        "--weights", choices=["auto", "imagenet", "none"], default="auto",
        help="auto: bundled, else published ones that are in the framework's cache, else none (default: auto)",
    )  # fmt: skip
    add("--data", type=Path, metavar="DIR", help="labelled pictures to measure accuracy on, and to quantize with")
    add("--labels", type=Path, metavar="CSV", help="file and label of each picture in the folder")
    add("--quick", action="store_true", help="the eight smallest networks, and less time for each")
    add("--budget", type=float, metavar="S", help="seconds of samples of each row (default: 6)")
    add("--rounds", type=int, metavar="N", help="that the samples are taken in (default: 4)")
    add("--fresh", action="store_true", help="do not go on with an interrupted run")
    add("--read", type=Path, metavar="FILE", help="show a record that was written before; measure nothing")
    add("-o", "--output", type=Path, metavar="FILE", help="where to write the record, as JSON")
    add("--csv", type=Path, metavar="FILE", help="write a line for each row")
    add("--markdown", type=Path, metavar="FILE", help="write the table")
    add("--html", type=Path, metavar="FILE", help="write a page with sortable table and charts")
    add("--png", type=Path, metavar="FOLDER", help="write the charts")
    add("--against", choices=["keras", "torchvision"], help="show what was published beside it")
    add(
        "--compare", nargs="+", type=Path, metavar="OLD [NEW]", help="what got slower or bigger; exit code 1 if any did"
    )
    add("--margin", type=float, default=5.0, metavar="PERCENT", help="with --compare: allowed (default: 5)")
    add("--json", action="store_true", help="print the record as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure or read a record, show it, and compare it."""
    from zoo.bench.record import read

    old = _old(args)
    record = read(args.read) if args.read else _measure(args)
    beside = _beside(args, record)
    _write(args, record, beside)
    comparison = None
    if old is not None:
        from zoo.bench.compare import compare

        # A run that was asked for some rows owes the record no others.
        comparison = compare(old, record, margin=args.margin / 100, subset=not args.read)
    if args.json:
        extra = {"comparison": asdict(comparison)} if comparison else {}
        print_json(record | ({"against": beside} if beside else {}) | extra)
    else:
        _show(args, record, beside, comparison)
    return comparison.exit_code if comparison else 0


def _old(args: argparse.Namespace) -> Record | None:
    """The record to compare with; of two given, the newer is read in place of a run."""
    if not args.compare:
        return None
    from zoo.bench.record import read

    if len(args.compare) > 2 or (len(args.compare) == 2 and args.read):
        raise InvalidInput("--compare takes one record, for a run to compare with it, or two")
    if len(args.compare) == 2:
        args.read = args.compare[1]
    return read(args.compare[0])


def _measure(args: argparse.Namespace) -> Record:
    from exporters.cache import folder
    from zoo.bench.live import live
    from zoo.bench.run import Options, bench

    _check_outputs(args)
    budget, rounds = (QUICK_BUDGET, QUICK_ROUNDS) if args.quick else (6.0, 4)
    options = Options(
        names=args.names,
        precisions=list(dict.fromkeys(args.precision)),
        devices=list(dict.fromkeys(args.device)),
        batches=list(dict.fromkeys(args.batch)),
        threads=args.threads,
        sources=args.source,
        quick=args.quick,
        weights=args.weights,
        data=args.data,
        table=args.labels,
        budget_s=budget if args.budget is None else args.budget,
        rounds=rounds if args.rounds is None else args.rounds,
        fresh=args.fresh,
    )
    with live() as shown:
        return bench(options, cache=folder("bench"), progress=shown.progress, show=shown.show, note=shown.note)


def _check_outputs(args: argparse.Namespace) -> None:
    """Before half an hour of measuring, not after."""
    for name in ("output", "csv", "markdown", "html", "png"):
        file: Path | None = getattr(args, name)
        if file and not file.absolute().parent.is_dir():
            raise InvalidInput(f"{file.parent}: no such folder: create it first")
    if args.png:
        from zoo.bench.png import rasterise

        rasterise(_NOTHING)


def _write(args: argparse.Namespace, record: Record, beside: dict[str, Any] | None) -> None:
    from zoo.bench.record import write, write_text

    if args.output:
        write(record, args.output)
    if args.csv:
        from zoo.bench.table import csv

        write_text(csv(record), args.csv)
    if args.markdown:
        from zoo.bench.table import markdown

        write_text(markdown(record), args.markdown)
    if args.html:
        from zoo.bench.against import fragment
        from zoo.bench.page import page

        write_text(page(record, fragment(beside) if beside else ""), args.html)
    if args.png:
        from zoo.bench.png import pngs

        args.png.mkdir(exist_ok=True)
        pngs(record, args.png)


def _beside(args: argparse.Namespace, record: Record) -> dict[str, Any] | None:
    if not args.against:
        return None
    from zoo.bench.against import against

    return against(record, args.against)


def _show(args: argparse.Namespace, record: Record, beside: dict[str, Any] | None, comparison: Any) -> None:
    from zoo.bench import against as published
    from zoo.bench.conditions import summary
    from zoo.bench.table import notes, terminal, warnings

    if not (comparison and args.read):
        for warning in warnings(record):
            print(warning)
        heads, rows, right = terminal(record, width=get_terminal_size().columns if sys.stdout.isatty() else None)
        print_table(summary(record), heads, rows, right=right)
        for note in notes(record):
            print(note)
    if beside:
        print_table(None, *_telling(published.COLUMNS, published.cells(beside)), right=set(published.COLUMNS[3:]))
        if differing := published.difference_cells(beside):
            print_table(None, published.DIFFERENCES, differing, right=set())
        for line in published.told(beside):
            print(line)
    if comparison:
        from zoo.bench import compare as comparing

        for line in comparing.told(comparison):
            print(line)
        if changes := comparing.cells(comparison):
            print_table(None, comparing.COLUMNS, changes, right={"batch", "threads", "old", "new", "change"})


def _telling(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns that hold the same in every row, or nothing: a terminal is narrow."""
    kept = [index for index in range(len(columns)) if index == 0 or len({row[index] for row in rows}) > 1]
    return [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]
