"""``zoo predict FILE IMAGE|DIR...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidArtifact, InvalidInput, UserError
from zoo.opening import add_arguments as add_shared_arguments
from zoo.opening import add_decode_argument, open_model
from zoo.terminal import print_json, print_table, track

if TYPE_CHECKING:
    from runtime.image import ImageSource
    from runtime.model import Model
    from runtime.tasks.classification import Classification


@dataclass(frozen=True, slots=True)
class Answer:
    """What a picture gave. data: for JSON; columns, rows: the same as a table, the first column to the left."""

    data: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo predict``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures, and folders of pictures; - reads one from stdin"
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default: 5)")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE",
        help="write the answers to a .jsonl, .csv or .parquet file; what it already answers for is not run again",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, metavar="N", help="pictures per run (default: 1, where they are quick or on a GPU 8)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one more than cores)")
    add_shared_arguments(parser)
    add_decode_argument(parser, "fast")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Answer for each picture; one that cannot be read is reported, and the rest goes on."""
    from zoo.picture_files import pictures

    if args.out is not None:
        from zoo.results_file import check

        check(args.out)
    with open_model(args) as model:
        images = pictures(args.images)
        return _print(args, model, images) if args.out is None else _write(args, model, images)


def _print(args: argparse.Namespace, model: Model, images: list[str]) -> int:
    answers, failed = [], 0
    for image, answer in track(_answers(args, model, images), what="predicting", total=len(images)):
        if isinstance(answer, UserError):
            if len(images) == 1:
                raise answer
            print(f"zoo: error: {answer}", file=sys.stderr)
            failed = answer.exit_code
        else:
            answers.append((image, answer))
    if args.json:
        print_json([{"image": image, **answer.data} for image, answer in answers])
        return failed
    for image, answer in answers:
        title = image if model.trained else f"{image} (untrained weights)"
        print_table(title, answer.columns, answer.rows, right={"probability"})
    return failed


def _write(args: argparse.Namespace, model: Model, images: list[str]) -> int:
    from zoo.results_file import Asked, identity, opened

    if "-" in images:
        raise InvalidInput("--out keeps answers by the path of their picture, which - has not: give a file")
    if model.task in ASK and args.out.suffix.lower() != ".jsonl":
        raise InvalidInput(f"{args.out}: has columns of classes, {args.file} gives {model.task}: take a .jsonl file")
    if args.top < 1:
        raise InvalidInput(f"--top must be at least 1, not {args.top}")
    asked = Asked(identity(model.path, _options(args, model)), min(args.top, len(model.label_names or ())))
    failed = 0
    with opened(args.out, asked, images) as results:
        missing = [image for image in dict.fromkeys(images) if not results.has(image)]
        for image, answer in track(_answers(args, model, missing), what="predicting", total=len(missing)):
            if isinstance(answer, UserError):
                results.add(image, {"error": str(answer)})
                failed += 1
            else:
                results.add(image, answer.data)
    told = {
        "out": str(args.out),
        "pictures": len(missing) - failed,
        "failed": failed,
        "already_there": len(dict.fromkeys(images)) - len(missing),
    }
    if args.json:
        print_json(told)
    else:
        before = f", {told['already_there']} were there already" if told["already_there"] else ""
        print(f"{args.out}: {told['pictures']} pictures answered{before}")
    if failed:
        print(f"zoo: error: {failed} pictures could not be read: `error` in {args.out} says why", file=sys.stderr)
    return UserError.exit_code if failed else 0


def _options(args: argparse.Namespace, model: Model) -> str:
    """Whatever makes answers differ from what the file alone says; empty where nothing does."""
    given = [f"{model.rule} {model.label_names}"] if args.preprocess or args.labels else []
    given += [said for said in (model.precision, model.decode) if said not in ("fp32", "fast")]
    return " ".join(given)


def _answers(args: argparse.Namespace, model: Model, images: Sequence[str]) -> Iterator[tuple[str, Answer | UserError]]:
    """What becomes of each picture, in order."""
    sources: Iterable[ImageSource] = (sys.stdin.buffer.read() if image == "-" else image for image in images)
    if ask := ASK.get(model.task):
        for image, source in zip(images, sources, strict=True):
            try:
                yield image, ask(model, source)
            except UserError as error:
                yield image, error
        return
    many = _classified(args, model, sources, len(images))
    yield from zip(images, many, strict=True)


def _classified(
    args: argparse.Namespace, model: Model, sources: Iterable[ImageSource], count: int
) -> Iterator[Answer | UserError]:
    import numpy as np

    found = model.predict_many(sources, top=args.top, batch_size=args.batch, workers=args.workers, errors="return")
    for _ in range(count):
        with np.errstate(invalid="ignore"):  # _classes says it, once
            answer = next(found)
        try:
            yield answer if isinstance(answer, UserError) else _classes(model, answer)
        except InvalidArtifact as error:
            yield error


def _classes(model: Model, answer: Classification) -> Answer:
    import numpy as np

    if not np.isfinite([guess.probability for guess in answer.top]).all():
        raise InvalidArtifact(f"{model.path}: its scores are not finite: wrong weights, or the wrong preprocessing")
    rows = [(g.label, f"{g.probability:.1%}", "█" * round(g.probability * 30)) for g in answer.top]
    return Answer(answer.to_dict(), ("class", "probability", ""), rows)


def _features(model: Model, image: ImageSource) -> Answer:
    (row,) = model.features(image)
    shown = ", ".join(f"{value:.4g}" for value in row[:6])
    data = {"features": row.tolist(), "trained": model.trained}
    return Answer(data, ("dimensions", "features"), [(str(row.size), f"{shown}, ...")])


def _score_map(model: Model, image: ImageSource) -> Answer:
    found = model.score_map(image)
    label, probability, box = found.best()
    _, rows, columns = found.scores.shape
    cells = (label, f"{probability:.1%}", ", ".join(map(str, box)), f"{rows} x {columns}")
    return Answer(found.to_dict(), ("best class", "probability", "at top, left, height, width", "map"), [cells])


def _outputs(model: Model, image: ImageSource) -> Answer:
    """Of a network whose outputs nobody has named: their form and range. The values are for ``Model.run_all``."""
    import numpy as np

    outputs = model.run_all(np.repeat(model.prepare(image), model.batch_size or 1, axis=0))
    found, rows = [], []
    for name, array in outputs.items():
        low, high = (array.min().item(), array.max().item()) if array.size else (None, None)
        found.append({"name": name, "type": str(array.dtype), "shape": list(array.shape), "min": low, "max": high})
        rows.append((name, str(array.dtype), " x ".join(map(str, array.shape)), str(low), str(high)))
    return Answer({"outputs": found, "trained": model.trained}, ("output", "type", "shape", "min", "max"), rows)


# task -> what to ask of the model; of every other task, the classes
ASK: dict[str, Callable[[Model, ImageSource], Answer]] = {
    "features": _features,
    "score-map": _score_map,
    "other": _outputs,
}
