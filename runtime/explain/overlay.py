"""A map over its picture: the picture stays readable, and glows where the map is high."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from runtime.explain.colours import FloatMap, Pixels, colours, is_flat, strengths
from runtime.explain.explanation import Explanation
from runtime.explain.lettering import height, legible, shortened, width, write
from runtime.tasks.classification import Guess

PAPER, INK, GREY, HAIRLINE = (255, 255, 255), (24, 24, 27), (113, 113, 122), (224, 224, 228)
MARGIN, GAP = 16, 8
TITLE, SMALL = 20, 13
"""Sizes of letters, in pixels."""

MIN_SIDE = 320
"""A smaller picture is drawn larger, by a whole factor."""
_TINY = 96
"""Longer side below which a picture's pixels are shown as they are, as squares; above, enlarging smooths them."""

_SILENT = 0.04
"""Strength up to which a place is left as it is."""

_DIM, _DIMMED = (96, 96, 96), 0.3
"""The grey that a picture below a signed map, without its colours, is mixed with, and how much of it."""

_FLAT_WORDS, _ZERO_WORDS = "the same everywhere", "0 everywhere"


def overlay(explanation: Explanation, *, alpha: float = 0.55, titled: bool = True) -> Image.Image:
    """The heat over the picture, RGB. alpha: how much of the colours shows where the map is highest.

    titled: on paper, with the class, its probability, the method and a colour bar; or else the picture alone, at its
    own size or, where it is small, a multiple of it.
    """
    drawn = _heated(explanation, alpha)
    if not titled:
        return drawn
    inner = max(MIN_SIDE, drawn.width)
    top = MARGIN + height(TITLE) + height(SMALL) + GAP
    below = top + drawn.height + GAP
    page = Image.new("RGB", (inner + 2 * MARGIN, below + legend_height() + MARGIN), PAPER)
    write_answer(page, (MARGIN, MARGIN), answer_of(explanation), inner)
    write(page, (MARGIN, MARGIN + height(TITLE)), source(explanation), SMALL, GREY, room=inner)
    place(page, drawn, (MARGIN + (inner - drawn.width) // 2, top))
    draw_legend(page, (MARGIN, below), inner, signed=explanation.signed, flat=flat_words(explanation.map))
    return page


def photo(pixels: Pixels) -> Image.Image:
    """(height, width, 3) as it is drawn: tiny ones enlarged to squares, small ones smoothly, others as they are."""
    image = Image.fromarray(pixels)
    longer = max(image.size)
    factor = -(-MIN_SIDE // longer)
    how = Image.Resampling.NEAREST if longer < _TINY else Image.Resampling.LANCZOS
    return image if factor == 1 else image.resize((image.width * factor, image.height * factor), how)


def heat(explanation: Explanation, size: tuple[int, int]) -> Image.Image:
    """The map alone, (width, height), RGBA: opaque where it is strongest, transparent where it says nothing."""
    strong = smooth(strengths(explanation.map, signed=explanation.signed), size)
    opacity = np.clip(np.abs(strong) - _SILENT, 0, 1) / (1 - _SILENT)
    if not explanation.signed:  # faint places show; of a signed map they are white, and would lie over it as a haze
        opacity = np.sqrt(opacity)
    pixels = np.dstack([colours(strong, signed=explanation.signed), np.rint(opacity * 255).astype(np.uint8)])
    return Image.fromarray(pixels)


def smooth(values: FloatMap, size: tuple[int, int]) -> FloatMap:
    """(rows, columns) to (width, height), bicubic where it grows, and nowhere beyond what there was."""
    grows = size[0] >= values.shape[1] and size[1] >= values.shape[0]
    how = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    found = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, how))
    return np.asarray(np.clip(found, values.min(), values.max()), np.float32)


def source(explanation: Explanation) -> str:
    """Where the map comes from: "grad-cam at features.18"."""
    return explanation.method + (f" at {explanation.layer}" if explanation.layer else "")


def flat_words(values: FloatMap) -> str | None:
    """What is said in place of the colour bar, of a map that is the same everywhere."""
    return None if not is_flat(values) else _FLAT_WORDS if np.any(values) else _ZERO_WORDS


def answer_of(explanation: Explanation) -> Guess:
    """The class that is explained, with its probability."""
    return Guess(explanation.index, explanation.label, explanation.score)


def write_answer(page: Image.Image, at: tuple[int, int], answer: Guess, room: int, size: int = TITLE) -> None:
    """The label, shortened where it is long, and the whole of its probability."""
    share, blank = f"{answer.probability:.1%}", size // 2
    taken = width(share, size)
    line, _ = legible(answer.label, size)
    label = line if line.strip("? ") else f"class {answer.index}"  # no font at hand has its letters
    used = write(page, at, shortened(label, size, room - taken - blank), size, INK, room=room)
    write(page, (at[0] + used + blank, at[1]), share, size, GREY, room=taken)


def place(page: Image.Image, image: Image.Image, at: tuple[int, int]) -> None:
    """Paste a picture within a hairline, that white ones have an edge."""
    x, y = at
    ImageDraw.Draw(page).rectangle((x - 1, y - 1, x + image.width, y + image.height), outline=HAIRLINE)
    page.paste(image, at)


def legend_height(bars: int = 1) -> int:
    """How high so many colour bars are."""
    return bars * (height(SMALL) + GAP // 2)


def draw_legend(page: Image.Image, at: tuple[int, int], room: int, *, signed: bool, flat: str | None = None) -> None:
    """The colour bar between the names of its ends; flat: what to say in its place."""
    x, y = at
    if flat:
        write(page, at, f"{flat}: it points at no place", SMALL, GREY, room=room)
        return
    names = legend_names(signed)
    left, right = (width(name, SMALL) for name in names)
    inner, thick = room - left - right - 2 * GAP, 10
    ramp = np.linspace(-1 if signed else 0, 1, inner, dtype=np.float32)
    bar = Image.fromarray(np.repeat(colours(ramp, signed=signed)[None], thick, axis=0))
    write(page, (x, y), names[0], SMALL, GREY, room=left)
    page.paste(bar, (x + left + GAP, y + (height(SMALL) - thick) // 2 + 2))
    write(page, (x + room - right, y), names[1], SMALL, GREY, room=right)


def legend_names(signed: bool) -> Sequence[str]:
    """The names of the colour bar's two ends."""
    return ("against", "for") if signed else ("little", "much")


def _heated(explanation: Explanation, alpha: float) -> Image.Image:
    base = photo(explanation.picture)
    if explanation.signed:
        # The picture's own blue and orange, where the map is near 0, would be taken for the map's.
        # And on white paper faint colours would not show.
        base = Image.blend(base.convert("L").convert("RGB"), Image.new("RGB", base.size, _DIM), _DIMMED)
    layer = heat(explanation, base.size)
    share = min(max(alpha, 0.0), 1.0)
    faded = layer.getchannel("A").point([round(value * share) for value in range(256)])
    return Image.composite(layer.convert("RGB"), base, faded)
