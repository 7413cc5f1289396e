"""The charts of a record of `zoo bench`, as SVG: accuracy and size against latency, and how the samples are spread.

Each gives None where the record has nothing to draw, and takes the colours it is drawn in (`zoo.plot.Theme`).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from itertools import groupby

from zoo import plot
from zoo.bench import conditions
from zoo.bench.columns import DEVICES, digits
from zoo.bench.record import Record, Row
from zoo.plot import Point, Theme
from zoo.ticks import Axis, axis

PRECISIONS = ("fp32", "int8", "fp16", "bf16")
"""In the order of their colours and shapes."""

WIDTH, _PANEL, _LEGEND = 760, 430, 28
_LINE, _TIMES = 24, 90
_BINS = 72


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (latency, accuracy) no other one beats: none is as fast and as good, and better in one.

    Numbers of the points, the fastest first; equal points are all among them.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def latency_accuracy(record: Record, theme: Theme) -> str | None:
    """Top-1 against latency, a panel for each device and batch, with the front of what nothing else beats in both."""
    panels = _panels([row for row in record["rows"] if row["latency_ms"] and row["top1"] is not None])
    drawn = []
    for number, rows in enumerate(panels):
        places = [(row["latency_ms"]["median"], row["top1"]) for row in rows]
        front = pareto(places)
        points = [
            Point(
                *place,
                title=f"{_name(row)}: {digits(place[0])} ms, top-1 {row['top1']:.1f} % {_origin(row)}",
                series=_series(row),
                label=_short(row["name"], 28),
                hollow=row["accuracy"] == "published",
                marked=index in front,
            )
            for index, (row, place) in enumerate(zip(rows, places, strict=True))
        ]
        drawn.append(
            plot.scatter(
                points,
                x=axis(_latency_name(rows[0]), [x for x, _ in places], log=True),
                y=axis("top-1 accuracy (%)", [y for _, y in places], above=0.15),
                theme=theme, top=_LEGEND + number * _PANEL, width=WIDTH, height=_PANEL - 10,
                stairs=[places[index] for index in front],
            )
        )  # fmt: skip
    kinds = {row["accuracy"] for rows in panels for row in rows}
    fills = [(True, "accuracy published")] if "published" in kinds else []
    fills += [(False, "measured here")] if len(kinds) > 1 else []
    return _whole(
        record,
        "Top-1 accuracy against latency",
        panels,
        drawn,
        theme,
        fills,
        "nothing is both faster and more accurate",
    )


def size_latency(record: Record, theme: Theme) -> str | None:
    """Size of the file against latency, a panel for each device and batch; a network's precisions are joined."""
    panels = _panels([row for row in record["rows"] if row["latency_ms"] and row["size_mib"]])
    drawn = []
    for number, rows in enumerate(panels):
        places = [(row["latency_ms"]["median"], row["size_mib"]) for row in rows]
        same: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for row, place in zip(rows, places, strict=True):
            same.setdefault((row["name"], row["source"]), []).append(place)
        named = {(row["name"], row["source"]): index for index, row in reversed(list(enumerate(rows)))}.values()
        points = [
            Point(
                *place,
                title=f"{_name(row)}: {digits(place[0])} ms, {digits(place[1])} MiB",
                series=_series(row),
                label=_short(row["name"], 28) if index in named else None,
            )
            for index, (row, place) in enumerate(zip(rows, places, strict=True))
        ]
        drawn.append(
            plot.scatter(
                points,
                x=axis(_latency_name(rows[0]), [x for x, _ in places], log=True),
                y=axis("size of the file (MiB)", [y for _, y in places], log=True),
                theme=theme, top=_LEGEND + number * _PANEL, width=WIDTH, height=_PANEL - 10,
                links=[places for places in same.values() if len(places) > 1],
            )
        )  # fmt: skip
    return _whole(record, "Size of the file against latency", panels, drawn, theme, (), None)


def distributions(record: Record, theme: Theme) -> str | None:
    """The samples of every row around its median: a histogram each, all on one scale, with the median's interval."""
    rows = [row for row in record["rows"] if row["samples_ms"] and row["latency_ms"]]
    if not rows:
        return None
    scale, right = spread(rows), WIDTH - _TIMES
    names = [_short(_name(row), 36) for row in rows]
    left = 20 + max(plot.wide(name) for name in names)
    lower = 30 + _LINE * len(rows)
    parts = []
    for value, words in scale.ticks:
        x, colour = scale.place(value, left, right), theme.axis if value == 0 else theme.grid
        shown = "median" if value == 0 else f"{'+' if value > 0 else ''}{words} %"
        parts.append(f'<line x1="{x:.1f}" y1="22" x2="{x:.1f}" y2="{lower + 4}" stroke="{colour}"/>')
        parts += [plot.text(x, y, shown, anchor="middle") for y in (14, lower + 20)]
    for number, row in enumerate(rows):
        base = 30 + _LINE * (number + 1) - 4
        median = row["latency_ms"]["median"]
        parts.append(f'<g class="spread"><title>{html.escape(_told(row, scale))}</title>')
        parts.append(plot.text(left - 10, base - 3, names[number], anchor="end"))
        parts.append(_histogram(row, scale, left, base, right - left, _LINE - 6, theme))
        parts.append(plot.text(WIDTH - 6, base - 3, f"{digits(median)} ms", anchor="end") + "</g>")
    label = "Distribution of the samples of each row"
    return plot.svg(parts, width=WIDTH, height=lower + 30, label=label, theme=theme, foot=conditions.summary(record))


