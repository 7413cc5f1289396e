"""The fast road of JPEGs: near the exact one where it applies, the exact one everywhere else."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from runtime.errors import ImageTooLarge, InvalidImage
from runtime.image import preprocess, preprocess_fast
from runtime.jpeg import reduce, without_end
from runtime.metadata import Preprocess
from tests.runtime.image.pictures import encode, noise, one_line, raw_rule

RULE = raw_rule((64, 64), 72)


def scene(width: int, height: int, color: str = "RGB") -> Image.Image:
    """Something smooth with edges, of which no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    planes = [200 * x, 255 * (y > 0.4) * (x < 0.7), 120 * y + 60 * (x + y > 1.2)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).convert(color)


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(image, "JPEG", quality=95, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(800, 600), (601, 803), (145, 1153)])
def test_near_the_exact_road_whichever_way_up(size: tuple[int, int], orientation: int) -> None:
    data = jpeg(scene(*size), orientation)
    exact, fast = preprocess(data, RULE), preprocess_fast(data, RULE)[0]
    assert exact.shape == fast.shape
    difference = np.abs(exact - fast)
    # A picture that is turned otherwise is 20 grey levels off and more.
    assert difference.mean() < 1.5
    assert difference.any(), "the fast road was taken"


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(8, 700), st.integers(8, 700)),
    resize=st.one_of(st.integers(16, 90), st.tuples(st.integers(16, 90), st.integers(16, 90))),
    orientation=st.integers(1, 8),
    color=st.sampled_from(["RGB", "L", "BGR"]),
)
def test_the_same_shape_and_place_as_the_exact_road(
    size: tuple[int, int], resize: int | tuple[int, int], orientation: int, color: str
) -> None:
    rule = raw_rule((16, 16), resize, color=color)
    data = jpeg(scene(*size), orientation)
    exact, fast = preprocess(data, rule), preprocess_fast(data, rule)[0]
    assert exact.shape == fast.shape
    # An edge of the scene that is half a pixel off changes the pixels on it alone.
    assert np.abs(exact - fast).mean() < 8


