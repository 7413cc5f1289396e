"""Sheets: everything is on them, in its place, and nothing over another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InvalidInput
from runtime.explain.attack import Attack
from runtime.explain.colours import AGAINST_AND_FOR, STRENGTH
from runtime.explain.overlay import HAIRLINE, MARGIN
from runtime.explain.sheet import CELL, GUTTER, activation_grid, attack_sheet, filter_grid, sheet
from runtime.tasks.classification import Guess
from tests.runtime.explain.pictures import inked, made, pixels

RED, GREEN = np.full((32, 32, 3), (200, 0, 0), np.uint8), np.full((32, 32, 3), (0, 160, 0), np.uint8)


def places(image: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """(column, row) of the top left corner of each rectangle of one colour, in reading order."""
    same = (pixels(image) == colour).all(axis=2)
    corner = same & ~np.roll(same, 1, 0) & ~np.roll(same, 1, 1)
    corner &= np.roll(same, -40, 0) & np.roll(same, -40, 1)
    return [(int(x), int(y)) for y, x in np.argwhere(corner)]


def test_each_photo_has_its_row_and_stands_before_its_explanations() -> None:
    zero = np.zeros((7, 7), np.float32)  # explained or not, the photo is as it is
    row = [made(picture=RED, map=zero, method=name) for name in ("a", "b")]
    image = sheet([*row, made(picture=GREEN, map=zero)])
    red, green = places(image, (200, 0, 0)), places(image, (0, 160, 0))
    assert len(red) == 3
    assert len(green) == 2
    assert len({y for _, y in red}) == 1
    assert {y for _, y in green} != {y for _, y in red}
    assert [x for x, _ in green] == [x for x, _ in red][:2]  # columns are aligned
    assert np.diff([x for x, _ in red]).tolist() == [CELL + GUTTER] * 2
    for x, y in [*red, *green]:
        assert inked(image, (x, y - 30, x + CELL, y - 3))  # titled


def test_columns_wrap() -> None:
    image = sheet([(str(number), RED) for number in range(5)], columns=2)
    found = places(image, (200, 0, 0))
    assert len({x for x, _ in found}) == 2
    assert len({y for _, y in found}) == 3
    assert sheet([("one", Image.new("L", (50, 90)))], columns=4).width < 5 * CELL


def test_a_colour_bar_for_each_kind_of_map() -> None:
    def has(image: Image.Image, colour: tuple[int, int, int]) -> bool:
        return bool((pixels(image)[-60:] == colour).all(axis=2).any())

    plain, signed, flat = made(), made(signed=True), made(map=np.ones((3, 3), np.float32))
    assert has(sheet([plain]), STRENGTH[0])
    assert not has(sheet([plain]), AGAINST_AND_FOR[0])
    assert has(sheet([signed]), AGAINST_AND_FOR[0])
    assert has(sheet([plain, signed]), STRENGTH[0])
    assert has(sheet([plain, signed]), AGAINST_AND_FOR[0])
    assert not has(sheet([flat]), STRENGTH[0])


@pytest.mark.parametrize("label", ["x " * 200, "日本語", "W" * 100])
def test_titles_stay_in_their_cells(label: str) -> None:
    image = sheet([made(label=label, layer="l" * 99, picture=RED)] * 3, columns=4)
    for column in range(4):
        x = MARGIN + column * (CELL + GUTTER)
        assert inked(image, (x, 0, x + CELL, 50))
        assert not inked(image, (x + CELL + 1, 0, x + CELL + GUTTER - 1, image.height - 60))


def test_pictures_of_other_forms() -> None:
    tall, wide, dot = (np.zeros((h, w, 3), np.uint8) for h, w in ((900, 3), (3, 900), (1, 1)))
    image = sheet([("tall", tall), ("wide", wide), ("dot", dot), made(picture=tall)])
    assert max(image.size) < 6 * (CELL + GUTTER)


@pytest.mark.parametrize(("pictures", "columns"), [([], None), ([("a", RED)], 0)])
def test_nothing_to_show(pictures: list[Any], columns: int | None) -> None:
    with pytest.raises(InvalidInput):
        sheet(pictures, columns)


@pytest.mark.filterwarnings("error")
def test_channels_are_each_between_their_own_ends() -> None:
    array = np.zeros((6, 4, 4), np.float32)
    for channel in range(5):
        array[channel, 1, 2] = 10.0**channel  # the sixth is flat
    image = activation_grid(array, title="relu2 of cat.jpg")
    brightest = places(image, STRENGTH[-1])
    assert len((pixels(image) == STRENGTH[-1]).all(axis=2).nonzero()[0]) >= 5 * 23 * 23
    assert len(brightest) == 0  # cells of 24 pixels: none is 40 wide
    assert (pixels(image) == STRENGTH[0]).all(axis=2).sum() > 96 * 96


def test_of_many_channels_those_that_vary_most_are_shown() -> None:
    array = np.zeros((100, 4, 4), np.float32)
    array[[7, 42, 77], 0, 0] = 1
    few, all_of_them = activation_grid(array, most=3), activation_grid(array, most=200)
    assert (pixels(few) == STRENGTH[-1]).all(axis=2).sum() >= 3 * 23 * 23
    assert few.height < all_of_them.height
    assert activation_grid(array[:1]).width > 96


def test_features_and_what_is_no_activation() -> None:
    assert activation_grid(np.arange(84, dtype=np.float32)).width > 480
    assert activation_grid(np.ones(1, np.float32)).width > 400
    for shape in ((), (0,), (3, 4), (0, 4, 4), (2, 3, 4, 4)):
        with pytest.raises(InvalidInput):
            activation_grid(np.zeros(shape, np.float32))


def test_filters_stand_under_their_numbers() -> None:
    pictures = np.stack([RED] * 7)
    found = places(filter_grid(pictures, range(7), "conv1"), (200, 0, 0))
    assert len(found) == 7
    with pytest.raises(InvalidInput):
        filter_grid(pictures, [1, 2])
    with pytest.raises(InvalidInput):
        filter_grid(pictures[:0], [])


@pytest.mark.parametrize("change", [0, 1, 2, 200])
def test_an_attack_shows_what_was_changed(change: int) -> None:
    before = np.full((64, 64, 3), 20, np.uint8)
    after = before.copy()
    after[:32] += np.uint8(change)
    guess = Guess(0, "tabby, tabby cat", 0.54), Guess(1, "paper towel " * 20, 0.31)
    image = attack_sheet(Attack(before, after, float(change), *guess, fooled=bool(change)))
    middle = pixels(image)[:, image.width // 2]
    edges = np.flatnonzero((middle == HAIRLINE).all(axis=1))
    upper, lower = middle[edges[0] + 40], middle[edges[-1] - 40]
    times = 127 // change if 0 < change < 128 else 1
    assert upper.tolist() == [min(128 + times * change, 255)] * 3
    assert lower.tolist() == [128] * 3
    assert not inked(image, (image.width - 15, 0, image.width, image.height))
