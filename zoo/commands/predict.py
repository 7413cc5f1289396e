"""``zoo predict FILE IMAGE...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidArtifact, UserError
from zoo.opening import add_arguments as add_shared_arguments
from zoo.opening import open_model
from zoo.terminal import print_json, print_table, track

if TYPE_CHECKING:
    from runtime.image import ImageSource
    from runtime.model import Model


@dataclass(frozen=True, slots=True)
class Answer:
    """What a picture gave. data: for JSON; columns, rows: the same as a table, the first column to the left."""

    data: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo predict``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures; - reads one from stdin")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default: 5)")
    add_shared_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Answer for each picture; one that cannot be read is reported, and the rest goes on."""
    answers, failed = [], 0
    with open_model(args) as model:
        ask, trained = ASK.get(model.task, _classes), model.trained
        for image in track(args.images, what="predicting", total=len(args.images)):
            try:
                answer = ask(model, sys.stdin.buffer.read() if image == "-" else image, args.top)
            except UserError as error:
                if len(args.images) == 1:
                    raise
                print(f"zoo: error: {error}", file=sys.stderr)
                failed = error.exit_code
                continue
            answers.append((image, answer))
    if args.json:
        print_json([{"image": image, **answer.data} for image, answer in answers])
        return failed
    for image, answer in answers:
        title = image if trained else f"{image} (untrained weights)"
        print_table(title, answer.columns, answer.rows, right={"probability"})
    return failed


def _classes(model: Model, image: ImageSource, top: int) -> Answer:
    import numpy as np

    with np.errstate(invalid="ignore"):  # said below, once
        answer = model.predict(image, top=top)
    if not np.isfinite([guess.probability for guess in answer.top]).all():
        raise InvalidArtifact(f"{model.path}: its scores are not finite: wrong weights, or the wrong preprocessing")
    rows = [(g.label, f"{g.probability:.1%}", "█" * round(g.probability * 30)) for g in answer.top]
    return Answer(answer.to_dict(), ("class", "probability", ""), rows)


def _features(model: Model, image: ImageSource, top: int) -> Answer:
    (row,) = model.features(image)
    shown = ", ".join(f"{value:.4g}" for value in row[:6])
    data = {"features": row.tolist(), "trained": model.trained}
    return Answer(data, ("dimensions", "features"), [(str(row.size), f"{shown}, ...")])


def _score_map(model: Model, image: ImageSource, top: int) -> Answer:
    found = model.score_map(image)
    label, probability, box = found.best()
    _, rows, columns = found.scores.shape
    cells = (label, f"{probability:.1%}", ", ".join(map(str, box)), f"{rows} x {columns}")
    return Answer(found.to_dict(), ("best class", "probability", "at top, left, height, width", "map"), [cells])


def _outputs(model: Model, image: ImageSource, top: int) -> Answer:
    """Of a network whose outputs nobody has named: their form and range. The values are for ``Model.run_all``."""
    import numpy as np

    from runtime.image import preprocess

    outputs = model.run_all(np.repeat(preprocess(image, model.rule), model.batch_size or 1, axis=0))
    found, rows = [], []
    for name, array in outputs.items():
        low, high = (array.min().item(), array.max().item()) if array.size else (None, None)
        found.append({"name": name, "type": str(array.dtype), "shape": list(array.shape), "min": low, "max": high})
        rows.append((name, str(array.dtype), " x ".join(map(str, array.shape)), str(low), str(high)))
    return Answer({"outputs": found, "trained": model.trained}, ("output", "type", "shape", "min", "max"), rows)


# task -> what to ask of the model; of every other task, the classes
ASK: dict[str, Callable[[Model, ImageSource, int], Answer]] = {
    "features": _features,
    "score-map": _score_map,
    "other": _outputs,
}
