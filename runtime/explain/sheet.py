"""Many pictures on one page: methods or classes beside their photo, channels, filters, an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from runtime.errors import InvalidInput
from runtime.explain.colours import FloatMap, Pixels, colours, is_flat, strengths
from runtime.explain.explanation import Explanation
from runtime.explain.lettering import height, width, write
from runtime.explain.overlay import (
    GAP,
    GREY,
    INK,
    MARGIN,
    PAPER,
    SMALL,
    TITLE,
    answer_of,
    draw_legend,
    flat_words,
    legend_height,
    overlay,
    photo,
    place,
    source,
    write_answer,
)
from runtime.tasks.classification import Guess

if TYPE_CHECKING:
    from runtime.explain.attack import Attack

Titled: TypeAlias = tuple[str, Image.Image | Pixels]
"""A picture and the line above it."""

CELL, HEAD, GUTTER = 240, 15, 16
"""Longer side of a picture on a sheet; size of the line above it; what lies between two."""
_IN_A_ROW = 6
_FEATURE_COLUMNS = 32


@dataclass(frozen=True, slots=True)
class _Cell:
    """A picture with up to two lines above it: a line, or a class with its probability, and a smaller one."""

    image: Image.Image
    head: str | Guess
    small: str = ""


@dataclass(frozen=True, slots=True)
class _Form:
    """cell: longer side of a picture. size: of the letters above. title: the page's own line. bars: signed or not."""

    cell: int = CELL
    size: int = HEAD
    title: str = ""
    bars: Sequence[bool] = ()
    gutter: int = GUTTER
    words: Sequence[str] = field(default_factory=tuple)


def sheet(
    pictures: Sequence[Explanation | Titled], columns: int | None = None, *, alpha: float = 0.55, title: str = ""
) -> Image.Image:
    """A contact sheet. Explanations that follow each other and are of one picture stand behind that picture itself.

    columns: pictures in a row; None gives each photo rows of its own, as many beside each other as six.
    Raises InvalidInput for nothing to show, or fewer than one column.
    """
    if not pictures or (columns is not None and columns < 1):
        raise InvalidInput("a sheet needs a picture, and at least one column")
    groups: list[list[_Cell]] = []
    last: Pixels | None = None
    for item in pictures:
        if isinstance(item, Explanation):
            if last is None or not np.array_equal(last, item.picture):
                groups.append([_Cell(photo(item.picture), "what the network saw")])
            last = item.picture
            flat = flat_words(item.map)
            small = source(item) if flat is None else f"{item.method}: {flat}"
            groups[-1].append(_Cell(overlay(item, alpha=alpha, titled=False), answer_of(item), small))
        else:
            if last is not None or not groups:
                groups.append([])
            last = None
            groups[-1].append(_Cell(_as_image(item[1]), item[0]))
    drawn = [item for item in pictures if isinstance(item, Explanation) and not is_flat(item.map)]
    form = _Form(title=title, bars=sorted({item.signed for item in drawn}))
    if columns is not None:
        cells = [cell for group in groups for cell in group]
        return _page([cells[at : at + columns] for at in range(0, len(cells), columns)], form)
    across = _even(max(map(len, groups)), _IN_A_ROW)
    return _page([group[at : at + across] for group in groups for at in range(0, len(group), across)], form)


def activation_grid(array: FloatMap, *, most: int = 64, title: str = "") -> Image.Image:
    """Channels (C, h, w) side by side, numbered, each between its own least and most; one that is flat is dark.

    most: channels to show; of more, those that vary most, in their order. Features (n,) are one picture, row by row.
    Raises InvalidInput for arrays of another form.
    """
    if array.ndim == 1 and array.size:
        wide = min(array.size, _FEATURE_COLUMNS)
        padded = np.pad(array, (0, -array.size % wide), constant_values=array.min())
        told = f"{array.size} features, {wide} in a row"
        cell = _Cell(_heat_map(padded.reshape(-1, wide), 480), told)
        return _page([[cell]], _Form(cell=480, title=title, bars=(False,)))
    if array.ndim != 3 or array.size == 0 or most < 1:
        raise InvalidInput(f"activations of (channels, rows, columns) are drawn, at least one, not {array.shape}")
    finite = np.where(np.isfinite(array), array, 0).astype(np.float64)
    spread = finite.std(axis=(1, 2))
    numbers = np.sort(np.argsort(-spread, kind="stable")[:most])
    count = len(array)
    told = (
        f"all {count} channels"
        if len(numbers) == count
        else f"{len(numbers)} of {count} channels, those that vary most"
    )
    cells = [_Cell(_heat_map(array[number], 96), str(number)) for number in numbers]
    across = _even(len(cells), max(4, round(len(cells) ** 0.5)))
    rows = [cells[at : at + across] for at in range(0, len(cells), across)]
    return _page(rows, _Form(cell=96, size=SMALL, title=title, bars=(False,), gutter=GAP, words=(told,)))


