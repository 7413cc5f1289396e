"""Decoding against hand-made files and the EXIF and PNG specifications."""

from __future__ import annotations

import io
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from runtime.errors import InvalidImage
from runtime.image import decode, describe_source, is_source, preprocess
from tests.runtime.image.pictures import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    WHITE,
    Pixels,
    encode,
    noise,
    one_line,
    picture,
    png,
    raw_rule,
    skip_without_codec,
    tiff,
)

# Formats and sources

LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("TGA", {}),
    ("TGA", {"compression": "tga_rle"}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate", "big_tiff": True}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {"irreversible": False}),
    ("ICO", {"sizes": [(32, 24)]}),
]


@pytest.mark.parametrize(("file_format", "options"), LOSSLESS)
def test_lossless_formats_give_their_pixels_from_every_source(
    tmp_path: Path, file_format: str, options: dict[str, Any]
) -> None:
    pixels = noise(24, 32)
    data = encode(Image.fromarray(pixels), file_format, **options)
    path = tmp_path / "picture"  # the content decides, not the suffix
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), Image.open(path)):
        got = decode(source)
        assert got.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(got), pixels)


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "WEBP", "AVIF", "GIF"])
def test_lossy_formats_give_what_pillow_gives(file_format: str) -> None:
    skip_without_codec(file_format)
    data = encode(picture(24, 32).resize((64, 48)), file_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)


@pytest.mark.parametrize("first", [RED, BLUE])
@pytest.mark.parametrize(
    ("file_format", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {"quality": 100})],
)
def test_animations_and_documents_give_their_first_frame(
    file_format: str, options: dict[str, Any], first: tuple[int, int, int]
) -> None:
    skip_without_codec(file_format)
    frames = [Image.new("RGB", (16, 16), color) for color in (first, GREEN, BLACK)]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.asarray(decode(data)).reshape(-1, 3), [first] * 256, atol=3)


def test_a_pil_picture_gives_the_frame_it_stands_at() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN)]
    image = Image.open(io.BytesIO(encode(frames[0], "PNG", save_all=True, append_images=frames[1:])))
    image.seek(1)
    assert decode(image).getpixel((0, 0)) == GREEN


def test_file_objects_are_read_from_their_start() -> None:
    data = encode(picture(), "PNG")
    buffer = io.BytesIO(data)
    buffer.read()
    np.testing.assert_array_equal(np.asarray(decode(buffer)), noise(5, 7))
    only_read = SimpleNamespace(read=lambda: data)
    np.testing.assert_array_equal(np.asarray(decode(only_read)), noise(5, 7))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_path_to_a_pipe() -> None:
    end, start = os.pipe()
    try:
        with os.fdopen(start, "wb") as pipe:
            pipe.write(encode(picture(), "PNG"))
        np.testing.assert_array_equal(np.asarray(decode(f"/dev/fd/{end}")), noise(5, 7))
    finally:
        os.close(end)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_arrays(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    array[..., -1:] = 255 if shape[2:] == (4,) else array[..., -1:]
    expected = np.broadcast_to(array.reshape(5, 7, -1)[..., :3], (5, 7, 3))
    before = array.copy()
    np.testing.assert_array_equal(np.asarray(decode(array)), expected)
    np.testing.assert_array_equal(np.asarray(decode(array[::-1, ::-2])), expected[::-1, ::-2])  # a view, not contiguous
    np.testing.assert_array_equal(array, before)


def test_one_picture_or_several(tmp_path: Path) -> None:
    one = ["a.png", tmp_path, b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x"), np.zeros((2, 2), np.uint8)]
    assert all(is_source(value) for value in [*one, Image.new("L", (1, 1))])
    assert not any(is_source(value) for value in ([], ("a.png",), iter(["a.png"]), {"a.png"}, 3, None))


# Modes


def test_bgr_decodes_as_rgb_and_l_as_grey() -> None:
    assert decode(np.full((1, 1, 3), RED, np.uint8), "BGR").getpixel((0, 0)) == RED
    assert decode(np.full((1, 1, 3), RED, np.uint8), "L").mode == "L"
    grey = noise(3, 3, 1)[..., 0]
    np.testing.assert_array_equal(np.asarray(decode(encode(Image.fromarray(grey), "PNG"), "L")), grey)


ALPHA = np.array([0, 1, 64, 127, 128, 254, 255], np.uint8)
COLOR = np.array([0, 255, 10, 200, 77, 3, 128], np.uint8)
OVER_WHITE = (ALPHA / 255.0) * COLOR + (1 - ALPHA / 255.0) * 255


def rgba_row() -> Image.Image:
    return Image.fromarray(np.stack([COLOR, COLOR, COLOR, ALPHA], axis=-1)[None])


def la_row() -> Image.Image:
    return Image.merge("LA", (Image.fromarray(COLOR[None]), Image.fromarray(ALPHA[None])))


def palette_row(alpha_band: bool = False) -> Image.Image:
    index = Image.fromarray(np.arange(7, dtype=np.uint8)[None])
    image = Image.merge("PA", (index, Image.fromarray(ALPHA[None]))) if alpha_band else index.convert("P")
    if not alpha_band:
        image = Image.frombytes("P", (7, 1), bytes(range(7)))
    image.putpalette(np.repeat(COLOR, 3).tobytes())
    return image


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: np.asarray(rgba_row()), id="RGBA array"),
        pytest.param(rgba_row, id="RGBA"),
        pytest.param(lambda: encode(rgba_row(), "PNG"), id="RGBA png"),
        pytest.param(lambda: encode(rgba_row(), "WEBP", lossless=True, exact=True), id="RGBA webp"),
        pytest.param(lambda: encode(rgba_row(), "TIFF"), id="RGBA tiff"),
        pytest.param(lambda: encode(rgba_row(), "TGA"), id="RGBA tga"),
        pytest.param(la_row, id="LA"),
        pytest.param(lambda: encode(la_row(), "PNG"), id="LA png"),
        pytest.param(lambda: palette_row(alpha_band=True), id="PA"),
        pytest.param(lambda: encode(palette_row(), "PNG", transparency=ALPHA.tobytes()), id="P png with tRNS"),
    ],
)
@pytest.mark.parametrize("color", ["RGB", "L"])
def test_transparency_is_laid_over_white(source: Any, color: Any) -> None:
    got = np.asarray(decode(source(), color)).reshape(7, -1)
    np.testing.assert_allclose(got, np.broadcast_to(OVER_WHITE[:, None], got.shape), atol=0.51)


