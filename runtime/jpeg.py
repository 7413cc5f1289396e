"""JPEG decoded no larger than it has to be: libjpeg gives 1/2, 1/4 or 1/8 of a picture straight from its DCT blocks.

A block of 8 x 8 pixels is stored as 64 frequencies. Of a picture that will be made smaller anyway the high ones are
never turned into pixels: a 12-megapixel photo takes a sixth of the time, and what is left is resized as ever.
"""

from __future__ import annotations

import math

from PIL import Image, JpegImagePlugin

MARGIN = 1.0
"""How many times the length that the resize wants a reduced side has at least."""

Box = tuple[float, float, float, float]


def reduce(image: Image.Image, to: tuple[int, int], *, grey: bool = False) -> Box | None:
    """Have a picture that was opened, not loaded, decode to the smallest size that still covers ``to``.

    to: (width, height) as the file stores it, before EXIF orientation. grey: only the brightness is needed.
    The box is where the whole picture lies in what ``load`` will give, in its pixels, (left, top, right, bottom): a
    side that the scale does not divide is rounded up. None where nothing was changed: no JPEG, or one too small for
    half its size.
    """
    wanted = math.ceil(MARGIN * to[0]), math.ceil(MARGIN * to[1])
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or any(
        full < 2 * least for full, least in zip(image.size, wanted, strict=True)
    ):
        return None
    drafted = image.draft("L" if grey else image.mode, wanted)
    return drafted[1] if drafted else None
