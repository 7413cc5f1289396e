"""The picture as the network saw it: the preprocessing's arithmetic undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.metadata import Preprocess


def seen(pixels: npt.NDArray[Any], rule: Preprocess) -> npt.NDArray[np.uint8]:
    """(1, C, H, W) or (1, H, W, C) to (H, W, 3): RGB, grey ones three times over."""
    return np.asarray(to_pictures(pixels, rule)[0])


def to_pictures(pixels: npt.NDArray[Any], rule: Preprocess) -> npt.NDArray[np.uint8]:
    """(n, ...) network inputs, normalised or pixels by the rule, to (n, H, W, 3), values beyond a picture's cut off."""
    planes = np.moveaxis(pixels, 1, 3) if rule.layout == "NCHW" else pixels
    pixelled = rule.input == "uint8"
    values = planes if pixelled else (planes * np.asarray(rule.std) + np.asarray(rule.mean)) / rule.scale
    whole = np.clip(np.round(values), 0, 255).astype(np.uint8)
    if rule.color == "L":
        return np.repeat(whole, 3, axis=3)
    return np.ascontiguousarray(whole[..., ::-1] if rule.color == "BGR" else whole)


def limits(rule: Preprocess) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What black, white and one grey level are in the network's input: three arrays that broadcast over it."""
    shape = (1, -1, 1, 1) if rule.layout == "NCHW" else (1, 1, 1, -1)
    mean, std = np.asarray(rule.mean, np.float32).reshape(shape), np.asarray(rule.std, np.float32).reshape(shape)
    return (0 - mean) / std, (255 * np.float32(rule.scale) - mean) / std, np.float32(rule.scale) / std
