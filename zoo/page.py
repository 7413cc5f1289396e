"""Pages of our own in HTML: one file each, that opens without a network, in light and dark, with tables to sort."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo import plot
from zoo.ticks import axis

_LONG = 40
"""Letters of a cell that may take several lines in a table where others may not."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --mark: light-dark(#0b6fa4, #5bb8ec);
  --second: light-dark(#b4500a, #f5a05a); --third: light-dark(#7a4fb5, #bd9df2); --fourth: light-dark(#3f7d20, #8ecb6a);
  --axis: light-dark(#777, #999); --grid: light-dark(#e4e4e4, #333); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; }
th[data-sorts] { cursor: pointer; } th[data-sorts]:hover { background: var(--soft); }
th[aria-sort=ascending]::after { content: " \\25B2"; } th[aria-sort=descending]::after { content: " \\25BC"; }
.bar { display: block; height: .3rem; background: var(--mark); border-radius: .15rem; }
svg { max-width: 100%; height: auto; }
.note { border-left: .25rem solid #d90; padding-left: .7rem; }
.box { overflow-x: auto; } figure { margin: 1rem 0; } figure svg { width: 100%; min-width: 36rem; max-width: 60rem; }
.high { overflow: auto; max-height: 90vh; border-block: 1px solid var(--line); } .high table { margin: 0; }
.high th, .high td { white-space: nowrap; background: Canvas; } .high td.long { white-space: normal; min-width: 34rem; }
.high thead th { position: sticky; top: 0; z-index: 1; }
.high tr > :first-child { position: sticky; left: 0; border-right: 1px solid var(--line); }
.high thead th:first-child { z-index: 2; }
@media (max-width: 40rem) {
  .high tr > :first-child { min-width: 7rem; max-width: 9.5rem; overflow-wrap: anywhere; white-space: normal; }
}
.high svg { max-width: none; display: block; }
"""

# A cell says in data-value what it is sorted by, "" where there is nothing: that comes last in both directions. The
# first click puts the largest number first, where the eye looks, and the first name.
_SCRIPT = """
document.querySelectorAll("th[data-sorts]").forEach(head => {
  const sort = () => {
    const body = head.closest("table").tBodies[0], numbers = head.dataset.sorts === "numbers";
    const down = numbers ? head.ariaSort !== "descending" : head.ariaSort === "ascending", sign = down ? -1 : 1;
    const value = row => row.cells[head.cellIndex].dataset.value;
    const order = (a, b) => (a === "") - (b === "") || (a === "" ? 0
      : sign * (numbers ? a - b : a.localeCompare(b, undefined, {numeric: true})));
    head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.ariaSort = down ? "descending" : "ascending";
    [...body.rows].sort((a, b) => order(value(a), value(b))).forEach(row => body.append(row));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
  });
});
"""


def document(title: str, *parts: str) -> str:
    """A whole page. parts: HTML, one after the other; the title is text."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n'
        f"<body><h1>{name}</h1>\n{''.join(parts)}\n<script>{_SCRIPT}</script></body></html>\n"
    )


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph. note: one that should not be missed."""
    return f"<p{' class=note' if note else ''}>{html.escape(text)}</p>\n"


def heading(text: str) -> str:
    """A heading under the page's."""
    return f"<h2>{html.escape(text)}</h2>\n"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A table of names and what they are."""
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in pairs)
    return f"<table>{rows}</table>\n"


Cell = str | float | None
"""Text; a number, shown with three digits; None where there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A cell that shows something else than it is sorted by: a text, and a drawing as HTML."""

    text: str
    value: Cell
    drawing: str = ""


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell | Shown]], *, bars: Sequence[str] = (), high: str | None = None
) -> str:
    """A table that is sorted by a click on a column's head. bars: columns of numbers that get a bar each.

    high: the name of a table that is too large for the page: it moves in a box of its own, its heads and its first
    column stay.
    """
    values = [[cell.value if isinstance(cell, Shown) else cell for cell in row] for row in rows]
    numbers = {index for index in range(len(columns)) if _numeric([row[index] for row in values])}
    tops = {
        index: max((_length(row[index]) for row in values), default=0.0) for index in numbers if columns[index] in bars
    }
    head = "".join(
        f'<th tabindex="0" scope="col" data-sorts="{"numbers" if index in numbers else "text"}"'
        f"{' class=number' if index in numbers else ''}>{html.escape(name)}</th>"
        for index, name in enumerate(columns)
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(cell, index in numbers, tops.get(index)) for index, cell in enumerate(row))}</tr>"
        for row in rows
    )
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
    if high is None:
        return f"{whole}\n"
    label = html.escape(high, quote=True)
    return f'<div class="box high" role="region" tabindex="0" aria-label="{label}">{whole}</div>\n'


def _numeric(values: Sequence[Cell]) -> bool:
    """Whether a column is sorted as numbers, and stands to the right: it has nothing else."""
    return all(value is None or isinstance(value, float | int) for value in values)


def _length(value: Cell) -> float:
    return float(value) if isinstance(value, float | int) else 0.0


def _cell(cell: Cell | Shown, number: bool, top: float | None) -> str:
    shown = cell if isinstance(cell, Shown) else Shown(_words(cell), cell)
    value = shown.value
    bar = f'<span class=bar style="width:{100 * _length(value) / top:.1f}%"></span>' if top else ""
    sorted_by = html.escape("" if value is None else str(value), quote=True)
    kind = " class=number" if number else " class=long" if len(shown.text) > _LONG else ""
    return f'<td{kind} data-value="{sorted_by}">{html.escape(shown.text)}{shown.drawing}{bar}</td>'


def _words(value: Cell) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def figure(name: str, drawing: str, caption: str) -> str:
    """A drawing with its caption, in a box that moves sideways where the page is narrow. name: its id."""
    label, words = html.escape(name, quote=True), html.escape(caption)
    return f'<figure id="{label}"><div class="box">{drawing}</div><figcaption>{words}</figcaption></figure>\n'


def scatter(points: Sequence[tuple[float, float, str]], *, x: str, y: str, best: int) -> str:
    """Points (x, y, what it is) in an SVG, both axes from 0; the one number ``best`` is marked."""
    theme = replace(plot.PAGE, series=("#888", *plot.PAGE.series[:3], plot.PAGE.series[0]))  # 0 and 4 are both discs
    drawn = plot.scatter(
        [
            plot.Point(px, py, f"{name}: {px:.3g}, {py:.3g}", series=4 if number == best else 0)
            for number, (px, py, name) in enumerate(points)
        ],
        x=axis(x, [point[0] for point in points], zero=True),
        y=axis(y, [point[1] for point in points], zero=True),
        theme=theme, width=620, height=330, grid=False,
    )  # fmt: skip
    return plot.svg([drawn], width=620, height=330, label=f"{y} against {x}", theme=theme)
