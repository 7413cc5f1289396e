"""What ``zoo explain`` asks of a model, picture by picture, and how programs get the answers."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidInput, UnknownName, UserError

if TYPE_CHECKING:
    from PIL import Image

    from runtime.explain.explanation import Explanation
    from runtime.model import Model

ALL = "all"
SLOW = ("occlusion", "rise")
"""Explainers of hundreds of runs each, which ``all`` leaves out."""

WORDS = {"activations": "activations", "attack": "attacked", "filters": "filters"}
"""Option -> the word in the name of its file."""


def check_options(args: argparse.Namespace, word: str) -> None:
    """Raise InvalidInput for options that do not go together."""
    several = len(args.classes or ()) > 1 or len(args.method or ()) > 1 or ALL in (args.method or ()) or args.top
    scored = args.score is not None
    drawn = word != "explained" or args.output or args.html or args.npy or args.classes or args.top or args.full_size
    swallowed = [given for given in (args.method or []) + (args.classes or []) if Path(given).is_file()]
    wrong = {
        "--filters shows what the network itself looks for: leave the pictures out": args.filters and args.images,
        "the pictures come first, behind FILE: zoo explain FILE IMAGE... --method M": not args.images and swallowed,
        "--score measures on the pictures of a folder: leave other pictures out": scored and args.images,
        "--score measures methods: give --method, --layer, --limit, --boxes and --json with it": scored and drawn,
        "--limit and --boxes belong to --score": not scored and (args.limit is not None or args.boxes is not None),
        "give at least one picture": not args.images and not args.filters and not scored,
        "--top and --class both say which classes: give one of them": args.top is not None and args.classes,
        f"--top {args.top}: give 1 or more": args.top is not None and args.top < 1,
        "--npy writes one map: give one --method and one --class": args.npy and several,
        f"--npy has no map of --{word} to write": args.npy and word in ("attack", "filters"),
        "--full-size says how large the map is: add --npy or --json": args.full_size and not (args.npy or args.json),
        f"--method does not go with --{word}": args.method and word != "explained",
        f"--class and --top do not go with --{word}": (args.classes or args.top) and word in ("activations", "filters"),
        "--attack aims at one class: give one --class": word == "attack" and (args.top or len(args.classes or ()) > 1),
        "--attack changes the input: leave --layer out": word == "attack" and args.layer,
        "--epsilon belongs to --attack": args.epsilon is not None and word != "attack",
        "--steps belongs to --attack and --filters": args.steps is not None and word not in ("attack", "filters"),
        f"--steps {args.steps}: give 1 or more": args.steps is not None and args.steps < 1,
        f"--html has no page of --{word}": args.html and word != "explained",
    }
    for message, holds in wrong.items():
        if holds:
            raise InvalidInput(message)


def chosen_methods(names: Sequence[str] | None) -> list[str]:
    """The methods in the order that they were asked for, each once. Raises UnknownName."""
    from runtime.explain.explainers import EXPLAINERS

    found: dict[str, None] = {}
    for name in names or ["grad-cam"]:
        if name == ALL:
            found |= dict.fromkeys(each for each in EXPLAINERS if each not in SLOW)
        elif name in EXPLAINERS:
            found[name] = None
        else:
            near = difflib.get_close_matches(name.lower(), EXPLAINERS, n=3)
            hint = f"did you mean {' or '.join(near)}? There are" if near else "there are"
            raise UnknownName(f"no method {name!r}: {hint} {', '.join(EXPLAINERS)} and {ALL}")
    return list(found)


@dataclass(frozen=True, slots=True)
class Asked:
    """The question. targets: labels or indices, none for the most probable class. lenient: leave out what cannot be.

    notes: what was remarked -> of which explanations.
    """

    model: Model
    methods: Sequence[str]
    targets: Sequence[str]
    top: int | None
    layer: str | None
    lenient: bool
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def check(self) -> None:
        """Raise UnknownName for a class, before any picture is looked at."""
        for target in self.targets:
            self.model.subject.classes.index(target)

    def default_layer(self) -> str:
        """The layer that explanations start from. Raises InvalidInput where there is none."""
        for layer in self.model.layers():
            if layer.default:
                return layer.name
        raise InvalidInput(f"{self.model.path}: no layer is a map of places: name one with --layer")

    def picture(self, image: str) -> Image.Image:
        """A picture that is read once, however often it is explained. Raises what ``decode`` raises."""
        from runtime.image import decode

        return decode(sys.stdin.buffer.read() if image == "-" else image, self.model.rule.color)

    def explanations(self, image: str, methods: Iterable[str]) -> Iterator[Explanation]:
        """Every class by every method: the methods side by side for each class.

        Raises UnknownName, and other UserErrors unless lenient; then what a method cannot explain becomes a note.
        """
        from runtime.errors import UnsupportedOperator
        from runtime.explain.explainers import EXPLAINERS

        picture = self.picture(image)
        targets: list[int | str | None] = list(self.targets) or [None]
        if self.top:
            targets = [guess.index for guess in self.model.predict(picture, top=self.top).top]
        layered = any(EXPLAINERS[method].layered for method in self.methods)
        found: list[list[Explanation]] = [[] for _ in targets]
        for method in methods:
            # Of several methods those that explain the input have no use for a layer; alone, one says so.
            layer = self.layer if EXPLAINERS[method].layered or not layered else None
            try:
                for at, target in enumerate(targets):
                    found[at].append(self._one(picture, image, method, target, layer))
            except UnknownName:
                raise
            except (UserError, UnsupportedOperator) as error:
                if not self.lenient:
                    raise
                self.notes[f"{method} is left out: {error}"].append(image)
        if not any(found):
            raise InvalidInput(f"{image}: no method explains it: {next(reversed(self.notes), '')}")
        yield from (each for row in found for each in row)

    def _one(
        self, picture: Image.Image, image: str, method: str, target: int | str | None, layer: str | None
    ) -> Explanation:
        explanation = self.model.explain(picture, method, target=target, layer=layer)
        for note in explanation.notes:
            self.notes[note].append(f"{image}, {explanation.label}, {method}")
        return explanation


def said(notes: dict[str, list[str]], of: int, images: Sequence[str]) -> None:
    """Each note once, on stderr, with what it is about unless that is everything: ``of`` explanations, or images."""
    for note, places in notes.items():
        whole = len(places) == of or places == list(images)
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        about = "" if whole else f"{'; '.join(places[:3])}{more}: "
        print(f"zoo: note: {about}{note}", file=sys.stderr)


def record(explanation: Explanation, *, full_size: bool) -> dict[str, Any]:
    """Plain values for JSON. at: (row, column) of the largest value, in the picture's pixels.

    map: of a layer's explanation, which is small, or of any at the picture's size where that was asked for.
    """
    import numpy as np

    values = explanation.full_size() if full_size else explanation.map
    place = np.unravel_index(int(values.argmax()), values.shape)
    sides = explanation.picture.shape[:2]
    data: dict[str, Any] = {
        name: getattr(explanation, name) for name in ("method", "layer", "index", "label", "score", "signed", "notes")
    }
    data |= {
        "picture": list(sides),
        "shape": list(values.shape),
        "min": float(values.min()),
        "max": float(values.max()),
        "at": [int((at + 0.5) * side / count) for at, side, count in zip(place, sides, values.shape, strict=True)],
    }
    if explanation.layer is not None or full_size:
        data["map"] = values.tolist()
    return data
