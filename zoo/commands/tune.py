"""``zoo tune FILE``."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidInput, OutputNotWritable
from zoo.opening import add_engine_arguments
from zoo.terminal import advance, print_json, print_table

if TYPE_CHECKING:
    from runtime.image import ImageSource
    from runtime.tuning.record import Record, Trial

LOADED = 0.5
"""Load average before the tuning, above which its times are not to be relied on."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo tune``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file that edgezoo wrote")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="pictures to compare answers on (default: a few that come along)"
    )
    parser.add_argument("--labels", type=Path, metavar="CSV", help="file and label of each picture in the folder")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="pictures to take of them (default: 200)")
    allowed = parser.add_mutually_exclusive_group()
    allowed.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="difference of the scores from float32's, over the largest score (default: 0.01)",
    )
    allowed.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="instead: points of top-1 that may be lost on --data; without labels, percent answered otherwise",
    )
    parser.add_argument("--budget", default="60s", metavar="TIME", help="for timing, like 60s or 2m (default: 60s)")
    add_engine_arguments(parser)
    parser.add_argument("--explain", action="store_true", help="measure nothing: show what is remembered, and why")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Tune, remember, and show what was found."""
    record = remembered(args.file) if args.explain else _tuned(args)
    if args.json:
        print_json(record.to_dict())
        return 0
    print_table(_title(record), ("setting", "ms", "turns", "error", "same answer", "top-1", "verdict"), rows(record),
                right={"ms", "error", "same answer", "top-1"})  # fmt: skip
    if record.asked["load"] > LOADED:
        print(
            f"noisy: load average {record.asked['load']:.1f} before it began: other programs were at work, tune again"
        )
    print(f'zoo.load("{args.file}", engine="auto") runs {record.chosen}')
    for target in untried(args.file, record):
        print(f"zoo: note: no int8 file for {target} was there to try: zoo quantize --target {target}", file=sys.stderr)
    return 0


def untried(file: Path, record: Record) -> list[str]:
    """Targets of `zoo quantize` whose engine ran int8 files here, but none that was made for it."""
    from exporters.quantize.targets import TARGETS
    from runtime.tuning.search import told_by

    ran = {trial.setting for trial in record.trials if trial.error is not None}
    made = [told.quantization for name in {one.file for one in ran} if (told := told_by(file.with_name(name)))]
    targets = {found.target for found in made if found and found.precision == "int8"}
    engines = {setting.engine for setting in ran} - {"onnxruntime"}
    return [name for name, row in TARGETS.items() if targets and row.engine in engines and name not in targets]


def remembered(file: Path) -> Record:
    """The record beside a file. Raises InvalidInput where there is none that holds."""
    from runtime.onnxfile import check_file
    from runtime.tuning.record import SUFFIX, beside, read

    check_file(file)
    record = read(file)
    if record is None:
        there = beside(file, SUFFIX).is_file()
        reason = "is of another file, machine or version, or damaged" if there else "is not there"
        raise InvalidInput(f"{beside(file, SUFFIX)}: {reason}: run `zoo tune {file}`")
    return record


def _tuned(args: argparse.Namespace) -> Record:
    from runtime.tuning.record import remember
    from runtime.tuning.search import tune

    if args.max_drop is not None and args.data is None:
        raise InvalidInput("--max-drop: is measured on pictures: add --data")
    pictures, truth = _pictures(args)
    with advance(verbose=args.verbose) as progress:
        record = tune(
            args.file,
            pictures=pictures,
            truth=truth,
            device=args.device,
            precision=args.precision,
            threads=args.threads,
            tolerance=args.tolerance,
            max_drop=args.max_drop,
            budget_s=seconds(args.budget),
            progress=progress,
        )
        progress("remembering", 0, 1)
        try:
            return remember(args.file, record)
        except OutputNotWritable as error:
            raise OutputNotWritable(f"{error}; the fastest is {record.chosen}") from error


def _pictures(args: argparse.Namespace) -> tuple[list[ImageSource], list[int] | None]:
    """Of the folder, spread over it, with their labels where there are any; or those that come along."""
    from runtime.model import Model

    if args.limit < 1:
        raise InvalidInput(f"--limit {args.limit}: give 1 or more")
    with Model(args.file, engine="onnxruntime") as model:
        if args.data is None:
            from exporters.source import sample_files

            return list(sample_files("digits" if model.rule.channels == 1 else "photos")), None
        from zoo.datasets import classes_of, open_pictures

        found, truth = open_pictures(args.data, classes_of(model), table=args.labels)
    step = max(1, -(-len(found) // args.limit))
    return list(found[::step]), None if truth is None else truth[::step]


def seconds(text: str) -> float:
    """ "90", "90s" or "1.5m" as seconds. Raises InvalidInput."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", text.strip())
    if match is None or match[2] not in _UNITS:
        raise InvalidInput(f"--budget {text}: give a time like 60s or 2m")
    return float(match[1]) * _UNITS[match[2]]


def _title(record: Record) -> str:
    asked = record.asked
    allowed = (
        f"scores within {asked['tolerance']:g} of {record.reference}"
        if asked["tolerance"] is not None
        else f"at most {asked['max_drop']:g} points lost against {record.reference}"
    )
    return f"{allowed}, on {asked['pictures']} pictures ({asked['material']}); {record.date[:10]}"


def rows(record: Record) -> list[tuple[str, ...]]:
    """A line for each setting that was tried, fastest first, and one for each engine that cannot be used here."""
    lines: list[tuple[str, ...]] = []
    absent: set[tuple[str, str]] = set()
    for trial in record.trials:
        setting, reason = trial.setting, (trial.setting.engine, trial.verdict)
        if trial.error is None:
            if reason not in absent:
                absent.add(reason)
                lines.append((setting.engine, "", "", "", "", "", trial.verdict))
            continue
        lines.append(
            (
                str(setting),
                _shown(trial.ms, ".2f"),
                f"{trial.low:.2f} to {trial.high:.2f}" if trial.low is not None else "",
                _shown(trial.error, ".1e"),
                _shown(trial.agreement, ".1f", " %"),
                _shown(trial.top1, ".2f", " %"),
                trial.verdict or _behind(trial, record),
            )
        )
    return lines


def _behind(trial: Trial, record: Record) -> str:
    best = next(one.ms for one in record.trials if one.setting == record.chosen)
    return f"{trial.ms / best:.2f} times the time" if trial.ms and best else ""


def _shown(value: Any, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"
