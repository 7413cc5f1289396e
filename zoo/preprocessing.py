"""``--preprocess SPEC``: how a network sees a picture, in a few characters. To add a recipe, add a row."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

from runtime.errors import InvalidInput
from runtime.metadata import Color, Interpolation, Layout, Preprocess

NONE = "none"
"""What ``--preprocess`` says of an input that is no picture."""

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PLAIN = Preprocess(size=(224, 224), resize=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3)

# name -> the rule at 224 x 224; at another size the resize grows in proportion.
RECIPES: dict[str, Preprocess] = {
    # torchvision, and most checkpoints of PyTorch
    "torch": Preprocess(size=(224, 224), resize=256, scale=1 / 255, mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
    # Keras Applications' three modes, which stretch the whole picture
    "tf": replace(_PLAIN, mean=(127.5,) * 3, std=(127.5,) * 3),
    "caffe": replace(_PLAIN, color="BGR", mean=(103.939, 116.779, 123.68)),
    "0-255": _PLAIN,
    "0-1": replace(_PLAIN, scale=1 / 255),
    # timm's "inception" mean and standard deviation
    "half": Preprocess(
        size=(224, 224), resize=256, scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
    ),
}

_LONGEST_SIDE = 8192  # pixels


def add_argument(parser: argparse.ArgumentParser) -> None:
    """``--preprocess``, the same for every command that takes it."""
    parser.add_argument(
        "--preprocess",
        metavar="SPEC",
        help=f"how the network sees pictures: {', '.join(RECIPES)}, with changes behind it as in "
        "torch,size=160x160,resize=182 or 0-1,color=L or tf,layout=NHWC; or KEY=VALUE,... alone; or FILE.json with "
        f"the fields `zoo show` prints; {NONE}: the input is no picture. Keys: {', '.join(_KEYS)}",
    )


def add_uint8_argument(parser: argparse.ArgumentParser) -> None:
    """``--uint8-input``, the same for every command that writes a network."""
    parser.add_argument(
        "--uint8-input",
        nargs="?",
        const="NHWC",
        choices=["NHWC", "NCHW"],
        help="behind the other arguments: the file takes uint8 pixels and normalises them itself (NHWC, as a decoded "
        "picture lies, unless NCHW is said)",
    )


def parse(
    text: str,
    *,
    size: tuple[int, int] | None,
    channels: int | None = None,
    layout: Layout | None = None,
) -> Preprocess:
    """The rule that ``text`` stands for.

    text: a name of RECIPES, or that and "key=value" changes behind commas, or changes to pixels as they are
        ("0-255"), or the path of a JSON file. Numbers are decimals or fractions; mean and std take one value for
        all channels or one per channel between colons. A recipe's own values follow their channel from RGB to BGR.
    size: (height, width) of the network's input where it is fixed; then ``text`` need not say it.
    channels, layout: of the network's input where known: one channel makes the colour L, unless ``text`` says it.

    Raises InvalidInput naming what is allowed.
    """
    where = f"--preprocess {text!r}"
    if text.endswith(".json"):
        return _from_json(Path(text), size)
    first, *rest = (part.strip() for part in text.split(","))
    if "=" in first:
        first, rest = "0-255", [first, *rest]
    if first not in RECIPES:
        raise InvalidInput(
            f"{where}: no recipe {first!r}: choose from {', '.join(RECIPES)}, or give KEY=VALUE or FILE.json"
        )
    values: dict[str, Any] = {}
    for part in rest:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in _KEYS or key in values:
            problem = "is given twice" if key in values and equals else "is no KEY=VALUE with a known key"
            raise InvalidInput(f"{where}: {part!r} {problem}: the keys are {', '.join(_KEYS)}")
        try:
            values[key] = _KEYS[key](value)
        except (ValueError, ZeroDivisionError) as error:
            raise InvalidInput(f"{where}: {part!r}: {error}") from error
    if (size := values.pop("size", size)) is None:
        raise InvalidInput(f"{where}: the file fixes no input size: add size=HxW, such as {text},size=224x224")
    if channels == 1:
        values.setdefault("color", "L")
    if layout is not None:
        values.setdefault("layout", layout)
    return _build(RECIPES[first].at_size(*size), values, where)


def input_shape(text: str, *, lengths: tuple[int, ...] = (2,)) -> tuple[int, ...]:
    """What ``--input-size`` says: (height, width), or with 3 among ``lengths`` (channels, height, width) too.

    Raises InvalidInput.
    """
    parts = text.lower().split("x")
    if len(parts) not in lengths or not all(_is_side(part) for part in parts):
        raise InvalidInput(f"--input-size {text!r}: give HEIGHTxWIDTH in pixels, such as 224x224")
    return tuple(map(int, parts))


def _build(rule: Preprocess, values: dict[str, Any], where: str) -> Preprocess:
    """The rule with the changes; mean and std with as many values as the colour has channels."""
    color = values.get("color", rule.color)
    channels = 1 if color == "L" else 3
    for key in ("mean", "std"):
        given = values.get(key)
        own: tuple[float, ...] = getattr(rule, key)
        if {color, rule.color} == {"RGB", "BGR"}:
            own = own[::-1]
        numbers = given if given is not None else own
        if len(set(numbers)) == 1:
            numbers = numbers[:1] * channels
        if len(numbers) != channels:
            raise InvalidInput(
                f"{where}: {key} has {len(numbers)} values, color {color} has {channels} channel"
                f"{'s' if channels > 1 else ''}: give {key}=NUMBER{'' if channels == 1 else ', or three as 1:2:3'}"
            )
        values[key] = numbers
    try:
        return replace(rule, **values)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {str(error).removeprefix('invalid metadata: ')}") from error


# ---- values


def _number(text: str) -> float:
    # Fraction takes neither nan nor inf, and 1/255 without rounding twice.
    if not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d{1,2})?(/[\d.]+)?", text, re.ASCII | re.IGNORECASE):
        raise ValueError("give a number such as 0.5 or 1/255")
    above, _, below = text.partition("/")
    try:
        return float(Fraction(above) / Fraction(below or "1"))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ValueError("give a number such as 0.5 or 1/255") from error


def _scale(text: str) -> float:
    if (value := _number(text)) == 0:
        raise ValueError("scale must not be 0")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(":"))


def _pair(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(_is_side(side) for side in sides):
        raise ValueError("give HEIGHTxWIDTH in pixels, such as 224x224")
    return int(sides[0]), int(sides[1])


def _resize(text: str) -> int | tuple[int, int]:
    if "x" in text.lower():
        return _pair(text)
    if not _is_side(text):
        raise ValueError("give the shorter side in pixels, such as 256, or HEIGHTxWIDTH to stretch to")
    return int(text)


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= _LONGEST_SIDE


def _one_of(kind: Any) -> Callable[[str], str]:
    names: tuple[str, ...] = get_args(kind)

    def choose(text: str) -> str:
        for name in names:
            if name.lower() == text.lower():
                return name
        raise ValueError(f"choose from {', '.join(names)}")

    return choose


_KEYS: dict[str, Callable[[str], Any]] = {
    "size": _pair,
    "resize": _resize,
    "color": _one_of(Color),
    "interpolation": _one_of(Interpolation),
    "layout": _one_of(Layout),
    "scale": _scale,
    "mean": _numbers,
    "std": _numbers,
}


# ---- JSON


def _from_json(path: Path, size: tuple[int, int] | None) -> Preprocess:
    """The fields of Preprocess, as ``zoo show --json`` prints them; ``size`` may be left to the network."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path}: not a readable JSON file ({reason})") from error
    names = [field.name for field in fields(Preprocess)]
    if not isinstance(given, dict) or (unknown := [key for key in given if key not in names]):
        problem = f"unknown field {unknown[0]!r}" if isinstance(given, dict) else "no JSON object"
        raise InvalidInput(f"{path}: {problem}: the fields are {', '.join(names)}")
    if size is not None:
        given.setdefault("size", list(size))
    for key, value in given.items():
        given[key] = _checked(path, key, value)
    if missing := [key for key in ("size", "resize", "mean", "std") if key not in given]:
        raise InvalidInput(f"{path}: the field {missing[0]!r} is missing: the fields are {', '.join(names)}")
    try:
        return Preprocess(**given)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {str(error).removeprefix('invalid metadata: ')}") from error


