"""``zoo explain FILE --score DIR``: which method tells the truth about this network, measured on pictures."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidInput
from zoo.terminal import print_json, print_table, track

if TYPE_CHECKING:
    from runtime.explain.scoring import Case, Score
    from runtime.model import Model

LIMIT = 50
SLOW = ("score-cam", "rise")
"""Measured where they are named, and with ``--method all``."""
SHUFFLED = 10
"""Pictures that the shuffled network explains too: a method that asks no network is found out with the first."""
COLUMNS = ("file", "label", "xmin", "ymin", "xmax", "ymax")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo explain`` that measure methods instead of explaining pictures."""
    add = parser.add_argument
    add("--score", type=Path, metavar="DIR", help="measure how faithful the methods are, on the pictures there")
    add("--limit", type=int, metavar="N", help=f"with --score: pictures, spread over all (default: {LIMIT})")
    add(
        "--boxes", type=Path, metavar="CSV",
        help=f"with --score: where in the pictures a class is; columns {','.join(COLUMNS)}",
    )  # fmt: skip


def methods(names: Sequence[str] | None) -> list[str]:
    """Those named, each once; without names all but the slow ones. Raises UnknownName."""
    from runtime.explain.explainers import EXPLAINERS
    from zoo.explaining import ALL, chosen_methods

    if not names:
        return [name for name in EXPLAINERS if name not in SLOW]
    named = [name for name in names if name != ALL]
    found = chosen_methods(named) if named else []
    return list(dict.fromkeys([*found, *(EXPLAINERS if ALL in names else ())]))


def run_score(args: argparse.Namespace, model: Model) -> int:
    """Measure and print. Returns 2 where a picture could not be read, else 0."""
    from runtime.explain.scoring import BASELINES, Scoring, shuffled_twin

    names = methods(args.method)
    cases = spread(_cases(args.score, args.boxes, model), LIMIT if args.limit is None else args.limit)
    again = set(spread(cases, SHUFFLED))
    jobs = [(case, name) for case in cases for name in (*BASELINES, *names)]
    scoring = Scoring(model, names, layer=args.layer, tell=_tell)
    with shuffled_twin(model) as twin:
        for case, name in track(jobs, what="scoring", total=len(jobs)):
            scoring.add(case, name, twin if case in again else None)
    scores = scoring.scores()
    if args.json:
        rows = [asdict(score) for score in scores]
        data = {"file": str(args.file), "images": scoring.images, "rows": rows}
        print_json(data | {"left_out": scoring.left_out, "unread": scoring.unread, "trained": model.trained})
    else:
        _show(f"{args.file}: {scoring.images} pictures", scores)
        if not model.trained:
            print("untrained weights: these figures mean nothing")
    return 2 if scoring.unread else 0


def _tell(text: str) -> None:
    print(f"zoo: {text}", file=sys.stderr)


# ---- pictures and boxes


def _cases(folder: Path, table: Path | None, model: Model) -> list[Case]:
    """Without boxes the network's own answers are explained: what others call a picture does not matter then."""
    from runtime.explain.scoring import Case
    from zoo.datasets import open_pictures

    if not folder.exists():
        raise InvalidInput(f"{folder}: no such file or folder")
    if table is None:
        return [Case(image) for image in open_pictures(folder, model.labels)[0]]
    return read_boxes(table, folder, model)


def read_boxes(table: Path, folder: Path, model: Model) -> list[Case]:
    """A case for each picture and class of it. Raises InvalidInput, naming the line."""
    from runtime.explain.faithfulness import Box
    from runtime.explain.scoring import Case
    from zoo.labels import index_of

    wanted = f"the columns are {','.join(COLUMNS)}"
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput(f"{table}: not a readable CSV ({error})") from error
    found: dict[tuple[str, int], list[Box]] = {}
    for number, line in enumerate(lines, 2):
        where = f"{table}, line {number}"
        cells = [(line.get(name) or "").strip() for name in COLUMNS]
        if not all(cells):
            raise InvalidInput(f"{where}: no {COLUMNS[cells.index('')]}: {wanted}")
        try:
            target, box = index_of(cells[1], model.labels), Box(*map(float, cells[2:]))
        except ValueError as error:
            raise InvalidInput(f"{where}: {error}") from error
        if not (box.xmin <= box.xmax and box.ymin <= box.ymax):
            raise InvalidInput(f"{where}: the box ends before it begins")
        found.setdefault((cells[0], target), []).append(box)
    if not found:
        raise InvalidInput(f"{table}: holds no boxes: {wanted}")
    return [Case(folder / name, target, tuple(boxes)) for (name, target), boxes in found.items()]


def spread(cases: list[Case], count: int) -> list[Case]:
    """So many of them, evenly: folders are ordered by class. Raises InvalidInput for a count below 1."""
    if count < 1:
        raise InvalidInput(f"--limit {count}: give 1 or more")
    count = min(count, len(cases))
    return [cases[at * len(cases) // count] for at in range(count)]


# ---- what people read


def _show(title: str, scores: Sequence[Score]) -> None:
    columns = ["method", "insertion", "deletion", "difference", "95 % interval", "pointing", "shuffled", "ms"]
    rows = [
        [
            f"({score.method})" if score.baseline else score.method,
            *(f"{value:.3f}" for value in (score.insertion, score.deletion, score.difference)),
            "{:.3f} to {:.3f}".format(*score.interval),
            "" if score.pointing is None else f"{score.pointing:.0%}",
            "" if score.shuffled is None else f"{score.shuffled:.2f}",
            "" if score.milliseconds is None else f"{score.milliseconds:.4g}",
        ]
        for score in scores
    ]
    if all(score.pointing is None for score in scores):
        at = columns.index("pointing")
        for cells in (columns, *rows):
            del cells[at]
    print_table(title, columns, rows, right=set(columns[1:]))
    print("insertion: high is good; deletion: low is good; (in brackets): maps that ask no network, to be beaten")
    print("shuffled: rank correlation with the map of shuffled weights; near 0 where the map is the network's")
    for line in _remarks(scores):
        print(line)


def _remarks(scores: Sequence[Score]) -> list[str]:
    methods = [score for score in scores if not score.baseline]
    found = [
        f"{score.method}: hardly changes when the weights are shuffled ({score.shuffled:.2f}): "
        "it shows the picture rather than the network"
        for score in methods
        if score.unchanged
    ]
    for base in (score.method for score in scores if score.baseline):
        if lost := [score.method for score in methods if base not in score.beats]:
            found.append(f"not shown to be better than {base} on these pictures: {', '.join(lost)}")
    for score in methods:
        if score.without_gradient:
            found.append(f"{score.method}: no gradient in {score.without_gradient} pictures: maps that tell nothing")
    return found
