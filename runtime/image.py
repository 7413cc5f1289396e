"""From a picture to the network's input: decode, resize, crop, normalise, as ``Preprocess`` says."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.errors import EdgeZooError, ImageTooLarge, InvalidImage, InvalidInput
from runtime.jpeg import resized
from runtime.metadata import Color, Preprocess
from runtime.upright import SIDEWAYS, UPRIGHT, coloured, orientation, turned

if TYPE_CHECKING:
    import numpy.typing as npt

ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | Image.Image
    | np.ndarray[Any, np.dtype[np.uint8]]
    | BinaryIO
)

MAX_PIXELS = 178_956_970  # where Pillow, too, refuses a picture as a decompression bomb

# Pillow warns at half of MAX_PIXELS, which is enforced below. A filter per call would not be safe in threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Raster formats only: EPS would start Ghostscript, and document formats are a large surface for hostile files.
# MPO (several JPEGs in one file) opens as JPEG. AVIF came with Pillow 11.3. TGA has no signature: it is tried last.
_FORMATS = ["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF", "TGA"]
if find_spec("PIL.AvifImagePlugin") is None:
    _FORMATS.remove("AVIF")

# Pillow's lazy loading is not safe when threads share one picture; files and bytes need no lock.
_SHARED_PICTURE = threading.Lock()


def preprocess(source: ImageSource, rule: Preprocess) -> npt.NDArray[Any]:
    """The network's input for one picture: (1, C, H, W) or (1, H, W, C) by ``rule.layout``, C-contiguous.

    Resize and crop are torchvision's ``Resize`` and ``CenterCrop`` on PIL pictures, bit for bit. Every value is
    ``(pixel * scale - mean) / std`` rounded once to float32; for a ``rule.input`` of uint8 the pixels themselves, and
    the array may then be read-only. Raises what ``decode`` raises, and ImageTooLarge also where the resized picture
    would exceed MAX_PIXELS (1 x 30000 whose shorter side becomes 256: 7,680,000 rows).
    """
    name = describe_source(source)
    return _normalise(np.asarray(_crop(_resize(decode(source, rule.color), rule.resize, rule, name), rule)), rule)


def preprocess_fast(source: ImageSource, rule: Preprocess) -> tuple[npt.NDArray[Any], bool]:
    """As ``preprocess``, and whether grey levels may differ from its, by less than one on average.

    They do for a JPEG of at least twice the size that the rule resizes to, which is made smaller while it is decoded
    (``runtime.jpeg``); it can then be read again exactly.
    """
    name = describe_source(source)
    picture = _decode(source, rule.color, name, None if _read_once(source) else rule)
    if isinstance(picture, np.ndarray):
        return _normalise(picture, rule), True
    return _normalise(np.asarray(_crop(_resize(picture, rule.resize, rule, name), rule)), rule), False


def preprocess_whole(source: ImageSource, rule: Preprocess, *, shorter: int | None = None) -> npt.NDArray[Any]:
    """As ``preprocess``, without the rule's resize and crop: the whole picture, (1, C, H, W) or (1, H, W, C).

    shorter: the length in pixels that the shorter side is resized to, the aspect ratio kept; None keeps the
        picture's own size. Raises what ``preprocess`` raises, and InvalidInput for a ``shorter`` below 1.
    """
    if shorter is not None and shorter < 1:
        raise InvalidInput(f"shorter must be at least 1 pixel, not {shorter}")
    picture = decode(source, rule.color)
    if shorter is not None:
        picture = _resize(picture, shorter, rule, describe_source(source))
    return _normalise(np.asarray(picture), rule)


def decode(source: ImageSource, color: Color = "RGB") -> Image.Image:
    """One upright 8-bit picture of mode "RGB", or "L" where ``color`` is "L" ("BGR" decodes as "RGB").

    source: a path, the bytes of an image file, a binary file object (read from its start), a PIL picture (the frame
        it stands at), or a uint8 array of (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.

    EXIF orientation is applied (a damaged EXIF block is passed over, as viewers do), transparency is laid over white,
    16-bit grey is scaled to 8 bits, an animation or a document gives its first frame. The source is never changed;
    a PIL picture that needs no conversion is returned itself, a grey array may share its memory: copy before drawing.

    Raises InvalidInput (no such file, a folder, an array of another form, an unknown type), InvalidImage (damaged,
    truncated, empty, floating-point pixels), ImageTooLarge (more than MAX_PIXELS, found before decoding).
    """
    if color not in get_args(Color):
        raise InvalidInput(f"color {color!r}: choose one of {', '.join(get_args(Color))}")
    return cast("Image.Image", _decode(source, color, describe_source(source)))


def _decode(
    source: ImageSource, color: Color, name: str, fit: Preprocess | None = None
) -> Image.Image | npt.NDArray[np.uint8]:
    """The picture; its pixels where they are already resized and cropped by the rule ``fit``: on the fast road."""
    with _errors_about(name):
        if isinstance(source, Image.Image):
            _check_size(*source.size, name)
            with _SHARED_PICTURE:
                source.load()
                orientation(source)  # kept by Pillow from here on
            return _upright(source, color, name)
        if isinstance(source, np.ndarray):
            return _upright(_from_array(source, name), color, name)
        with _opened(source, name) as file:
            if not file.read(1):
                raise InvalidImage(f"{name}: empty, 0 bytes")
            # A file object, not its path: Pillow would map the file into memory and crash if it shrinks.
            image = Image.open(file, formats=_FORMATS)
            small = _resized_at_once(image, file, color, fit, name) if fit else None
            return _upright(image, color, name) if small is None else small


def describe_source(source: ImageSource) -> str:
    """What error messages call a source: its path where it has one, else how it was given."""
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        return path if path and path.isprintable() else repr(path)
    if isinstance(source, bytes | bytearray | memoryview | np.ndarray):
        return f"image given as {'an array' if isinstance(source, np.ndarray) else 'bytes'}"
    kind, path = ("a PIL image", "filename") if isinstance(source, Image.Image) else ("a file object", "name")
    known = getattr(source, path, "")
    return describe_source(known) if isinstance(known, str) and known else f"image given as {kind}"


def is_source(value: object) -> bool:
    """Whether this is one picture, in a form that ``decode`` takes, rather than several."""
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(value, one) or hasattr(value, "read")


def _read_once(source: ImageSource) -> bool:
    """Whether a source, a pipe say, gives its bytes one time only."""
    return hasattr(source, "read") and not (hasattr(source, "seekable") and source.seekable())


@contextmanager
def _errors_about(name: str) -> Iterator[None]:
    """Pillow raises nearly anything on hostile data; all of it becomes one line that names the source."""
    try:
        yield
    except EdgeZooError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{name}: {str(error).split(',')[0]}: scale it down first") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(f"{name}: not an image, or damaged; can be read: {', '.join(_FORMATS)}") from error
    except MemoryError as error:
        raise InvalidImage(f"{name}: not enough memory to decode it: scale it down first") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidImage(f"{name}: cannot be decoded ({reason}): damaged or incomplete, get it again") from error


@contextmanager
def _opened(source: ImageSource, name: str) -> Iterator[IO[bytes]]:
    """A seekable file over an encoded picture."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidInput(f"{name}: no such image: check the path") from error
        except (OSError, ValueError) as error:
            folder = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir may raise in its turn
            reason = "is a folder" if folder else f"cannot be opened ({getattr(error, 'strerror', None) or error})"
            raise InvalidInput(f"{name}: {reason}: give the path of one image file") from error
        with file:
            yield file if file.seekable() else BytesIO(file.read())  # a pipe is read once
    elif hasattr(source, "read"):
        stream = cast("BinaryIO", source)
        if hasattr(stream, "seekable") and stream.seekable():
            stream.seek(0)
        data = stream.read()
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidInput(f"{name}: read() gives {type(data).__name__}, not bytes: open the file with mode 'rb'")
        yield BytesIO(data)
    else:
        raise InvalidInput(f"{type(source).__name__}: give a path, bytes, a binary file, a PIL image or a uint8 array")


def _from_array(array: npt.NDArray[np.uint8], name: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        hint = "; values prepared for the network go to model.run" if array.dtype.kind == "f" else ""
        forms = "uint8 (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA"
        raise InvalidInput(f"{name}: {array.dtype} {array.shape}: give {forms}{hint}")
    height, width = array.shape[:2]
    _check_size(width, height, name)
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)


def _check_size(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise InvalidImage(f"{what}: {width} x {height}, no pixels")
    if width * height > MAX_PIXELS:
        size, limit = f"{width} x {height}, {width * height:,} pixels", f"{MAX_PIXELS:,}"
        raise ImageTooLarge(f"{what}: {size}, over the limit of {limit}: scale it down first")


def _upright(image: Image.Image, color: Color, name: str) -> Image.Image:
    _check_size(*image.size, name)
    image.load()
    turn = UPRIGHT.get(orientation(image))  # after load: Pillow turns TIFF by itself while loading
    return turned(coloured(image, color, name), turn)


def _resized_at_once(
    image: Image.Image, file: IO[bytes], color: Color, rule: Preprocess, name: str
) -> npt.NDArray[np.uint8] | None:
    """An opened JPEG, decoded to little more than it is resized to, resized, upright and cropped; None for others."""
    _check_size(*image.size, name)
    turn = UPRIGHT.get(orientation(image))
    stored = image.size if turn not in SIDEWAYS else image.size[::-1]
    target, size = _target(stored, rule.resize, name), rule.size
    to, size = (target, size[::-1]) if turn not in SIDEWAYS else (target[::-1], size)
    small = resized(image, file, to, size, rule.interpolation, color, name)
    if small is None:
        return None
    upright = small if turn is None else np.asarray(turned(Image.fromarray(small), turn))
    top, left = _corner((upright.shape[0], upright.shape[1]), rule)
    return upright[top : top + rule.size[0], left : left + rule.size[1]]


def _crop(resized: Image.Image, rule: Preprocess) -> Image.Image:
    # The whole picture, then the crop: Pillow's resize of a fractional box is not bit-equal.
    top, left = _corner((resized.height, resized.width), rule)
    return resized.crop((left, top, left + rule.size[1], top + rule.size[0]))


def _corner(size: tuple[int, int], rule: Preprocess) -> tuple[int, int]:
    """(top, left) of the crop in a picture of (height, width)."""
    return round((size[0] - rule.size[0]) / 2), round((size[1] - rule.size[1]) / 2)


def _resize(picture: Image.Image, to: int | tuple[int, int], rule: Preprocess, name: str) -> Image.Image:
    """To the length of the shorter side, or to (height, width), with the rule's filter."""
    return picture.resize(_target(picture.size, to, name), _filter(rule))


def _filter(rule: Preprocess) -> Image.Resampling:
    return Image.Resampling[rule.interpolation.upper()]


def _target(size: tuple[int, int], to: int | tuple[int, int], name: str) -> tuple[int, int]:
    """(width, height) of a picture of ``size`` when it is resized. Raises ImageTooLarge."""
    if isinstance(to, int):
        short, long = sorted(size)
        other = int(to * long / short)  # torchvision's expression, to the last bit
        width, height = (to, other) if size[0] <= size[1] else (other, to)
    else:
        height, width = to
    _check_size(width, height, f"{name}: {size[0]} x {size[1]} resized by the model's rule")
    return width, height


def _normalise(pixels: npt.NDArray[np.uint8], rule: Preprocess) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    pixels = pixels.reshape(height, width, rule.channels)
    pixels = pixels[..., ::-1] if rule.color == "BGR" else pixels
    if rule.input == "uint8":
        return np.ascontiguousarray(pixels if rule.layout == "NHWC" else pixels.transpose(2, 0, 1))[None]
    planes = np.empty((rule.channels, height, width), np.float32)
    for channel, table in enumerate(_tables(rule)):
        # "clip" never clips a uint8 index; it spares the buffer that "raise" needs.
        np.take(table, pixels[..., channel], out=planes[channel], mode="clip")
    return planes[None] if rule.layout == "NCHW" else np.ascontiguousarray(planes.transpose(1, 2, 0))[None]


@lru_cache(maxsize=64)
def _tables(rule: Preprocess) -> npt.NDArray[np.float32]:
    """(C, 256): the network's value for each pixel value, rounded once from float64."""
    mean, std = np.array(rule.mean)[:, None], np.array(rule.std)[:, None]
    tables: npt.NDArray[np.float32] = ((np.arange(256) * rule.scale - mean) / std).astype(np.float32)
    tables.setflags(write=False)
    return tables
