"""Preprocessing against torchvision, and of the whole picture."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.errors import ImageTooLarge, InvalidInput
from runtime.image import MAX_PIXELS, preprocess, preprocess_whole
from runtime.metadata import Interpolation, Preprocess
from tests.runtime.image.pictures import INTERPOLATIONS, RED, noise, one_line, raw_rule


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


@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_uint8_rule_gives_the_pixels_themselves(color: str, layout: str) -> None:
    """Whatever the arithmetic: that is the graph's. As floats that nothing is done to, value for value."""
    picture = Image.fromarray(noise(30, 20))
    raw = raw_rule((12, 16), 18, color=color, layout=layout)
    rule = replace(raw, input="uint8", mean=(5.0,) * raw.channels, scale=1 / 255)
    got, whole = preprocess(picture, rule), preprocess_whole(picture, rule, shorter=18)
    assert (got.dtype, got.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(got, preprocess(picture, raw))
    np.testing.assert_array_equal(whole, preprocess_whole(picture, raw, shorter=18))
