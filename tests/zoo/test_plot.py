"""Drawings: XML that says what it shows, points where their values are."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from zoo import plot
from zoo.ticks import axis

NAME = '<b> & "quoted"'


def _drawn(points: list[plot.Point], theme: plot.Theme = plot.LIGHT, **more: object) -> ET.Element:
    x = axis("ms", [point.x for point in points], log=True)
    y = axis(NAME, [point.y for point in points])
    inside = plot.scatter(points, x=x, y=y, theme=theme, **more)  # type: ignore[arg-type]
    return ET.fromstring(plot.svg([inside], width=760, height=420, label=NAME, theme=theme, foot=NAME))


def _tags(root: ET.Element, tag: str) -> list[ET.Element]:
    return list(root.iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_points_lie_where_their_values_are() -> None:
    points = [plot.Point(value, accuracy, f"{value}") for value, accuracy in ((1, 60), (10, 70), (100, 75), (31.6, 65))]
    circles = {float(_tags(each, "title")[0].text or ""): each for each in _tags(_drawn(points), "circle")}
    assert len(circles) == 4
    x = {value: float(each.attrib["cx"]) for value, each in circles.items()}
    assert x[10] - x[1] == pytest.approx(x[100] - x[10], abs=0.2)
    assert (x[31.6] - x[1]) / (x[100] - x[1]) == pytest.approx(math.log10(31.6) / 2, abs=1e-3)
    y = {value: float(each.attrib["cy"]) for value, each in circles.items()}
    assert (y[1] - y[10]) / (y[1] - y[100]) == pytest.approx(10 / 15, abs=1e-3)


def test_text_is_text() -> None:
    root = _drawn([plot.Point(1, 2, NAME, label=NAME)])
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == NAME
    assert [each.text for each in _tags(root, "title")] == [NAME]
    assert [each.text for each in _tags(root, "text")].count(NAME) == 3  # the axis, the label, the foot


def test_each_series_has_a_shape_and_a_colour_of_its_own() -> None:
    points = [plot.Point(1 + series, 2, "", series=series) for series in range(4)]
    root = _drawn(points)
    drawn = [each for each in root.iter() if each.attrib.get("class") == "point"]
    assert len(drawn) == 4
    assert len({each.attrib["fill"] for each in drawn}) == 4
    corners = [len(each.attrib["points"].split()) for each in drawn if "points" in each.attrib]
    assert (len(_tags(root, "circle")), sorted(corners)) == (1, [3, 4, 4])


def test_hollow_points_are_outlines_and_others_stand_back_behind_marked_ones() -> None:
    points = [plot.Point(1, 2, "a", hollow=True, marked=True), plot.Point(2, 3, "b")]
    back, front = _tags(_drawn(points), "circle")
    assert front.attrib["fill"] == plot.LIGHT.ground != front.attrib["stroke"]
    assert back.attrib["fill"] == back.attrib["stroke"]
    assert float(front.attrib["r"]) > float(back.attrib["r"])
    assert "opacity" in back.attrib
    assert "opacity" not in front.attrib


def test_a_picture_needs_no_style_sheet_and_a_page_follows_light_and_dark() -> None:
    points = [plot.Point(1, 2, "a", label="a", hollow=True), plot.Point(2, 3, "b", series=1)]
    stairs = [(1.0, 2.0), (2.0, 3.0)]
    light, page = (
        ET.tostring(_drawn(points, theme, stairs=stairs, links=[stairs]), encoding="unicode")
        for theme in (plot.LIGHT, plot.PAGE)
    )
    assert not any(word in light for word in ("var(", "light-dark", "currentColor", "Canvas", "inherit"))
    assert "#ffffff" not in page
    assert "var(--mark)" in page


def test_stairs_go_across_before_they_go_up() -> None:
    root = _drawn([plot.Point(1, 60, "a"), plot.Point(100, 70, "b")], stairs=[(1, 60), (100, 70)])
    (path,) = (each.attrib["d"] for each in _tags(root, "path"))
    first, second = sorted(_tags(root, "circle"), key=lambda each: float(each.attrib["cx"]))
    assert path.startswith(f"M{first.attrib['cx']} {first.attrib['cy']}H{second.attrib['cx']}V{second.attrib['cy']}H")


def test_the_legend_names_what_there_is() -> None:
    words = plot.legend([(0, "fp32"), (1, "int8")], top=0, theme=plot.LIGHT, fills=[(True, "published")], stairs=None)
    root = ET.fromstring(plot.svg([words], width=9, height=9, label="", theme=replace(plot.LIGHT)))
    assert [each.text for each in _tags(root, "text")] == ["fp32", "int8", "published"]
