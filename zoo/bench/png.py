"""The charts of a record as PNG files, drawn by resvg with the font that Pillow brings: the same on every machine."""

from __future__ import annotations

import copy
import tempfile
from io import BytesIO
from pathlib import Path

from runtime.errors import MissingDependency
from zoo import plot
from zoo.bench.charts import CHARTS
from zoo.bench.record import Record

SCALE = 2
"""Pixels per unit of a drawing."""

MOST_PIXELS = 16_000
"""Higher than this a picture is scaled down: hundreds of rows make a long chart, and viewers give up."""


def pngs(record: Record, folder: Path) -> list[Path]:
    """Write each chart that there is something to draw in to ``folder``/NAME.png; the files that were written.

    Light, on white, with twice the pixels of the page. Raises MissingDependency where resvg-py is not installed or
    there is no font to write with, and OutputNotWritable.
    """
    from runtime.files import write

    drawings = {name: draw(_legible(record), plot.LIGHT) for name, (_, draw, _) in CHARTS.items()}
    files = {folder / f"{name}.png": rasterise(drawing) for name, drawing in drawings.items() if drawing is not None}
    for path, data in files.items():
        write(path, data)
    return list(files)


def rasterise(drawing: str) -> bytes:
    """A drawing of `zoo.plot` in the colours of ``LIGHT`` as a PNG. Raises MissingDependency."""
    try:
        import resvg_py
    except ImportError as error:
        raise MissingDependency('pictures of charts need resvg: pip install "edgezoo[png]", or resvg-py') from error
    name, font = _font()
    height = float(drawing.partition(' height="')[2].partition('"')[0])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "font.ttf"
        path.write_bytes(font)
        # resvg leaves out, without a word, text in a font that it does not find: system-ui, or any in a bare container.
        # The machine's fonts are there for what is not Latin.
        picture = resvg_py.svg_to_bytes(
            svg_string=drawing, zoom=min(SCALE, MOST_PIXELS / height), background=plot.LIGHT.ground,
            font_files=[str(path)], font_family=name, sans_serif_family=name,
        )  # fmt: skip
    return bytes(picture)


def _font() -> tuple[str, bytes]:
    """The name and the file of the font that is part of Pillow."""
    from PIL import ImageFont

    try:
        face = ImageFont.load_default(12)
    except (ImportError, OSError):
        face = None
    if not isinstance(face, ImageFont.FreeTypeFont) or not isinstance(face.path, BytesIO):
        raise MissingDependency("pictures of charts need Pillow with FreeType: pip install --force-reinstall Pillow")
    return str(face.getname()[0]), face.path.getvalue()


def _legible(record: Record) -> Record:
    """The record with names that can be drawn: a letter that no font here has becomes "?"."""
    from runtime.explain.lettering import legible

    changed = copy.copy(record)
    changed["rows"] = [row | {"name": legible(row["name"], 12)[0]} for row in record["rows"]]
    return changed