def test_premultiplied_transparency() -> None:
    # the division by alpha loses what premultiplying rounded away: one level in 64/255 is four in 255
    for image in (rgba_row().convert("RGBa"), la_row().convert("La")):
        got = np.asarray(decode(image, "L"))[0]
        np.testing.assert_allclose(got, OVER_WHITE, atol=1.5)


@pytest.mark.parametrize(
    ("image", "key", "expected"),
    [
        (Image.frombytes("P", (2, 1), b"\0\1"), 0, [WHITE, BLUE]),
        (Image.frombytes("L", (2, 1), b"\x20\x30"), 0x20, [WHITE, (0x30,) * 3]),
        (Image.frombytes("RGB", (2, 1), bytes((*RED, *BLUE))), RED, [WHITE, BLUE]),
        (Image.frombytes("1", (2, 1), b"\x40"), 0, [WHITE, WHITE]),
    ],
)
def test_a_files_transparent_colour_becomes_white(image: Image.Image, key: Any, expected: list[Any]) -> None:
    if image.mode == "P":
        image.putpalette(bytes((*RED, *BLUE)))
    data = encode(image, "PNG", transparency=key)
    assert np.asarray(decode(data))[0].tolist() == [list(color) for color in expected]
    assert np.asarray(decode(Image.open(io.BytesIO(data))))[0].tolist() == [list(color) for color in expected]


def test_a_stale_transparent_colour_is_no_transparency() -> None:
    # index 0 is transparent black, index 1 opaque black; Pillow leaves info["transparency"] = (0, 0, 0) on the RGB copy
    gif = Image.frombytes("P", (2, 1), b"\0\1")
    gif.putpalette(bytes(6))
    image = Image.open(io.BytesIO(encode(gif, "GIF", transparency=0, optimize=False))).convert("RGB")
    assert "transparency" in image.info
    assert np.asarray(decode(image))[0].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_one_bit() -> None:
    data = encode(Image.frombytes("1", (4, 1), b"\xa0"), "PNG")
    assert np.asarray(decode(data, "L"))[0].tolist() == [255, 0, 255, 0]
    assert np.asarray(decode(data))[0, :2].tolist() == [[255] * 3, [0] * 3]


