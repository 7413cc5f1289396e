"""Text in pictures: with the font that Pillow brings, in the space that there is, whatever the label."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

ELLIPSIS = "..."  # three full stops: every font has them

# Tried in this order, by the name of their file, where Pillow's own font lacks a letter: it has Latin ones only.
WIDER_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf")

_NOWHERE = "\U0010fffd"
"""A private character, which no font has: it is drawn as every missing one is."""


@lru_cache(maxsize=32)
def font(size: int) -> Font:
    """Pillow's font at a size in pixels; without FreeType its bitmap font, which has one size."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


@lru_cache(maxsize=128)
def _wider(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except (ImportError, OSError):
        return None


@lru_cache(maxsize=4096)
def _draws(face: Font, letter: str) -> bool:
    """Whether a font has a letter."""
    if not isinstance(face, ImageFont.FreeTypeFont):
        return letter.isascii()
    if letter.isspace():
        return True
    missing, found = face.getmask(_NOWHERE), face.getmask(letter)
    return (found.size, bytes(found)) != (missing.size, bytes(missing))


def legible(text: str, size: int) -> tuple[str, Font]:
    """The text in one line as it can be drawn, and the font to draw it with.

    A letter that no font at hand has loses its accents, or becomes "?".
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    own = font(size)
    if all(_draws(own, letter) for letter in line):
        return line, own
    for name in WIDER_FONTS:
        face = _wider(name, size)
        if face is not None and all(_draws(face, letter) for letter in line):
            return line, face
    return "".join(_nearest(own, letter) for letter in line), own


def _nearest(face: Font, letter: str) -> str:
    if _draws(face, letter):
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return plain if plain and all(_draws(face, part) for part in plain) else "?"


def width(text: str, size: int) -> int:
    """How wide a text is, in pixels."""
    line, face = legible(text, size)
    left, _, right, _ = face.getbbox(line)
    return int(-(-right // 1)) - min(0, int(left))


def height(size: int) -> int:
    """How high a line of text is, from the top of the highest letter to the foot of the lowest."""
    return int(-(-font(size).getbbox("\xc5|pgj")[3] // 1)) + 1


def shortened(text: str, size: int, room: int) -> str:
    """The text, or as much of it as fits into ``room`` pixels before an ellipsis."""
    line, _ = legible(text, size)
    if width(line, size) <= room:
        return line
    fits, too_long = 0, len(line)  # bisection: labels may be thousands of letters long
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width(line[:middle].rstrip() + ELLIPSIS, size) <= room:
            fits = middle
        else:
            too_long = middle
    return line[:fits].rstrip() + ELLIPSIS


def write(
    image: Image.Image, place: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], *, room: int
) -> int:
    """Write a line with its top left corner at ``place`` (x, y), within ``room`` pixels. Returns the width it took."""
    line, face = legible(shortened(text, size, room), size)
    ImageDraw.Draw(image).text(place, line, fill=colour, font=face)
    return width(line, size)
