"""Where ``zoo explain`` writes, and how: whole files, or none."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import OutputNotWritable
from runtime.files import write

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

# ending -> Pillow's name of the format, and how it is to be written
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92}),
    ".jpeg": ("JPEG", {"quality": 92}),
    ".webp": ("WEBP", {"quality": 92}),
}


def destinations(images: Sequence[str], output: Path | None, word: str, ending: str) -> list[Path]:
    """A file for each picture: STEM_word.ending in the working folder, or in ``output`` if that is a folder.

    Or ``output`` alone, a file for all of them. Raises OutputNotWritable for what cannot be written, or is a source.
    """
    if output is not None and not output.is_dir():
        found = [output]
    else:
        found, taken = [], set[str]()
        for image in images:
            stem = f"{'stdin' if image == '-' else Path(image).stem}_{word}"
            name, number = stem, 2
            while name in taken:  # a/cat.jpg and b/cat.jpg
                name, number = f"{stem}_{number}", number + 1
            taken.add(name)
            found.append((output or Path()) / f"{name}{ending}")
    sources = {Path(image).resolve() for image in images if image != "-"}
    for path in found:
        check(path, (".npy",) if ending == ".npy" else tuple(FORMATS))
        if path.resolve() in sources:
            raise OutputNotWritable(f"{path}: is the picture that is explained: give another name")
    return found


def check(path: Path, endings: Sequence[str]) -> None:
    """Raise OutputNotWritable for a path that cannot be written to, before any work is done."""
    if path.suffix.lower() not in endings:
        raise OutputNotWritable(f"{path}: give a file name ending in {', '.join(endings)}, or a folder that exists")
    if path.is_dir():
        raise OutputNotWritable(f"{path}: is a folder: give a file name")
    if not path.parent.is_dir():
        raise OutputNotWritable(f"{path.parent}: no such folder: create it first")


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a picture in the format that its name ends in."""
    name, options = FORMATS[path.suffix.lower()]
    buffer = BytesIO()
    image.save(buffer, name, **options)
    write(path, buffer.getvalue())


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as .npy."""
    import numpy as np

    buffer = BytesIO()
    np.save(buffer, array)
    write(path, buffer.getvalue())
