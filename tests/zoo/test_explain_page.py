"""The page of explanations: read as a browser reads it."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
from PIL import Image

from tests.runtime.explain.pictures import made
from zoo.explain_page import page

EMPTY = ("meta", "img", "input")


class Tags(HTMLParser):
    """Every tag with its attributes; what is open at the end was never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.seen if name == tag]


def read(uri: str) -> Image.Image:
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", uri).groups()  # type: ignore[union-attr]
    image = Image.open(BytesIO(b64decode(data)))
    assert (image.format or "").lower() == kind
    return image


NAME = '<b> & "quoted".jpg'
SOME = [
    made(label=NAME), made(label=NAME, method="saliency", layer=None), made(index=5, label="dog", signed=True),
    made(index=5, label="dog", method="saliency", map=np.zeros((7, 7), np.float32), notes=("it is <i>0</i>",)),
]  # fmt: skip


def test_a_figure_for_each_class_with_one_slider_and_a_selector() -> None:
    tags = Tags(page(NAME, [(NAME, SOME), ("b.jpg", SOME[:1])]))
    assert tags.open == []
    assert len(tags.all("figure")) == 3
    sliders = tags.all("input")
    assert [slider["type"] for slider in sliders] == ["range"] * 3
    assert (sliders[0]["min"], sliders[0]["max"], sliders[0]["value"]) == ("0", "100", "60")
    assert len(tags.all("select")) == 2  # the last has one method
    assert len(tags.all("option")) == 4
    labelled = {label["for"] for label in tags.all("label")}
    assert labelled == {each["id"] for each in [*sliders, *tags.all("select")]}
    assert not [tag for tag, _ in tags.seen if tag in ("b", "i")]  # names and notes are text


def test_the_pictures_are_in_the_page_and_said_in_words() -> None:
    text = page("a.onnx", [("a.jpg", SOME)])
    assert "http" not in text
    images = Tags(text).all("img")
    assert all(image["alt"] for image in images)
    photos, maps = ([i for i in images if ("data-method" in i) == kind] for kind in (False, True))
    assert (len(photos), len(maps)) == (2, 4)
    assert [image["data-method"] for image in maps] == ["grad-cam", "saliency"] * 2
    assert read(photos[0]["src"]).mode == "RGB"
    heat = np.asarray(read(maps[0]["src"]))
    assert heat.shape == (256, 256, 4)
    row, column = np.unravel_index(heat[..., 3].argmax(), heat.shape[:2])
    assert (row * 7 // 256, column * 7 // 256) == (2, 5)
    assert np.asarray(read(maps[3]["src"]))[..., 3].max() == 0
    shown = ["display:none" not in image["style"] for image in maps]
    assert shown == [True, False, True, False]


def test_photos_are_jpeg_and_digits_png() -> None:
    large = made(picture=np.zeros((224, 200, 3), np.uint8))
    for explanation, kind in ((large, "JPEG"), (made(), "PNG")):
        photo = Tags(page("a.onnx", [("a", [explanation])])).all("img")[0]
        assert read(photo["src"]).format == kind