SAMPLES = np.array([0, 128, 129, 257, 32767, 32768, 51400, 65406, 65407, 65535], np.uint16)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: png(10, 1, 16, 0, b"\0" + SAMPLES.astype(">u2").tobytes()), id="png"),
        pytest.param(lambda: encode(Image.fromarray(SAMPLES[None]), "TIFF"), id="tiff"),
        pytest.param(lambda: encode(Image.fromarray(SAMPLES.astype(">u2")[None]), "TIFF"), id="big-endian tiff"),
        pytest.param(lambda: tiff(10, 16, 1, SAMPLES.tobytes()), id="hand-made tiff"),
        pytest.param(lambda: tiff(10, 16, 0, (65535 - SAMPLES).tobytes()), id="tiff, white is zero"),
        pytest.param(lambda: b"P5 10 1 65535\n" + SAMPLES.astype(">u2").tobytes(), id="pgm"),
        pytest.param(lambda: Image.fromarray(SAMPLES[None]), id="I;16"),
        pytest.param(lambda: Image.frombytes("I;16L", (10, 1), SAMPLES.astype("<u2").tobytes()), id="I;16L"),
        pytest.param(lambda: Image.frombytes("I;16B", (10, 1), SAMPLES.astype(">u2").tobytes()), id="I;16B"),
        pytest.param(lambda: Image.fromarray(SAMPLES[None].astype(np.int32)), id="I"),
    ],
)
def test_sixteen_bits_are_scaled_not_clipped(source: Any) -> None:
    expected = [round(int(value) * 255 / 65535) for value in SAMPLES]
    assert np.asarray(decode(source(), "L"))[0].tolist() == expected
    assert np.asarray(decode(source()))[0, :, 2].tolist() == expected


def test_twelve_bit_tiff() -> None:
    assert np.asarray(decode(tiff(2, 12, 1, b"\xff\xf8\x00"), "L"))[0].tolist() == [255, round(0x800 * 255 / 4095)]


def test_transparent_grey_of_sixteen_bits() -> None:
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x1234, 0x1235), tRNS=struct.pack(">H", 0x1234))
    assert np.asarray(decode(data, "L"))[0].tolist() == [255, 0x12]


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (Image.new("I", (2, 2), 65536), "65536"),
        (Image.new("I", (2, 2), -1), "-1"),
        (Image.new("F", (2, 2), 0.5), "floating-point"),
    ],
)
def test_pixels_without_a_defined_white_are_refused(image: Image.Image, what: str) -> None:
    for source in (image, encode(image, "TIFF")):
        with pytest.raises(InvalidImage) as error:
            decode(source)
        one_line(error, what, "image given as", "convert it")


@pytest.mark.parametrize(
    ("image", "expected", "tolerance"),
    [
        (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), RED, 0),
        (Image.new("CMYK", (16, 16), (0, 0, 0, 127)), (128,) * 3, 0),
        (Image.new("YCbCr", (16, 16), (76, 85, 255)), RED, 2),
        (Image.new("HSV", (16, 16), (85, 255, 255)), GREEN, 0),
        (Image.new("RGBX", (16, 16), (*BLUE, 0)), BLUE, 0),
        (Image.new("RGB", (16, 16), (200, 30, 90)).convert("LAB"), (200, 30, 90), 3),  # one step of a* is 3 levels
    ],
)
def test_other_colour_spaces(image: Image.Image, expected: tuple[int, ...], tolerance: int) -> None:
    np.testing.assert_allclose(np.asarray(decode(image))[3, 3], expected, atol=tolerance)
    luma = np.dot(expected, (0.299, 0.587, 0.114))
    np.testing.assert_allclose(np.asarray(decode(image, "L"))[3, 3], luma, atol=tolerance + 1)


def test_cmyk_and_ycck_jpeg() -> None:
    cmyk = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(np.asarray(decode(cmyk))[8, 8], RED, atol=3)
    # Adobe stores inks inverted, and YCCK is the YCbCr of what those lack: cyan (179, 170, 1) for red ink.
    # Byte 11 of the Adobe marker tells the two apart.
    ycck = bytearray(encode(Image.new("CMYK", (16, 16), (255 - 179, 255 - 170, 255 - 1, 0)), "JPEG", quality=100))
    ycck[ycck.index(b"Adobe") + 11] = 2
    np.testing.assert_allclose(np.asarray(decode(bytes(ycck)))[8, 8], RED, atol=3)


# Orientation

