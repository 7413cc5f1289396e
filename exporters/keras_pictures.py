"""Pictures for verifying a Keras network: prepared by Keras Applications' own code, or by the rule worked out anew.

Nothing of ``runtime.image`` is used here: a rule that is carried out wrongly there must not be carried out wrongly on
both sides of the comparison. Resize and crop are torchvision's, the arithmetic is float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.source import FloatArray, Recipe
from runtime.errors import InvalidInput
from runtime.metadata import Preprocess


def transform(recipe: Recipe, rule: Preprocess | None) -> Callable[[Path], FloatArray]:
    """From a picture file to (1, C, H, W): ``preprocess_input`` of "keras:NAME", for other builders the rule.

    rule: the recipe's at the network's size; None where the input is no picture, then there is nothing to call.
    """
    if rule is None:
        return _no_picture
    library, _, name = recipe.builder.partition(":")
    if library != "keras" or recipe.preprocess is None or recipe.own_preprocess:
        return lambda path: by_rule(path, rule)
    import keras

    module = sys.modules[getattr(keras.applications, name).__module__]

    def own(path: Path) -> FloatArray:
        if rule.resize == rule.size:  # Keras' own way, the only one it has
            mode = "grayscale" if rule.color == "L" else "rgb"
            picture = keras.utils.load_img(
                path, color_mode=mode, target_size=rule.size, interpolation=rule.interpolation
            )
            pixels = keras.utils.img_to_array(picture)
        else:
            pixels = _pixels(path, rule).astype(np.float32)
        values = module.preprocess_input(np.array(pixels, dtype=np.float32))
        return np.asarray(values, dtype=np.float32).transpose(2, 0, 1)[np.newaxis]

    return own


def _no_picture(path: Path) -> FloatArray:
    raise InvalidInput(f"{path}: the network takes no pictures")


def by_rule(path: Path, rule: Preprocess) -> FloatArray:
    """(1, C, H, W), every step as ``Preprocess`` describes it."""
    pixels = _pixels(path, rule)
    if rule.color == "BGR":
        pixels = np.flip(pixels, axis=2)
    values = (pixels * np.float64(rule.scale) - np.array(rule.mean, np.float64)) / np.array(rule.std, np.float64)
    return np.asarray(np.moveaxis(values, 2, 0)[np.newaxis], dtype=np.float32)


def _pixels(path: Path, rule: Preprocess) -> Any:
    """(H, W, C) float64, 0..255, RGB or grey, resized and cropped."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("L" if rule.color == "L" else "RGB")
    width, height = picture.size
    if not isinstance(rule.resize, int):
        height, width = rule.resize
    elif width <= height:  # the shorter side gets the length, the other is rounded down
        height, width = int(rule.resize * height / width), rule.resize
    else:
        height, width = rule.resize, int(rule.resize * width / height)
    resized = picture.resize((width, height), getattr(Image.Resampling, rule.interpolation.upper()))
    top, left = round((height - rule.size[0]) / 2), round((width - rule.size[1]) / 2)
    array = np.asarray(resized, np.float64).reshape(height, width, rule.channels)
    return array[top : top + rule.size[0], left : left + rule.size[1]]
