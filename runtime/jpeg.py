"""JPEG decoded no larger than it has to be: libjpeg gives 1/2, 1/4 or 1/8 of a picture straight from its DCT blocks.

A block of 8 x 8 pixels is stored as 64 frequencies. Of a picture that will be made smaller anyway the high ones are
never turned into pixels: a 12-megapixel photo takes a sixth of the time. ``runtime.shrink`` does the rest. What lies
below the rows that the network sees is not read at all.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, JpegImagePlugin

from runtime.metadata import Color
from runtime.shrink import KERNELS, rows_read, shrink
from runtime.upright import coloured

if TYPE_CHECKING:
    import numpy.typing as npt

_SEQUENTIAL = (0xC0, 0xC1)  # frame headers (ITU T.81, table B.1) of pictures that are stored row by row
_FIRST_SCAN = 0xDA


def resized(
    image: Image.Image,
    file: IO[bytes],
    to: tuple[int, int],
    size: tuple[int, int],
    interpolation: str,
    color: Color,
    name: str,
) -> npt.NDArray[np.uint8] | None:
    """A JPEG resized to ``to`` while it is decoded, of which the middle is wanted; None for what has to be read whole.

    image: as it was opened from ``file``, not loaded yet. to, size: (width, height) of the picture and of its middle,
    as the file stores it, before EXIF orientation. name: what errors call it.
    Gives (height, width[, 3]) uint8: the middle, and as many rows and columns more on either side, even numbers, so
    that the crop still rounds as it does in the whole.
    """
    full = image.size
    if interpolation not in KERNELS or size[0] > to[0] or size[1] > to[1]:
        return None
    block = reduce(image, to, grey=color == "L")
    if block == 1:
        return None
    margin = (to[0] - size[0]) // 4 * 2, (to[1] - size[1]) // 4 * 2
    image = without_end(image, file, block, rows_read(full[1], block, to[1], interpolation, margin[1]))
    image.load()
    return shrink(np.asarray(coloured(image, color, name)), full, block, to, interpolation, margin)


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


def without_end(image: Image.Image, file: IO[bytes], block: int, rows: int) -> Image.Image:
    """A reduced picture whose first ``rows`` rows alone are decoded, and some more; itself where that saves nothing.

    image: what ``reduce`` gave ``block`` for. file: what it was opened from, from its start.
    The codes of a JPEG have to be read one after another, but not to their end: to Pillow the picture is given as if
    it were no taller. What lies behind is passed over in search of the file's end, so that a file that was cut off
    is still found to be.
    """
    frame = _frame(file)
    if frame is None:
        return image
    place, unit = frame
    height = (rows * block + unit + 7) // 8 * 8  # a unit more: colours may be told from the row below, too
    if height >= image.height * block:
        return image
    shorter = Image.open(_Altered(file, place, height.to_bytes(2, "big")), formats=["JPEG"])  # type: ignore[arg-type]
    shorter.draft(image.mode, (shorter.width // block, height // block))
    return shorter if shorter.size == (image.width, height // block) else image


def _frame(file: IO[bytes]) -> tuple[int, int] | None:
    """Where a JPEG has its height, two bytes, and the rows it stores together; None if it is not stored row by row."""
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != _FIRST_SCAN:
        length = int.from_bytes(head[2:], "big") - 2
        if head[1] in _SEQUENTIAL:
            place = file.tell() + 1
            sampling = file.read(length)[7::3]  # of each channel: across and down, four bits each
            return place, 8 * max(factors & 15 for factors in sampling)
        file.seek(length, 1)
    return None


class _Altered:
    """A file to read whose bytes at one place are others; a picture of megabytes is not copied for two bytes."""

    def __init__(self, file: IO[bytes], place: int, value: bytes) -> None:
        self._file, self._place, self._value = file, place, value
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        first = self._file.tell()
        data = self._file.read(size)
        start, stop = (min(max(place - first, 0), len(data)) for place in (self._place, self._place + len(self._value)))
        if start == stop:
            return data
        value = self._value[first + start - self._place : first + stop - self._place]
        return data[:start] + value + data[stop:]