# EXIF 2.3, tag 0x0112: the visual side of the stored row 0 and of the stored column 0
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(upright: Pixels, orientation: int) -> Pixels:
    row, column = SIDES[orientation]
    stored = upright if row in ("top", "bottom") else upright.swapaxes(0, 1)
    stored = stored[::-1] if row in ("bottom", "right") else stored
    return stored[:, ::-1] if column in ("bottom", "right") else stored


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 3),
    ],
)
def test_orientation_is_applied_once(
    tmp_path: Path, orientation: int, file_format: str, options: dict[str, Any], tolerance: int
) -> None:
    upright = noise(2, 3, seed=4).repeat(8, axis=0).repeat(8, axis=1)
    path = tmp_path / "picture"
    image = Image.fromarray(np.ascontiguousarray(as_stored(upright, orientation)))
    image.save(path, file_format, exif=exif_of(orientation), **options)

    loaded = Image.open(path)
    loaded.load()
    for source in (path, path.read_bytes(), Image.open(path), loaded):
        got = decode(source)
        np.testing.assert_allclose(np.asarray(got, int), np.asarray(upright, int), atol=tolerance)
        assert np.array_equal(np.asarray(decode(got)), np.asarray(got))  # decoding twice does not turn twice
        grey = decode(source, "L")
        np.testing.assert_array_equal(np.asarray(grey), np.asarray(got.convert("L")))


def test_orientation_of_a_palette_and_of_sixteen_bits() -> None:
    upright = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)
    stored = np.ascontiguousarray(as_stored(upright, 6))
    palette = Image.frombytes("P", (2, 3), stored.tobytes())
    palette.putpalette(np.repeat(np.arange(6, dtype=np.uint8) * 40, 3).tobytes())
    deep = Image.fromarray(stored.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(decode(encode(palette, "PNG", exif=exif_of(6)), "L")), upright * 40)
    assert np.array_equal(np.asarray(decode(encode(deep, "PNG", exif=exif_of(6)), "L")), upright)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\1" * 40]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_hide_the_picture(exif: bytes) -> None:
    pixels = noise(2, 2)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    np.testing.assert_array_equal(np.asarray(decode(png(2, 2, 8, 2, rows, eXIf=exif))), pixels)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_undefined_orientation_is_none(orientation: int) -> None:
    data = encode(picture(), "PNG", exif=exif_of(orientation))
    np.testing.assert_array_equal(np.asarray(decode(data)), noise(5, 7))


def test_given_pictures_are_not_changed() -> None:
    image = palette_row()
    image.info["transparency"] = ALPHA.tobytes()
    before = image.mode, dict(image.info), image.tobytes(), image.getpalette()
    decode(image)
    assert (image.mode, dict(image.info), image.tobytes(), image.getpalette()) == before
    upright = picture()
    assert decode(upright) is upright


def test_names_of_sources(tmp_path: Path) -> None:
    path = tmp_path / "é.png"
    picture().save(path)
    assert describe_source(path) == describe_source(str(path)) == str(path)
    assert describe_source(Image.open(path)) == str(path)
    with path.open("rb") as file:
        assert describe_source(file) == str(path)
    assert (
        describe_source(b"")
        == describe_source(bytearray())
        == describe_source(memoryview(b""))
        == "image given as bytes"
    )
    assert describe_source(io.BytesIO()) == "image given as a file object"
    assert describe_source(picture()) == "image given as a PIL image"
    assert describe_source(noise(1, 1)) == "image given as an array"
    assert describe_source("two\nlines") == "'two\\nlines'"
    assert describe_source("") == "''"


# Threads


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "GIF"])
def test_eight_threads_get_the_same_picture(tmp_path: Path, file_format: str) -> None:
    path = tmp_path / "picture"
    options = {} if file_format == "GIF" else {"exif": exif_of(6)}
    picture(60, 80).save(path, file_format, **options)
    rule = raw_rule((32, 32), 40)
    expected = preprocess(path, rule)
    for _ in range(10):
        shared = Image.open(path)  # not loaded yet: the threads meet in Pillow's lazy loading
        sources = [path, path.read_bytes(), shared, shared, shared, shared, shared, shared]
        barrier = threading.Barrier(len(sources))

        def work(source: Any, barrier: threading.Barrier = barrier) -> npt.NDArray[np.float32]:
            barrier.wait()
            return preprocess(source, rule)

        with ThreadPoolExecutor(len(sources)) as pool:
            for got in pool.map(work, sources):
                np.testing.assert_array_equal(got, expected)