def test_decodes_no_more_than_it_needs() -> None:
    for least, block in ((375, 8), (376, 4), (751, 2), (1500, 2), (1501, 1)):
        with Image.open(io.BytesIO(jpeg(Image.new("RGB", (4000, 3000))))) as image:
            assert reduce(image, (least, least)) == block
            image.load()
            assert image.size == (4000 // block, 3000 // block)


@pytest.mark.parametrize("block", [2, 4, 8])
def test_a_reduced_picture_has_the_averages_of_blocks(block: int) -> None:
    """What ``runtime.shrink`` relies on; so it is in libjpeg-turbo, and would not be in libjpeg 7 and later."""
    data = jpeg(scene(640, 480, "L"))
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image, np.float64)
    with Image.open(io.BytesIO(data)) as image:
        assert reduce(image, (640 // block, 480 // block)) == block
        reduced = np.asarray(image, np.float64)
    averages = whole.reshape(480 // block, block, 640 // block, block).mean(axis=(1, 3))
    assert np.abs(averages - reduced).max() <= 1.5  # of rounding, and of the whole picture's clipping to 0 and 255


@pytest.mark.parametrize("size", [(143, 200), (100, 100), (72, 72), (20, 30)])
def test_small_pictures_take_the_exact_road(size: tuple[int, int]) -> None:
    data = jpeg(scene(*size))
    np.testing.assert_array_equal(preprocess(data, RULE), preprocess_fast(data, RULE)[0])


def test_the_nearest_pixel_is_not_told_from_averages() -> None:
    data, rule = jpeg(scene(800, 600)), replace(RULE, interpolation="nearest")
    np.testing.assert_array_equal(preprocess(data, rule), preprocess_fast(data, rule)[0])


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_formats_take_the_exact_road(file_format: str) -> None:
    data = encode(Image.fromarray(noise(400, 300)), file_format)
    np.testing.assert_array_equal(preprocess(data, RULE), preprocess_fast(data, RULE)[0])


def test_pictures_in_memory_take_the_exact_road(tmp_path: Path) -> None:
    for source in (noise(400, 300), Image.fromarray(noise(400, 300))):
        np.testing.assert_array_equal(preprocess(source, RULE), preprocess_fast(source, RULE)[0])
    opened = Image.open(io.BytesIO(jpeg(scene(800, 600))))
    np.testing.assert_array_equal(preprocess(opened, RULE), preprocess_fast(opened, RULE)[0])
    assert opened.size == (800, 600), "a picture of the caller's is left as it was"


def test_a_path_and_a_file_object_take_it_too(tmp_path: Path) -> None:
    data = jpeg(scene(800, 600))
    (tmp_path / "a.jpg").write_bytes(data)
    expected = preprocess_fast(data, RULE)[0]
    with (tmp_path / "a.jpg").open("rb") as file:
        for source in (tmp_path / "a.jpg", file):
            np.testing.assert_array_equal(preprocess_fast(source, RULE)[0], expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs(mode: str) -> None:
    data = jpeg(scene(640, 480).convert(mode))
    for color in ("RGB", "L"):
        rule = raw_rule((64, 64), 72, color=color)
        assert np.abs(preprocess(data, rule) - preprocess_fast(data, rule)[0]).mean() < 2


def test_progressive_and_subsampled_jpegs() -> None:
    for options in ({"progressive": True}, {"subsampling": 0}, {"subsampling": 2}):
        data = jpeg(scene(800, 600), **options)
        assert np.abs(preprocess(data, RULE) - preprocess_fast(data, RULE)[0]).mean() < 1.5


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(600, 800), (803, 601), (145, 1153)])
def test_what_lies_below_the_crop_is_not_read(size: tuple[int, int], subsampling: int) -> None:
    data = jpeg(Image.fromarray(noise(*size[::-1])), subsampling=subsampling)

    def rows(unread: bool) -> tuple[Image.Image, int]:
        file = io.BytesIO(data)
        image: Image.Image = Image.open(file)
        block = reduce(image, (72, 72))
        wanted = size[1] // block * 3 // 4
        image = without_end(image, file, block, wanted) if unread else image
        image.load()
        return image.crop((0, 0, image.width, wanted)), image.height * block

    (whole, all_rows), (part, fewer) = rows(False), rows(True)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(part))
    assert size[1] * 3 // 4 <= fewer < all_rows


def test_a_jpeg_without_its_last_bytes_is_refused_though_they_are_not_looked_at() -> None:
    data = jpeg(Image.fromarray(noise(600, 800)))
    for kept in (0.97, 0.999):
        for refusing in (preprocess, preprocess_fast):
            with pytest.raises(InvalidImage):
                refusing(data[: int(len(data) * kept)], RULE)


def test_damaged_and_huge_pictures_are_refused_as_on_the_exact_road() -> None:
    data = jpeg(Image.fromarray(noise(600, 800)))
    with pytest.raises(InvalidImage) as cut:
        preprocess_fast(data[: len(data) // 2], RULE)[0]
    one_line(cut, "image given as bytes")
    line = encode(Image.new("RGB", (30_000, 4)), "JPEG")
    with pytest.raises(ImageTooLarge) as large:
        preprocess_fast(line, replace(RULE, size=(256, 256), resize=2600))[0]
    one_line(large, "resized by the model's rule")


def test_uint8_rules_stay_integers() -> None:
    rule = Preprocess((64, 64), 72, mean=(0.5,) * 3, std=(0.5,) * 3, scale=1 / 255, layout="NHWC", input="uint8")
    assert preprocess_fast(jpeg(scene(800, 600)), rule)[0].dtype == np.uint8


def test_whether_it_differs_is_said() -> None:
    assert preprocess_fast(jpeg(scene(800, 600)), RULE)[1]
    for source in (jpeg(scene(100, 100)), noise(400, 300), encode(scene(800, 600), "PNG")):
        assert not preprocess_fast(source, RULE)[1]


def test_what_can_be_read_once_only_is_read_exactly() -> None:
    class Pipe:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self) -> bytes:
            data, self.data = self.data, b""
            return data

    data = jpeg(scene(800, 600))
    array, differs = preprocess_fast(Pipe(data), RULE)  # type: ignore[arg-type]
    assert not differs
    np.testing.assert_array_equal(array, preprocess(data, RULE))