def filter_grid(pictures: Pixels, numbers: Sequence[int], title: str = "") -> Image.Image:
    """What filters answer to most, (n, height, width, 3), under their numbers. Raises InvalidInput for none."""
    if len(pictures) == 0 or len(pictures) != len(numbers):
        raise InvalidInput(f"{len(pictures)} pictures of {len(numbers)} filters: give one of each, at least one")
    cells = [_Cell(photo(picture), str(number)) for picture, number in zip(pictures, numbers, strict=True)]
    across = _even(len(cells), max(4, round(len(cells) ** 0.5)))
    side = 160 if len(cells) > 4 else CELL
    rows = [cells[at : at + across] for at in range(0, len(cells), across)]
    return _page(rows, _Form(cell=side, size=SMALL, title=title, gutter=GAP))


def attack_sheet(attack: Attack) -> Image.Image:
    """Before, what was changed (amplified, about grey) and after, with the answers."""
    before, after = np.asarray(attack.picture, np.int16), np.asarray(attack.changed, np.int16)
    largest = int(np.abs(after - before).max(initial=0))
    times = max(1, 127 // largest) if largest else 1
    difference = np.clip(128 + times * (after - before), 0, 255).astype(np.uint8)
    amplified = f"difference x {times}" if times > 1 else "difference"
    told = f"at most {largest} grey levels" if largest else "nothing was changed"
    cells = [
        _Cell(photo(attack.picture), attack.before, "before"),
        _Cell(photo(difference), amplified, told),
        _Cell(photo(attack.changed), attack.after, "after"),
    ]
    outcome = "fooled" if attack.fooled else "not fooled"
    return _page([cells], _Form(cell=280, title=f"{outcome} at epsilon {attack.epsilon:.3g} of 255"))


def _even(count: int, most: int) -> int:
    """How many of ``count`` in a row, at most ``most``, that the rows are about full."""
    rows = -(-count // most)
    return -(-count // rows)


def _as_image(picture: Image.Image | Pixels) -> Image.Image:
    return picture.convert("RGB") if isinstance(picture, Image.Image) else photo(np.asarray(picture, np.uint8))


def _heat_map(values: FloatMap, side: int) -> Image.Image:
    """A map alone, its cells as squares."""
    strong = np.zeros(values.shape, np.float32) if is_flat(values) else strengths(values, signed=False)
    image = Image.fromarray(colours(strong, signed=False))
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Its longer side ``side`` pixels long."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _page(rows: Sequence[Sequence[_Cell]], form: _Form) -> Image.Image:
    """The rows under the title, above the colour bars. Pictures of one row stand on one line."""
    fitted = [[_fitted(cell.image, form.cell) for cell in row] for row in rows]
    across = max(map(len, rows))
    wide = max(max(image.width for row in fitted for image in row), width("00000", form.size))
    inner = across * wide + (across - 1) * form.gutter
    small = any(cell.small for row in rows for cell in row)
    head = height(form.size) + (height(SMALL) if small else 0) + 2
    above = (height(TITLE) if form.title else 0) + len(form.words) * height(SMALL)
    top = MARGIN + above + (GAP if above else 0)
    heights = [head + max(image.height for image in row) + form.gutter for row in fitted]
    page = Image.new("RGB", (inner + 2 * MARGIN, top + sum(heights) + legend_height(len(form.bars)) + MARGIN), PAPER)
    write(page, (MARGIN, MARGIN), form.title, TITLE, INK, room=inner)
    for at, line in enumerate(form.words):
        under = MARGIN + above - (len(form.words) - at) * height(SMALL)
        write(page, (MARGIN, under), line, SMALL, GREY, room=inner)
    for row, images, tall in zip(rows, fitted, heights, strict=True):
        for column, (cell, image) in enumerate(zip(row, images, strict=True)):
            x = MARGIN + column * (wide + form.gutter)
            _write_head(page, (x, top), cell, wide, form.size)
            place(page, image, (x + (wide - image.width) // 2, top + head))
        top += tall
    for signed in form.bars:
        draw_legend(page, (MARGIN, top), min(inner, 2 * CELL), signed=signed)
        top += legend_height()
    return page


def _write_head(page: Image.Image, at: tuple[int, int], cell: _Cell, room: int, size: int) -> None:
    if isinstance(cell.head, str):
        write(page, at, cell.head, size, INK if cell.small else GREY, room=room)
    else:
        write_answer(page, at, cell.head, room, size)
    if cell.small:
        write(page, (at[0], at[1] + height(size)), cell.small, SMALL, GREY, room=room)