def _checked(path: Path, key: str, value: Any) -> Any:
    numbers = tuple(value) if isinstance(value, list) else (value,)
    if key == "input":
        fits = value == "float32"  # a network takes floats; --uint8-input puts the pixels in front of it
    elif key in ("color", "interpolation", "layout"):
        fits = isinstance(value, str)
    elif key in ("size", "resize"):
        fits = all(type(number) is int and 1 <= number <= _LONGEST_SIDE for number in numbers)
        fits = fits and (len(numbers) == 2 if isinstance(value, list) else key == "resize")
    else:
        fits = all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        fits = fits and isinstance(value, list) == (key != "scale")
    if not fits:
        example = json.dumps(asdict(RECIPES["torch"])[key])
        raise InvalidInput(f"{path}: {key} {json.dumps(value)[:60]}: give such as {example}")
    return numbers if isinstance(value, list) else value


# ---- files


def for_file(text: str, path: Path) -> Preprocess:
    """The rule that ``text`` stands for, size, channels and layout taken from an ONNX file where it fixes them.

    Raises InvalidInput, also where the file leaves open which dimension holds the channels, and for a file that
    cannot be opened its own error.
    """
    from exporters.import_read import picture_input

    found = picture_input(path)
    if found is None:
        raise InvalidInput(f"{path}: takes no pictures of 1 or 3 channels: leave --preprocess out, or say {NONE}")
    if found.layout is None and "layout" not in text and not text.endswith(".json"):
        raise InvalidInput(
            f"{path}: does not say which dimension holds the channels: add layout=NCHW or layout=NHWC to --preprocess"
        )
    return parse(text, size=found.size, channels=found.channels, layout=found.layout)
