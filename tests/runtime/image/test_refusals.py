"""What is too large or no picture is refused in one line, and costs nothing."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from runtime import image as image_module
from runtime.errors import ImageTooLarge, InvalidImage, InvalidInput
from runtime.image import MAX_PIXELS, decode, preprocess
from tests.runtime.image.pictures import encode, one_line, picture, png, raw_rule, skip_without_codec, tiff

# Limits


def oversized() -> dict[str, bytes]:
    """Small files whose headers promise far more than MAX_PIXELS."""
    jpeg = bytearray(encode(picture(16, 16), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65000, 65000)
    gif = bytearray(encode(picture(16, 16), "GIF"))
    struct.pack_into("<HH", gif, 6, 65535, 65535)
    bmp = bytearray(encode(picture(16, 16), "BMP"))
    struct.pack_into("<ii", bmp, 18, 50000, 50000)
    tga = bytearray(encode(picture(16, 16), "TGA"))
    struct.pack_into("<HH", tga, 12, 50000, 50000)
    lossless = b"VP8L" + struct.pack("<IBIx", 5, 0x2F, 16382 | 16382 << 14)
    return {
        "PNG": png(50000, 50000, 8, 2, b""),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "TGA": bytes(tga),
        "PPM": b"P6 50000 50000 255\n" + b"\0" * 64,
        "WEBP": b"RIFF" + struct.pack("<I", 4 + len(lossless)) + b"WEBP" + lossless,
        "TIFF": tiff(65535, 8, 1, b"\0" * 64).replace(
            struct.pack("<HHII", 257, 3, 1, 1), struct.pack("<HHII", 257, 3, 1, 65535)
        ),
    }


def decoding(*_: object) -> None:
    pytest.fail("decoding began")


@pytest.mark.parametrize("pillows_own", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize("file_format", oversized())
def test_too_large_is_refused_from_the_header(
    file_format: str, pillows_own: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_own)  # a program may have switched Pillow's limit off
    path = tmp_path / "bomb.png"
    path.write_bytes(oversized()[file_format])
    with pytest.raises(ImageTooLarge) as error:
        decode(path)
    one_line(error, str(path), "pixels", "limit")
    assert f"{MAX_PIXELS}" in str(error.value).replace(",", "")


def test_too_large_arrays_and_pil_pictures_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.broadcast_to(np.uint8(0), (20000, 20000, 3))  # three strides of 0: one byte
    monkeypatch.setattr(Image, "fromarray", decoding)
    with pytest.raises(ImageTooLarge) as error:
        decode(array)
    one_line(error, "20000 x 20000", "400,000,000", "178,956,970")
    monkeypatch.undo()
    lazy = Image.open(io.BytesIO(encode(picture(), "PPM")))
    lazy._size = (20000, 20000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    with pytest.raises(ImageTooLarge):
        decode(lazy)


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "MAX_PIXELS", 35)
    for too_large, allowed in ((picture(6, 6), picture(5, 7)), (picture(1, 36), picture(35, 1))):
        for form in (lambda image: image, np.asarray, lambda image: encode(image, "PNG")):
            assert decode(form(allowed)).size == allowed.size
            with pytest.raises(ImageTooLarge):
                decode(form(too_large))
    with pytest.raises(ImageTooLarge):
        preprocess(picture(5, 7), raw_rule((6, 6), (6, 6)))


QUIET = """
import sys, warnings
from PIL import Image, ImageFile
before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.WARN_POSSIBLE_FORMATS
warnings.simplefilter("error", Image.DecompressionBombWarning)
from runtime.errors import InvalidImage
from runtime.image import MAX_PIXELS, decode
assert MAX_PIXELS == 2 * before[0]
assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.WARN_POSSIBLE_FORMATS) == before
try:
    decode(sys.stdin.buffer)
except InvalidImage as error:
    print(error)
"""


def test_no_bomb_warning_below_the_limit_and_no_other_global_of_pillow_changes() -> None:
    # 1 bit, 100 megapixels, truncated after the header: reaches the decoder, but costs nothing
    run = subprocess.run(
        [sys.executable, "-c", QUIET], input=png(10000, 10000, 1, 0, b""), capture_output=True, check=True
    )
    assert b"truncated" in run.stdout
    assert b"bomb" not in run.stdout + run.stderr


# What is no picture


@pytest.mark.parametrize(
    "file_format", ["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF", "TGA"]
)
def test_half_a_file_is_an_error(tmp_path: Path, file_format: str) -> None:
    skip_without_codec(file_format)
    data = encode(picture(90, 120), file_format)
    path = tmp_path / "half.jpg"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidImage) as error:
        decode(path)
    one_line(error, str(path), "damaged")
    assert decode(data).width > 0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"This is a text file, whatever it is called.\n", "not an image"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"P1", "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        (encode(Image.new("RGB", (4, 4)), "PCX"), "not an image"),
    ],
)
def test_files_that_are_no_picture(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "image given as bytes"), (io.BytesIO(content), "a file object")):
        with pytest.raises(InvalidImage) as error:
            decode(source)
        one_line(error, name, what)


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on the damage
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_raises_anything_but_our_errors(data: st.DataObject) -> None:
    damaged = bytearray(
        encode(picture(9, 9), data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "ICO", "TGA"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with mock.patch.object(image_module, "MAX_PIXELS", 1_000_000):  # a damaged size must not cost memory here
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except InvalidImage as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nowhere.jpg", "no such image"),
        ("", "is a folder"),
        ("x" * 300, "cannot be opened"),
        ("a\0b", "cannot be opened"),
    ],
)
def test_paths_that_cannot_be_opened(tmp_path: Path, name: str, what: str) -> None:
    for source in (tmp_path / name, f"{tmp_path}/{name}"):
        with pytest.raises(InvalidInput) as error:
            decode(source)
        one_line(error, str(tmp_path), what)


def test_a_path_below_a_file_and_an_empty_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="no such image"):
        decode(tmp_path / "file" / "picture.png")
    with pytest.raises(InvalidInput, match="folder"):
        decode("")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encode(picture(), "PNG"))
    path.chmod(0)
    with pytest.raises(InvalidInput, match="cannot be opened") as error:
        decode(path)
    one_line(error, str(path))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), np.uint16),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_arrays_of_another_form(array: Any) -> None:
    with pytest.raises(InvalidInput) as error:
        decode(array)
    one_line(error, "image given as an array", str(array.dtype), "uint8 (H, W)")
    assert ("model.run" in str(error.value)) == (array.dtype == np.float32)


@pytest.mark.parametrize(
    "empty",
    [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 0), np.uint8), Image.new("RGB", (0, 3)), Image.new("L", (3, 0))],
)
def test_pictures_without_pixels(empty: Any) -> None:
    with pytest.raises(InvalidImage, match="no pixels"):
        decode(empty)


@pytest.mark.parametrize("source", [None, 3, ["a.png"], object()])
def test_things_that_are_no_source(source: Any) -> None:
    with pytest.raises(InvalidInput, match="give a path") as error:
        decode(source)
    one_line(error, type(source).__name__)


def test_other_misuse(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'rb'"):
        decode(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="RGB, BGR, L"):
        decode(picture(), "CMYK")  # type: ignore[arg-type]
    closed = Image.open(io.BytesIO(encode(picture(), "PNG")))
    closed.close()
    with pytest.raises(InvalidImage, match="cannot be decoded"):
        decode(closed)


def test_an_exhausted_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(InvalidImage, match="not enough memory"):
        decode(encode(picture(), "PNG"))
