"""The charts as pictures: their size, their ground, and letters even where the machine has no font."""

from __future__ import annotations

import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from runtime.errors import MissingDependency, OutputNotWritable
from tests.zoo.bench.records import make_record
from zoo import plot
from zoo.bench import png

NAMES = ["alexnet", "vgg16", "mobilenet_v2"]


def _ink(data: bytes) -> int:
    """Pixels that are dark."""
    return int((np.asarray(Image.open(BytesIO(data)).convert("L")) < 128).sum())


def test_each_chart_is_a_picture_on_white_of_twice_its_size(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    record = make_record(NAMES)
    files = png.pngs(record, tmp_path)
    assert [file.name for file in files] == ["latency-accuracy.png", "size-latency.png", "distributions.png"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for file, (_, draw, _) in zip(files, png.CHARTS.values(), strict=True):
        width, height = re.findall(r' (?:width|height)="(\d+)"', draw(record, plot.LIGHT) or "")[:2]
        with Image.open(file) as picture:
            assert picture.size == (2 * int(width), 2 * int(height))
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
        assert tuple(bytes.fromhex(plot.LIGHT.series[0][1:])) in colours


def test_the_same_record_gives_the_same_pictures(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    first, second = ([file.read_bytes() for file in png.pngs(make_record(NAMES), tmp_path)] for _ in range(2))
    assert first == second


def test_there_is_nothing_to_write_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    assert png.pngs(make_record(NAMES, problems=NAMES), tmp_path) == []
    files = png.pngs(make_record(NAMES, accuracy=None), tmp_path)
    assert [file.name for file in files] == ["size-latency.png", "distributions.png"]


def test_letters_are_drawn_without_a_font_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resvg = pytest.importorskip("resvg_py")
    drawing = plot.svg([plot.text(5, 20, "MobileNet v2 ± 0.8 %")], width=200, height=40, label="", theme=plot.LIGHT)
    real = resvg.svg_to_bytes
    assert _ink(bytes(real(svg_string=drawing, skip_system_fonts=True, background="#fff"))) == 0  # resvg alone
    monkeypatch.setattr(resvg, "svg_to_bytes", lambda **options: real(**options, skip_system_fonts=True))
    assert _ink(png.rasterise(drawing)) > 200


def test_a_very_long_chart_is_scaled_down() -> None:
    pytest.importorskip("resvg_py")
    drawing = plot.svg([], width=100, height=40_000, label="", theme=plot.LIGHT)
    with Image.open(BytesIO(png.rasterise(drawing))) as picture:
        assert picture.size == (40, 16_000)


def test_what_is_missing_is_named_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingDependency, match=r"pip install .*edgezoo\[png\]"):
        png.pngs(make_record(NAMES), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_letters_are_an_error_and_not_a_picture_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")

    def without_freetype(*_: Any) -> None:
        raise ImportError("no FreeType")

    monkeypatch.setattr(ImageFont, "load_default", without_freetype)
    with pytest.raises(MissingDependency, match="FreeType"):
        png.rasterise(plot.svg([], width=9, height=9, label="", theme=plot.LIGHT))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    with pytest.raises(OutputNotWritable, match="cannot be written"):
        png.pngs(make_record(NAMES), tmp_path / "nowhere")
