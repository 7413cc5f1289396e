"""Overlays, looked at pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.explain import lettering
from runtime.explain.colours import AGAINST_AND_FOR, STRENGTH
from runtime.explain.overlay import MARGIN, MIN_SIDE, draw_legend, heat, overlay
from tests.runtime.explain.pictures import inked, made, pixels


@pytest.mark.parametrize("at", [(0, 0), (2, 5), (6, 3)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_colour_is_strongest_where_the_map_is_highest(at: tuple[int, int], signed: bool) -> None:
    image = overlay(made(at=at, signed=signed), titled=False)
    drawn = pixels(image)
    difference = np.abs(drawn - np.median(drawn.reshape(-1, 3), axis=0)).sum(axis=2)
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert (row * 7 // image.height, column * 7 // image.width) == at


def test_the_colours_are_those_of_the_map_and_alpha_says_how_much() -> None:
    explanation = made()
    row, column = (np.array([2.5, 5.5]) * MIN_SIDE / 7).astype(int)
    for alpha in (0.0, 0.5, 1.0):
        expected = 128 + alpha * (np.array(STRENGTH[-1]) - 128)
        assert np.abs(pixels(overlay(explanation, alpha=alpha, titled=False))[row, column] - expected).max() <= 2
    against = made(map=-explanation.map, signed=True)
    expected = np.array(AGAINST_AND_FOR[0])
    assert np.abs(pixels(overlay(against, alpha=1.0, titled=False))[row, column] - expected).max() <= 2


def test_where_the_map_is_low_the_photo_is_as_it_was() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    drawn = overlay(made(picture=photo), titled=False)
    assert (pixels(drawn)[300:, :200] == photo[300:, :200]).all()


@pytest.mark.parametrize(("size", "drawn"), [(8, 320), (28, 336), (224, 448), (320, 320), (500, 500)])
def test_tiny_pictures_are_enlarged_by_whole_factors(size: int, drawn: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    explanation = made(picture=photo, map=np.zeros((7, 7), np.float32))
    image = overlay(explanation, titled=False)
    assert image.size == (drawn, drawn)
    if size < 96:
        assert (pixels(image)[:: drawn // size, :: drawn // size] == photo).all()  # squares


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("signed", [False, True])
def test_a_map_that_is_the_same_everywhere_leaves_the_photo_and_says_so(value: float, signed: bool) -> None:
    flat = made(map=np.full((7, 7), value, np.float32), signed=signed)
    drawn = pixels(overlay(flat, titled=False))
    assert np.ptp(drawn) == 0
    titled = pixels(overlay(flat))[-MARGIN - 20 :]
    assert (titled != 255).any()
    assert np.ptp(titled, axis=2).max() < 12  # words in grey, and no colour bar


@pytest.mark.parametrize("signed", [False, True])
def test_the_ends_of_the_colour_bar(signed: bool) -> None:
    from PIL import Image

    page = Image.new("RGB", (400, 40), "white")
    draw_legend(page, (10, 5), 380, signed=signed)
    line = pixels(page)[5 + (lettering.height(13) - 10) // 2 + 2 + 5]
    table = AGAINST_AND_FOR if signed else STRENGTH
    assert (line == table[0]).all(axis=1).any()
    assert (line == table[-1]).all(axis=1).any()
    first = int((line == table[0]).all(axis=1).argmax())
    last = 399 - int((line[::-1] == table[-1]).all(axis=1).argmax())
    assert first < 100 < 300 < last
    assert inked(page, (10, 5, first - 2, 30))  # the name of each end, beside it
    assert inked(page, (last + 2, 5, 390, 30))


@pytest.mark.parametrize(
    "label",
    [
        "7", "", "cat " * 200, "W" * 300, "日本語のラベル", "кошка", "ﷺ\u202e" * 40, "🐈", "a\nb\tc\x00", "Läufer",
        "\ud800", "é" * 100, "\U0010ffff" * 50,
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(8, 8), (300, 12), (12, 300)])
def test_no_text_is_cut_or_runs_into_another(label: str, shape: tuple[int, int]) -> None:
    explanation = made(label=label, layer="features." * 60, picture=np.full((*shape, 3), 128, np.uint8))
    image = overlay(explanation)
    assert image.width >= MIN_SIDE
    frame = [
        (0, 0, image.width, MARGIN - 1), (0, 0, MARGIN - 1, image.height),
        (image.width - MARGIN + 1, 0, image.width, image.height),
        (0, image.height - MARGIN // 2, image.width, image.height),
    ]  # fmt: skip
    assert not any(inked(image, box) for box in frame)
    assert inked(image, (MARGIN, MARGIN, image.width - MARGIN, MARGIN + lettering.height(20)))


def test_a_long_label_keeps_its_probability() -> None:
    short, long = (pixels(overlay(made(label=label))) for label in ("cat", "cat " * 200))
    strip = slice(MARGIN, MARGIN + lettering.height(20))
    taken = lettering.width("54.1%", 20)
    ends = [np.flatnonzero((page[strip] != 255).any(axis=(0, 2))).max() for page in (short, long)]
    found = [page[strip, end - taken : end + 1] for page, end in zip((short, long), ends, strict=True)]
    assert (found[0][:, 8:] == found[1][:, 8:]).all()


def test_without_freetype_there_is_still_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    def none(*_: object) -> object:
        raise ImportError("The _imagingft C module is not installed")

    bitmap = ImageFont.load_default_imagefont() if hasattr(ImageFont, "load_default_imagefont") else None
    if bitmap is None:
        pytest.skip("this Pillow has no bitmap font apart")
    monkeypatch.setattr(ImageFont, "load_default", lambda size=None: bitmap if size is None else none())
    monkeypatch.setattr(ImageFont, "truetype", none)
    for cached in (lettering.font, lettering._wider, lettering._draws):
        cached.cache_clear()
    try:
        for label in ("tabby", "日本語", "é…×" * 50):
            image = overlay(made(label=label))
            assert inked(image, (MARGIN, MARGIN, image.width - MARGIN, MARGIN + 10))
            assert not inked(image, (image.width - MARGIN + 1, 0, image.width, image.height))
    finally:
        for cached in (lettering.font, lettering._wider, lettering._draws):
            cached.cache_clear()


def test_the_heat_is_opaque_at_its_most_and_gone_at_its_least() -> None:
    alpha = np.asarray(heat(made(), (70, 70)).getchannel("A"))
    assert alpha[25, 55] > 250  # the middle of the place, where cubic interpolation has the place's own value
    assert alpha[60, 5] == 0


def test_save_and_refuse(tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    from runtime.errors import OutputNotWritable

    folder = Path(str(tmp_path))
    made().save(folder / "a.png")
    assert Image.open(folder / "a.png").size == overlay(made()).size
    with pytest.raises(OutputNotWritable):
        made().save(folder / "a.nonsense")
