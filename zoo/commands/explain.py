"""``zoo explain FILE IMAGE...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.errors import InvalidInput, UnknownName, UserError
from runtime.files import write
from zoo import explain_files as files
from zoo import explain_score
from zoo.explaining import ALL, WORDS, Asked, check_options, chosen_methods, record, said
from zoo.opening import add_arguments as add_shared_arguments
from zoo.opening import open_model
from zoo.terminal import print_json, track

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from runtime.explain.explanation import Explanation

Draw: TypeAlias = "Callable[[], Image.Image]"


@dataclass(frozen=True, slots=True)
class Found:
    """Of one picture. data: for JSON; lines: for people; draw: what is to be written, or array with --npy."""

    data: list[dict[str, Any]]
    lines: list[str]
    draw: Draw
    array: npt.NDArray[np.float32] | None = None
    explanations: tuple[Explanation, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo explain``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures; - reads one from stdin")
    parser.add_argument(
        "--method",
        nargs="+",
        action="extend",
        metavar="M",
        help=f"one or more, or {ALL} but the slow (default: grad-cam)",
    )
    parser.add_argument(
        "--class", dest="classes", nargs="+", action="extend", metavar="C",
        help="classes to explain, by label or index (default: the most probable)",
    )  # fmt: skip
    parser.add_argument("--top", type=int, metavar="K", help="explain the K most probable classes, side by side")
    parser.add_argument("--layer", metavar="L", help="a name of `zoo layers` (default: the last map)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--activations", action="store_true", help="show what the layer's channels hold instead")
    kind.add_argument(
        "--filters", nargs="+", type=int, metavar="K", help="show what these filters of the layer look for; no picture"
    )
    kind.add_argument(
        "--attack", action="store_true", help="show the smallest change that gives another answer (towards --class)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="with --attack or --filters: steps of the gradient")
    parser.add_argument("--epsilon", type=float, metavar="E", help="with --attack: grey levels (default: the smallest)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT",
        help="a file for all pictures, or a folder for one each (default: IMAGE_explained.png in this folder)",
    )  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with a slider for the heat map")
    parser.add_argument("--npy", action="store_true", help="write the map of one class as .npy instead of a picture")
    parser.add_argument("--full-size", action="store_true", help="with --npy, --json: the map at the picture's size")
    explain_score.add_arguments(parser)
    add_shared_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON; pictures only where -o or --html names them")


def run(args: argparse.Namespace) -> int:
    """Explain each picture and write what was found; a picture that cannot be explained is reported."""
    args.npy = args.npy or (args.output is not None and args.output.suffix.lower() == ".npy")
    word = next((word for word in WORDS if getattr(args, word)), "explained")
    check_options(args, word)
    if args.score is not None:
        with open_model(args) as model:
            return explain_score.run_score(args, model)
    methods = chosen_methods(args.method)
    images = args.images or [f"{args.file.stem}.onnx"]
    writes = bool(args.output) or not (args.json or args.html)
    paths = files.destinations(images, args.output, WORDS.get(word, word), ".npy" if args.npy else ".png")
    if args.html:
        files.check(args.html, (".html", ".htm"))
    if args.npy and len(paths) < len(images):
        raise InvalidInput(f"{args.output}: holds one map: give one picture, or a folder that exists")
    kept: list[tuple[str, Found]] = []
    with open_model(args) as model:
        asked = Asked(model, methods, args.classes or [], args.top, args.layer, ALL in (args.method or ()))
        asked.check()
        failed = _each(args, word, asked, images, kept, paths if writes else [])
    said(asked.notes, sum(len(found.data) for _, found in kept), images)
    shown = [(image, found) for image, found in kept if found.explanations]
    if args.html and shown:
        from zoo.explain_page import page

        write(args.html, page(args.file.name, [(image, each.explanations) for image, each in shown]).encode())
        print(f"wrote {args.html}", file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print_json([data for _, found in kept for data in found.data])
    return failed


def _each(
    args: argparse.Namespace,
    word: str,
    asked: Asked,
    images: list[str],
    kept: list[tuple[str, Found]],
    paths: list[Path],
) -> int:
    """Fill ``kept``, write as each is done. Returns the exit code of the last that failed, 0 for none."""
    failed, one_file = 0, len(paths) == 1
    alone = len(images) == 1
    for at, image in enumerate(track(images, what="explaining", total=len(images)) if not alone else images):
        try:
            found = _FIND[word](args, asked, image)
        except UnknownName as error:  # classes and methods are known by now: it is the layer, of every picture
            raise UnknownName(f"{error} (`zoo layers {args.file}` lists them)") from error
        except UserError as error:
            if alone:
                raise
            print(f"zoo: error: {_about(image, error)}", file=sys.stderr)
            failed = error.exit_code
            continue
        kept.append((image, found))
        if paths and not (one_file and len(images) > 1):
            _write(paths[at], found)
        _print(args, found.lines, paths[at : at + 1] if not one_file or alone else [])
    if one_file and len(images) > 1 and kept:
        _write(paths[0], _together([found for _, found in kept]))
        _print(args, [], paths)
    return failed


def _about(image: str, error: UserError) -> str:
    return str(error) if image in str(error) else f"{image}: {error}"


def _print(args: argparse.Namespace, lines: list[str], paths: list[Path]) -> None:
    if not args.json:
        print("\n".join([*lines, *(f"wrote {path}" for path in paths)]))


def _write(path: Path, found: Found) -> None:
    if path.suffix.lower() == ".npy":
        assert found.array is not None
        files.save_array(path, found.array)
    else:
        files.save_picture(path, found.draw())


def _together(founds: list[Found]) -> Found:
    """One sheet of all pictures: each has its row, or its part."""
    from runtime.explain.sheet import sheet

    explanations = tuple(each for found in founds for each in found.explanations)
    if explanations:
        return Found([], [], lambda: sheet(explanations))
    return Found([], [], lambda: _stacked([found.draw() for found in founds]))


def _stacked(images: list[Image.Image]) -> Image.Image:
    from PIL import Image

    page = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height
    return page


# ---- what is found of one picture


def _explained(args: argparse.Namespace, asked: Asked, image: str) -> Found:
    from runtime.explain.overlay import overlay
    from runtime.explain.sheet import sheet

    steps: Any = track(list(asked.methods), what=f"explaining {image}", total=len(asked.methods))
    found = tuple(asked.explanations(image, steps if len(args.images) == 1 else asked.methods))
    array = (found[0].full_size() if args.full_size else found[0].map) if args.npy else None
    return Found(
        [{"image": image, **record(each, full_size=args.full_size)} for each in found],
        [f"{image}: {each.title} ({each.method}{f' at {each.layer}' if each.layer else ''})" for each in found],
        lambda: overlay(found[0]) if len(found) == 1 else sheet(found),
        array,
        found,
    )


def _activations(args: argparse.Namespace, asked: Asked, image: str) -> Found:
    from runtime.explain.sheet import activation_grid

    layer = asked.layer or asked.default_layer()
    (array,) = asked.model.activations(asked.picture(image), layer).values()
    low, high = float(array.min()), float(array.max())
    data = {"image": image, "layer": layer, "shape": list(array.shape), "min": low, "max": high}
    line = f"{image}: {layer}, {' x '.join(map(str, array.shape))}, from {low:.4g} to {high:.4g}"
    return Found([data], [line], lambda: activation_grid(array, title=f"{layer} of {Path(image).name}"), array)


def _attacked(args: argparse.Namespace, asked: Asked, image: str) -> Found:
    from dataclasses import asdict

    from runtime.explain.attack import fgsm
    from runtime.explain.sheet import attack_sheet

    target = asked.targets[0] if asked.targets else None
    attack = fgsm(asked.model, asked.picture(image), epsilon=args.epsilon, steps=args.steps or 1, target=target)
    data = {
        "image": image, "epsilon": attack.epsilon, "fooled": attack.fooled,
        "before": asdict(attack.before), "after": asdict(attack.after),
    }  # fmt: skip
    before, after = (f"{guess.label} {guess.probability:.1%}" for guess in (attack.before, attack.after))
    outcome = "fooled" if attack.fooled else "not fooled"
    line = f"{image}: {before} becomes {after} at epsilon {attack.epsilon:.3g}: {outcome}"
    return Found([data], [line], lambda: attack_sheet(attack))


def _filters(args: argparse.Namespace, asked: Asked, image: str) -> Found:
    from runtime.explain.filters import visualise
    from runtime.explain.sheet import filter_grid

    layer = asked.layer or asked.default_layer()
    options = {"steps": args.steps} if args.steps else {}
    pictures = visualise(asked.model, layer, args.filters, **options)
    data = {"layer": layer, "filters": args.filters, "shape": list(pictures.shape)}
    line = f"{args.file}: {layer}, filters {', '.join(map(str, args.filters))}"
    return Found([data], [line], lambda: filter_grid(pictures, args.filters, f"what filters of {layer} look for"))


_FIND: dict[str, Callable[[argparse.Namespace, Asked, str], Found]] = {
    "explained": _explained,
    "activations": _activations,
    "attack": _attacked,
    "filters": _filters,
}
