"""JPEG decoded no larger than it has to be: libjpeg gives 1/2, 1/4 or 1/8 of a picture straight from its DCT blocks.

A block of 8 x 8 pixels is stored as 64 frequencies. Of a picture that will be made smaller anyway the high ones are
never turned into pixels: a 12-megapixel photo takes a sixth of the time. ``runtime.shrink`` does the rest.
"""

from __future__ import annotations

from PIL import Image, JpegImagePlugin


def reduce(image: Image.Image, to: tuple[int, int], *, grey: bool = False) -> int:
    """Have a picture that was opened, not loaded, decode to the smallest size that still covers ``to``.

    to: (width, height) as the file stores it, before EXIF orientation. grey: only the brightness is needed.
    Gives the side of the blocks of pixels, 2, 4 or 8, whose average each pixel of the reduced picture is, the
    picture filled up to whole blocks. 1 where nothing was changed: no JPEG, or one too small for half its size.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or any(
        full < 2 * least for full, least in zip(image.size, to, strict=True)
    ):
        return 1
    full = image.width
    drafted = image.draft("L" if grey else image.mode, to)
    return round(full / drafted[1][2]) if drafted else 1
