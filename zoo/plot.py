"""Drawings in SVG: axes with round ticks, points by series, labels that do not overlap. Needs no script.

A drawing takes its colours as a ``Theme``: in a page they are variables that follow light and dark, in a picture
plain colours, which are all that a rasteriser knows.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from zoo.placing import Box, Wish, arrange
from zoo.ticks import Axis

_CORNERS = (
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, -1.2), (1.2, 1), (-1.2, 1)),
)


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours: of text, of axes, of a grid's lines, behind it all, of what stands back, and of each series.

    alone: whether the drawing is a file of its own, which has to say that it is SVG, and not part of a page.
    """

    text: str
    axis: str
    grid: str
    ground: str
    dim: str
    series: tuple[str, ...]
    font: str = "inherit"
    alone: bool = False


PAGE = Theme(
    "currentColor", "var(--axis)", "var(--grid)", "Canvas", "#8889",
    ("var(--mark)", "var(--second)", "var(--third)", "var(--fourth)"),
)  # fmt: skip
LIGHT = Theme(
    "#1c1e21", "#777777", "#e4e4e4", "#ffffff", "#999999", ("#0b6fa4", "#c2570c", "#7a4fb5", "#3f7d20"),
    font="sans-serif", alone=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A point. title: shown when it is pointed at. label: drawn beside it if there is room.

    series: number of its colour and shape. hollow: drawn as an outline. marked: larger, where the others stand back.
    """

    x: float
    y: float
    title: str
    series: int = 0
    label: str | None = None
    hollow: bool = False
    marked: bool = False


def svg(parts: Iterable[str], *, width: float, height: float, label: str, theme: Theme, foot: str | None = None) -> str:
    """A whole drawing. label: what it shows, for those who cannot see it. foot: a line below everything."""
    if foot is not None:
        parts = [*parts, text(8, height + 12, foot, more='font-size="10.5" opacity=".7"')]
        height += 20
    kind = ' xmlns="http://www.w3.org/2000/svg"' if theme.alone else ""
    return (
        f'<svg{kind} viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{html.escape(label, quote=True)}" font-family="{theme.font}" '
        f'font-size="12" fill="{theme.text}">{"".join(parts)}</svg>\n'
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", more: str = "") -> str:
    """A line of text. more: attributes, as they are."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more and " " + more}>{html.escape(words)}</text>'


def wide(words: str) -> float:
    """About how wide a text is: at least as wide as in the usual fonts."""
    return 7.0 * len(words)


def shape(x: float, y: float, series: int, radius: float, attributes: str, title: str = "") -> str:
    """The mark of a series: a disc, a square, a diamond, a triangle."""
    inside = f"<title>{html.escape(title)}</title>" if title else ""
    if series % 4 == 0:
        return f'<circle {attributes} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{inside}</circle>'
    corners = (
        (-0.9, -0.9, 0.9, -0.9, 0.9, 0.9, -0.9, 0.9),
        (0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0),
        (0, -1.2, 1.2, 1, -1.2, 1),
    )
    numbers = corners[series % 4 - 1]
    path = " ".join(
        f"{x + radius * across:.1f},{y + radius * down:.1f}"
        for across, down in zip(numbers[::2], numbers[1::2], strict=True)
    )
    return f'<polygon {attributes} points="{path}">{inside}</polygon>'


def scatter(
    points: Sequence[Point], *, x: Axis, y: Axis, theme: Theme, top: float = 0, width: float = 760, height: float = 420,
    stairs: Sequence[tuple[float, float]] = (), links: Sequence[Sequence[tuple[float, float]]] = (), grid: bool = True,
) -> str:  # fmt: skip
    """Points between two axes, from ``top`` on, as the inside of a drawing.

    stairs: places joined by steps, first across. links: places joined by thin straight lines.
    """
    left, right, upper, lower = 58.0, width - 14, top + 10, top + height - 42

    def at(place: tuple[float, float]) -> tuple[float, float]:
        return x.place(place[0], left, right), y.place(place[1], lower, upper)

    parts = []
    for value, words in x.ticks:
        middle = x.place(value, left, right)
        parts += [_line(middle, upper, middle, lower, theme.grid)] if grid else []
        parts.append(text(middle, lower + 16, words, anchor="middle"))
    for value, words in y.ticks:
        middle = y.place(value, lower, upper)
        parts += [_line(left, middle, right, middle, theme.grid)] if grid else []
        parts.append(text(left - 6, middle + 4, words, anchor="end"))
    parts += [_line(left, lower, right, lower, theme.axis), _line(left, upper, left, lower, theme.axis)]
    parts.append(text((left + right) / 2, lower + 35, x.name, anchor="middle"))
    turned = f'transform="rotate(-90 14 {(upper + lower) / 2:.1f})"'
    parts.append(text(14, (upper + lower) / 2, y.name, anchor="middle", more=turned))
    for link in links:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in map(at, link))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{theme.dim}" stroke-opacity=".5"/>')
    steps: list[Box] = []
    if stairs:
        corners = [at(place) for place in stairs]
        path = f"M{corners[0][0]:.1f} {corners[0][1]:.1f}"
        for (px, py), (qx, qy) in pairwise([*corners, (right, corners[-1][1])]):
            path += f"H{qx:.1f}V{qy:.1f}"
            steps += [(px, py - 1, qx, py + 1), (qx - 1, qy, qx + 1, py)]
        parts.append(f'<path d="{path}" fill="none" stroke="{theme.dim}" stroke-width="1.5" stroke-dasharray="5 3"/>')
    chosen = any(point.marked for point in points)
    for point in sorted(points, key=lambda point: point.marked):  # the marked ones on top
        fill, colour = _colours(point, theme)
        back = ' opacity=".5"' if chosen and not point.marked else ""
        attributes = f'class="point" fill="{fill}" stroke="{colour}" stroke-width="1.8"{back}'
        parts.append(shape(*at((point.x, point.y)), point.series, 6 if point.marked else 4.5, attributes, point.title))
    parts += _labels([(at((point.x, point.y)), point) for point in points], steps, (left, upper, right, lower), theme)
    return "".join(parts)


