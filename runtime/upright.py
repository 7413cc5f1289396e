"""A picture as Pillow gives it -> upright, 8 bits a channel, opaque."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from runtime.errors import InvalidImage
from runtime.metadata import Color

UPRIGHT = {  # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Those that exchange width and height.
SIDEWAYS = {turn for code, turn in UPRIGHT.items() if code >= 5}


def coloured(image: Image.Image, color: Color, name: str) -> Image.Image:
    """A loaded picture as "L" or "RGB"; ``name`` is what errors call it. Raises InvalidImage."""
    picture, mode = _to_8_bit(image, name), "L" if color == "L" else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """The picture after one of UPRIGHT, itself where there is nothing to undo."""
    if turn is not None:
        picture = picture.transpose(turn)
        picture.info.clear()  # the orientation with it, or decoding the result would turn it again
    return picture


def orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8; 1 for a picture that does not say, or not legibly."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - the pixels are fine, and Pillow raises anything on a damaged EXIF block
        return 1


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """The picture as "L" or "RGB", transparency laid over white."""
    # Only a file's own colour key counts: Pillow leaves a stale one behind when a GIF is converted to RGB.
    if image.mode in ("L", "RGB") and (image.format is None or "transparency" not in image.info):
        return image
    if image.mode == "F":
        raise InvalidImage(f"{name}: floating-point pixels have no defined white: convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image, name)
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        picture = Image.new("RGB", layer.size, "white")
        picture.paste(layer, mask=layer)
        return picture
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    """0..65535 scaled to 0..255; Pillow's own conversion would clip at 255."""
    pixels = np.asarray(image)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise InvalidImage(f"{name}: pixels from {low} to {high} do not fit 16 bits: convert it to 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535  # 12-bit TIFF comes unscaled
    grey = ((pixels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero: Pillow inverts 8-bit TIFF only
        grey = 255 - grey
    if isinstance(image.info.get("transparency"), int):
        grey[pixels == image.info["transparency"]] = 255
    return Image.fromarray(grey)
