"""Decoding against hand-made files and the EXIF and PNG specifications; preprocessing against torchvision."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from runtime import image as image_module
from runtime.errors import EdgeZooError, ImageTooLarge, InvalidImage, InvalidInput
from runtime.image import MAX_PIXELS, decode, describe_source, is_source, preprocess, preprocess_whole
from runtime.metadata import Interpolation, Preprocess

Pixels = npt.NDArray[np.uint8]

INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(height: int = 5, width: int = 7) -> Image.Image:
    return Image.fromarray(noise(height, width))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def raw_rule(size: tuple[int, int], resize: int | tuple[int, int], **options: Any) -> Preprocess:
    """A rule whose result is the pixel values themselves."""
    channels = 1 if options.get("color") == "L" else 3
    return Preprocess(size, resize, mean=(0.0,) * channels, std=(1.0,) * channels, **options)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG by the specification; ``rows`` is one filter byte and the samples per row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(width: int, bits: int, photometric: int, row: bytes) -> bytes:
    """A one-row grey TIFF by the specification."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    padded = row + b"\0" * (len(row) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def skip_without_codec(file_format: str) -> None:
    if file_format == "AVIF" and (find_spec("PIL.AvifImagePlugin") is None or not features.check("avif")):
        pytest.skip("this Pillow has no AVIF")