def _colours(point: Point, theme: Theme) -> tuple[str, str]:
    """What a point is filled with and drawn with."""
    colour = theme.series[point.series % len(theme.series)]
    return theme.ground if point.hollow else colour, colour


def _labels(
    placed: Sequence[tuple[tuple[float, float], Point]], steps: Sequence[Box], room: Box, theme: Theme
) -> list[str]:
    """The labels for which there is a place, those of marked points first, in the colours of their points."""
    named = [each for each in placed if each[1].label is not None]
    named.sort(key=lambda each: (not each[1].marked, each[0][0]))
    wishes = [Wish(*place, wide(point.label or ""), far=point.marked) for place, point in named]
    taken = [(x - 7, y - 7, x + 7, y + 7) for (x, y), _ in placed]
    chosen, parts = any(point.marked for _, point in placed), []
    for (_, point), found in zip(named, arrange(wishes, taken, room, crossed=steps), strict=True):
        if found is None:
            continue  # it still says its name when it is pointed at
        if found.leader:
            parts.append(_line(*found.leader[0], *found.leader[-1], theme.dim))
        back = ' opacity=".65"' if chosen and not point.marked else ""
        more = f'class="label" font-size="11.5" fill="{_colours(point, theme)[1]}"{back}'
        left, _, right, lower = found.box
        start = {"start": left, "middle": (left + right) / 2, "end": right}[found.anchor]
        parts.append(text(start, lower - 2.5, point.label or "", anchor=found.anchor, more=more))
    return parts


def legend(
    names: Sequence[tuple[int, str]], *, top: float, theme: Theme, fills: Sequence[tuple[bool, str]], stairs: str | None
) -> str:
    """A line that says what the marks are: series and names, what hollow (True) and filled mean, and the steps."""
    parts, x, y = [], 64.0, top + 8
    entries: list[tuple[str, str]] = []
    for series, name in names:
        colour = theme.series[series % len(theme.series)]
        entries.append((shape(0, 0, series, 5, f'fill="{colour}"'), name))
    for hollow, name in fills:
        attributes = f'fill="{"none" if hollow else theme.text}" stroke="{theme.text}" stroke-width="1.8"'
        entries.append((shape(0, 0, 0, 4.5, attributes), name))
    if stairs:
        entries.append((f'<path d="M-9 0H9" stroke="{theme.dim}" stroke-width="1.5" stroke-dasharray="5 3"/>', stairs))
    for mark, name in entries:
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{mark}{text(13, 4, name)}</g>')
        x += 13 + wide(name) + 22
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
