"""Draw the ten sample digits: ``python -m exporters.samples.draw_digits``.

A digit is one or two pen strokes through the points below, smoothed, with a seeded wobble of path and pressure.
Odd digits are black on white, like pen on paper; even ones are white on black. Nothing is taken from a data set.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from runtime.errors import InvalidInput

Point = tuple[float, float]

SIDE = 112
_FINE = 4  # drawn this many times larger, then reduced: smooth edges
_HEIGHT = 78.0  # pixels of SIDE that a digit fills: MNIST's 20 of 28
_PEN = 9.5  # width of the pen, in the same pixels

# "x,y x,y ... | x,y ...": points and strokes, in hundredths of the digit's height, y downwards.
# The points are where a hand would go, not geometry: hence the odd numbers.
STROKES = (
    "44,3 19,12 5,42 10,80 32,98 57,84 67,47 58,13 40,2",  # 0
    "8,24 20,13 31,0 29,34 26,68 25,100",  # 1
    "7,25 18,5 42,1 58,18 48,47 24,76 3,96 8,98 33,94 68,97",  # 2
    "8,12 29,0 53,12 48,36 26,46 29,46 57,59 59,84 34,100 4,89",  # 3
    "22,2 14,28 4,56 9,60 36,57 70,55 | 53,14 49,48 46,76 45,100",  # 4
    "18,5 15,24 11,46 14,46 38,40 59,56 57,82 33,99 4,90 | 18,5 38,4 62,0",  # 5
    "50,0 28,17 11,46 6,76 22,98 46,95 57,75 45,57 24,60 10,78",  # 6
    "2,9 27,8 60,2 63,6 48,38 35,69 27,100",  # 7
    "52,12 33,1 12,13 17,34 40,52 55,76 40,98 16,95 8,74 26,51 48,33 54,13",  # 8
    "54,14 35,1 12,13 10,38 30,49 50,35 56,12 54,40 49,72 42,100",  # 9
)


def draw(digit: int) -> Image.Image:
    """The sample of ``digit``: mode "L", 112x112; the same pixels on every call.

    Raises InvalidInput when ``digit`` is not in 0..9.
    """
    if not 0 <= digit <= 9:
        raise InvalidInput(f"no sample of digit {digit}: give 0 to 9")
    hand = random.Random(digit)  # noqa: S311 - a wobble, not a secret
    canvas = Image.new("L", (SIDE * _FINE, SIDE * _FINE), 0)
    pen = ImageDraw.Draw(canvas)
    strokes = [[_point(text) for text in stroke.split()] for stroke in STROKES[digit].split("|")]
    xs, ys = zip(*(point for stroke in strokes for point in stroke), strict=True)
    middle = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    slant = hand.uniform(-0.05, 0.09)
    for stroke in strokes:
        phase, pressure = hand.uniform(0, math.tau), hand.uniform(0.9, 1.1)
        for step, (x, y) in enumerate(_smooth(stroke)):
            along = phase + step * 0.05
            x, y = x - middle[0] - slant * (y - middle[1]), y - middle[1]
            x, y = x + 0.008 * math.sin(2.3 * along), y + 0.008 * math.sin(1.7 * along)
            radius = _PEN / 2 * pressure * (1 + 0.13 * math.sin(along)) * _FINE
            across, down = ((SIDE / 2 + part * (_HEIGHT - _PEN)) * _FINE for part in (x, y))
            pen.ellipse((across - radius, down - radius, across + radius, down + radius), fill=255)
    picture = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    return ImageOps.invert(picture) if digit % 2 else picture


def _point(text: str) -> Point:
    x, y = text.split(",")
    return int(x) / 100, int(y) / 100


def _smooth(points: list[Point]) -> list[Point]:
    """A Catmull-Rom curve through ``points``, in steps far shorter than the pen is wide."""
    padded = [points[0], *points, points[-1]]
    return [
        (_curve(t / 40, *(p[0] for p in padded[i : i + 4])), _curve(t / 40, *(p[1] for p in padded[i : i + 4])))
        for i in range(len(points) - 1)
        for t in range(41)
    ]


def _curve(t: float, before: float, start: float, end: float, after: float) -> float:
    cubic = 3 * start - before - 3 * end + after
    square = 2 * before - 5 * start + 4 * end - after
    return (2 * start + (end - before) * t + square * t**2 + cubic * t**3) / 2


def main(folder: Path = Path(__file__).parent / "digits") -> None:
    """Write ``0.png`` ... ``9.png`` into ``folder``, which must exist."""
    for digit in range(len(STROKES)):
        draw(digit).save(folder / f"{digit}.png", optimize=True)


if __name__ == "__main__":
    main()
