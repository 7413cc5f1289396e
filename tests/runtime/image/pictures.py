"""What the tests of pictures share: seeded pixels, encoded files, files made by hand."""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from runtime.errors import EdgeZooError
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
