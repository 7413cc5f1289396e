"""Explanations made by hand, and what is to be found in their pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from runtime.explain.explanation import Explanation

Array = np.ndarray[Any, Any]


def made(
    rows: int = 7, columns: int = 7, *, at: tuple[int, int] = (2, 5), size: int = 64, **changes: Any
) -> Explanation:
    """A grey picture whose map has one peak."""
    values = np.zeros((rows, columns), np.float32)
    values[at] = 1
    given: dict[str, Any] = {
        "map": values, "method": "grad-cam", "layer": "relu2", "index": 3, "label": "tabby", "score": 0.541,
        "picture": np.full((size, size, 3), 128, np.uint8),
    }  # fmt: skip
    return Explanation(**given | changes)


def pixels(image: Image.Image) -> Array:
    """(height, width, 3) as whole numbers that can be subtracted."""
    return np.asarray(image.convert("RGB")).astype(int)


def inked(image: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Whether anything but paper is in (left, top, right, bottom)."""
    return bool((pixels(image.crop(box)) != 255).any())