def one_line(error: pytest.ExceptionInfo[EdgeZooError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# Preprocessing


@pytest.fixture(scope="module")
def torchvision() -> SimpleNamespace:
    import torch
    from torchvision import transforms

    torch.set_num_threads(1)
    return SimpleNamespace(transforms=transforms, modes=transforms.InterpolationMode)


@settings(max_examples=300, deadline=None)
@given(
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    extra=st.one_of(st.integers(0, 20), st.tuples(st.integers(0, 20), st.integers(0, 20))),
    interpolation=st.sampled_from(INTERPOLATIONS),
    color=st.sampled_from(["RGB", "L"]),
    seed=st.integers(0, 5),
)
def test_resize_and_crop_are_torchvisions_to_the_bit(
    torchvision: SimpleNamespace,
    source: tuple[int, int],
    crop: tuple[int, int],
    extra: int | tuple[int, int],
    interpolation: Interpolation,
    color: str,
    seed: int,
) -> None:
    image = Image.fromarray(noise(*source, seed=seed))
    resize = max(crop) + extra if isinstance(extra, int) else (crop[0] + extra[0], crop[1] + extra[1])
    mode = torchvision.modes(interpolation)
    resized = torchvision.transforms.Resize(resize, interpolation=mode)(image.convert(color))
    expected = np.asarray(torchvision.transforms.CenterCrop(crop)(resized)).reshape(*crop, -1)

    got = preprocess(image, raw_rule(crop, resize, interpolation=interpolation, color=color, layout="NHWC"))

    np.testing.assert_array_equal(got[0], expected)


def test_every_interpolation_of_torchvision_has_a_name_here(torchvision: SimpleNamespace) -> None:
    # nearest-exact is what Pillow's nearest already does
    assert {mode.value for mode in torchvision.modes} - {"nearest-exact"} == set(INTERPOLATIONS)


@pytest.mark.parametrize("resize", [256, 232, (224, 224), (299, 240)])
def test_values_are_torchvisions_after_normalisation(
    torchvision: SimpleNamespace, resize: int | tuple[int, int]
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = Image.fromarray(noise(301, 417))
    transforms = torchvision.transforms
    steps = [transforms.Resize(resize), transforms.CenterCrop(224), transforms.ToTensor()]
    expected = transforms.Compose([*steps, transforms.Normalize(mean, std)])(image).numpy()

    got = preprocess(image, Preprocess((224, 224), resize, mean, std, scale=1 / 255))

    # absolute: near the mean, torchvision's own float32 subtraction has no relative accuracy left
    np.testing.assert_allclose(got[0], expected, rtol=1e-6, atol=1e-6)


def test_values_are_the_formula_rounded_once() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rule = Preprocess((16, 16), (16, 16), (0.1307,), (0.3081,), color="L", scale=1 / 255)
    exact = np.array([(value * (1 / 255) - 0.1307) / 0.3081 for value in range(256)])

    got = preprocess(grey, rule).ravel()

    assert np.all(np.abs(got - exact) <= np.spacing(np.abs(got)) / 2)


def test_colour_order_and_layout() -> None:
    pixels = noise(6, 4)
    means = {"mean": (1.0, 2.0, 3.0), "std": (1.0, 2.0, 4.0)}
    for color, ordered in (("RGB", pixels), ("BGR", pixels[..., ::-1])):
        expected = (ordered.astype(np.float64) - means["mean"]) / means["std"]
        for layout in ("NHWC", "NCHW"):
            got = preprocess(pixels, Preprocess((6, 4), (6, 4), color=color, layout=layout, **means))  # type: ignore[arg-type]
            assert got.shape == ((1, 6, 4, 3) if layout == "NHWC" else (1, 3, 6, 4))
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            np.testing.assert_array_equal(got[0] if layout == "NHWC" else got[0].transpose(1, 2, 0), expected)


def test_grey_rule_on_a_colour_picture_has_one_channel() -> None:
    got = preprocess(np.full((4, 4, 3), RED, np.uint8), raw_rule((4, 4), 4, color="L"))
    assert got.shape == (1, 1, 4, 4)
    assert np.all(got == 76)  # 0.299 * 255, ITU-R 601


def test_rules_do_not_mix_and_results_are_not_shared() -> None:
    pixels = np.full((2, 2, 3), 10, np.uint8)
    plain, scaled = raw_rule((2, 2), 2), raw_rule((2, 2), 2, scale=0.5)
    preprocess(pixels, plain)[...] = 99
    assert np.all(preprocess(pixels, scaled) == 5)
    assert np.all(preprocess(pixels, plain) == 10)


def test_a_strip_that_would_grow_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ImageTooLarge) as error:
        preprocess(Image.new("RGB", (1, 30000)), raw_rule((224, 224), 256))
    one_line(error, "1 x 30000", "256 x 7680000", f"{MAX_PIXELS:,}")
    assert preprocess(Image.new("RGB", (1, 3000)), raw_rule((8, 8), 8)).shape == (1, 3, 8, 8)


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


# ---- the whole picture


def test_the_whole_picture_keeps_its_size_and_is_normalised_by_the_rule() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    rule = Preprocess(size=(8, 8), resize=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), scale=1 / 255)
    whole = preprocess_whole(pixels, rule)
    assert (whole.shape, whole.dtype) == ((1, 3, 13, 17), np.float32)
    expected = (pixels / 255 - np.array(rule.mean)) / np.array(rule.std)
    np.testing.assert_allclose(whole[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)
    last = preprocess_whole(
        pixels, replace(rule, layout="NHWC", color="BGR", mean=(0.6, 0.5, 0.4), std=(0.4, 0.3, 0.2))
    )
    np.testing.assert_array_equal(last[0].transpose(2, 0, 1)[::-1], whole[0])


@pytest.mark.parametrize(("size", "shape"), [((30, 20), (8, 12)), ((20, 30), (12, 8)), ((20, 20), (8, 8))])
def test_the_whole_picture_resized_is_what_the_rule_would_crop(size: tuple[int, int], shape: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    rule = Preprocess(size=(8, 8), resize=8, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bicubic")
    whole = preprocess_whole(picture, rule, shorter=8)
    assert whole.shape[2:] == shape
    top, left = ((side - 8) // 2 for side in shape)
    np.testing.assert_array_equal(whole[:, :, top : top + 8, left : left + 8], preprocess(picture, rule))


def test_the_whole_picture_is_not_blown_up_beyond_the_limit() -> None:
    rule = Preprocess(size=(8, 8), resize=8, mean=(0.0,), std=(1.0,), color="L")
    with pytest.raises(ImageTooLarge, match="resized by the model's rule"):
        preprocess_whole(np.zeros((1, 30000), np.uint8), rule, shorter=256)
    with pytest.raises(InvalidInput, match="shorter must be at least 1 pixel, not 0"):
        preprocess_whole(np.zeros((9, 9), np.uint8), rule, shorter=0)


def test_one_picture_or_several(tmp_path: Path) -> None:
    one = ["a.png", tmp_path, b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x"), np.zeros((2, 2), np.uint8)]
    assert all(is_source(value) for value in [*one, Image.new("L", (1, 1))])
    assert not any(is_source(value) for value in ([], ("a.png",), iter(["a.png"]), {"a.png"}, 3, None))
