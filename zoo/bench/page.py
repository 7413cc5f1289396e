"""The page of ``zoo bench --html``: one file with the charts, and every figure in a table to sort."""

from __future__ import annotations

from zoo import page as pages
from zoo import plot
from zoo.bench.charts import CHARTS, spread, strip
from zoo.bench.columns import cell, columns, lines
from zoo.bench.conditions import facts, summary
from zoo.bench.record import Record, Row
from zoo.bench.table import notes, warnings
from zoo.ticks import Axis

_CAPTIONS = {
    "latency-accuracy": (
        "Further left is faster, further up is more accurate. The points on the dashed line are those to choose "
        "from: for any other there is one that is at least as fast and as accurate."
    ),
    "size-latency": "Both axes are logarithmic. A line joins one network in its precisions.",
    "distributions": (
        "Where each row's samples lie around its median. The stroke is the median, the pale band its 95 % interval; "
        "all rows have one scale."
    ),
}


def page(record: Record, beside: str = "") -> str:
    """The whole page, as HTML, for a record as `zoo.bench.record` describes it. It needs no network.

    beside: HTML that follows the charts: what others published.
    """
    parts = [pages.paragraph(warning, note=True) for warning in warnings(record)]
    rows, networks = len(record["rows"]), len({row["name"] for row in record["rows"]})
    parts.append(pages.paragraph(f"{_many(rows, 'row')} of {_many(networks, 'network')}: {summary(record)}."))
    table = [
        pages.heading("All figures"),
        pages.paragraph("A click on a head sorts; another turns the order around."),
        _table(record),
        *(pages.paragraph(note) for note in notes(record)),
    ]
    for name, (heading, draw, instead) in CHARTS.items():
        if name == "distributions":  # as long as the table, whose rows have them in small
            parts += table
        drawing = draw(record, plot.PAGE)
        parts.append(pages.heading(heading))
        parts.append(pages.paragraph(instead) if drawing is None else pages.figure(name, drawing, _CAPTIONS[name]))
    parts.append(beside)
    parts += [pages.heading("Machine and protocol"), pages.facts(facts(record))]
    return pages.document("zoo bench", *parts)


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(record: Record) -> str:
    shown, all_lines, scale = columns(record), lines(record), spread(record["rows"])
    heads: list[str] = []
    cells: list[list[pages.Cell | pages.Shown]] = [[] for _ in all_lines]
    for column in shown:
        heads.append(column.head)
        for filled, line in zip(cells, all_lines, strict=True):
            filled.append(pages.Shown(cell(column, line), column.value(line)))
        if column.key == "latency_ms.interval":
            heads.append(column.head.replace("±", "Samples"))
            for filled, line in zip(cells, all_lines, strict=True):
                filled.append(_samples(column.row(line), scale))
    return pages.table(heads, cells, high="All figures")


def _samples(row: Row, scale: Axis) -> pages.Shown | None:
    """The drawing of a row's samples, sorted by how far the slow ones are from the median."""
    latency = row.get("latency_ms")
    if not latency:
        return None
    return pages.Shown("", latency["p90"] / latency["p50"], strip(row, scale, plot.PAGE))