def strip(row: Row, scale: Axis, theme: Theme) -> str:
    """The distribution of one row, as small as a cell of a table; empty where there are no samples."""
    if not row["samples_ms"] or not row["latency_ms"]:
        return ""
    inside = f"<title>{html.escape(_told(row, scale))}</title>" + _histogram(row, scale, 0, 19, 110, 18, theme)
    return plot.svg([inside], width=110, height=20, label=_told(row, scale), theme=theme).strip()


def spread(rows: Sequence[Row]) -> Axis:
    """The scale that the samples of all rows are drawn on: percent away from their row's median.

    Three samples in a hundred may lie beyond it on the slow side, so that a few stalls do not flatten all the rest.
    """
    found = sorted(
        100 * (sample / row["latency_ms"]["median"] - 1)
        for row in rows
        if row["latency_ms"]
        for sample in row["samples_ms"]
    )
    if not found:
        return axis("", (-5.0, 20.0))
    low, high = found[int(0.002 * (len(found) - 1))], found[int(0.97 * (len(found) - 1))]
    return axis("", (min(low, -2.0), max(high, 5.0)))


CHARTS: dict[str, tuple[str, Callable[[Record, Theme], str | None], str]] = {
    "latency-accuracy": (
        "Accuracy against latency", latency_accuracy,
        "No row has both a time and an accuracy: there is nothing to draw. --data measures the accuracy.",
    ),
    "size-latency": ("Size against latency", size_latency, "No row has a time: there is nothing to draw."),
    "distributions": ("Distribution of the samples", distributions, "No row has a time: there is nothing to draw."),
}  # fmt: skip
"""By the name of their file and place: heading, function, and what is said instead where there is nothing to draw."""


def _whole(
    record: Record, label: str, panels: Sequence[Sequence[Row]], drawn: Sequence[str], theme: Theme,
    fills: Sequence[tuple[bool, str]], stairs: str | None,
) -> str | None:  # fmt: skip
    if not panels:
        return None
    series = sorted({(_series(row), row["precision"]) for rows in panels for row in rows})
    head = plot.legend(series, top=6, theme=theme, fills=fills, stairs=stairs)
    height = _LEGEND + _PANEL * len(panels)
    return plot.svg(
        [head, *drawn], width=WIDTH, height=height, label=label, theme=theme, foot=conditions.summary(record)
    )


def _panels(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows whose times can be compared: of one device and one batch."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["device"], row["batch"]), []).append(row)
    return list(found.values())


def _histogram(row: Row, scale: Axis, left: float, base: float, width: float, height: float, theme: Theme) -> str:
    """Samples as steps above a line, the interval of the median as a band behind, the median as a stroke."""
    latency, counts = row["latency_ms"], [0] * _BINS
    relative = [100 * (sample / latency["median"] - 1) for sample in row["samples_ms"]]
    for value in relative:
        if scale.low <= value < scale.high:
            counts[int(scale.part(value) * _BINS)] += 1
    most, step = max(*counts, 1), width / _BINS
    path = f"M{left:.1f} {base:.1f}"
    for level, run in groupby(counts):
        path += f"V{base - height * level / most:.1f}h{step * len(list(run)):.2f}"
    ends = [scale.part(100 * (latency[end] / latency["median"] - 1)) for end in ("low", "high")]
    start, end = (left + width * min(1.0, max(0.0, part)) for part in ends)
    middle, colour = left + width * scale.part(0), theme.series[_series(row) % len(theme.series)]
    return (
        f'<rect x="{start:.1f}" y="{base - height:.1f}" width="{max(1.0, end - start):.1f}" height="{height:.1f}" '
        f'fill="{colour}" opacity=".25"/><path d="{path}V{base:.1f}Z" fill="{colour}"/>'
        f'<path d="M{middle:.1f} {base + 1:.1f}v{-height - 1:.1f}" stroke="{theme.text}" stroke-width="1.2"/>'
    )


def _told(row: Row, scale: Axis) -> str:
    latency = row["latency_ms"]
    beyond = sum(100 * (sample / latency["median"] - 1) >= scale.high for sample in row["samples_ms"])
    more = f", {beyond} beyond the right edge, up to {digits(max(row['samples_ms']))} ms" if beyond else ""
    return (
        f"{_name(row)}: median {digits(latency['median'])} ms (95 % interval {digits(latency['low'])} to "
        f"{digits(latency['high'])}), {len(row['samples_ms'])} samples drawn of {latency['samples']}{more}"
    )


def _series(row: Row) -> int:
    return PRECISIONS.index(row["precision"]) if row["precision"] in PRECISIONS else len(PRECISIONS)


def _name(row: Row) -> str:
    device = f", {DEVICES.get(row['device'], row['device'])}" if row["device"] != "cpu" else ""
    batch = f", batch {row['batch']}" if row["batch"] != 1 else ""
    return f"{row['name']} {row['precision']}{device}{batch}"


def _short(name: str, most: int) -> str:
    """A name of at most that many letters: its middle goes, as names differ at their ends."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-(most - most // 2 - 2) :]}"


def _origin(row: Row) -> str:
    return (
        f"published by {(row['published'] or {}).get('source', 'others')}" if row["accuracy"] == "published" else "here"
    )


def _latency_name(row: Row) -> str:
    device = DEVICES.get(row["device"], row["device"])
    return f"time of one run on the {device}, batch {row['batch']} (ms)"
