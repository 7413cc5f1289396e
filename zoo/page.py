"""Pages of our own in HTML: one file each, that opens without a network, in light and dark, with tables to sort."""

from __future__ import annotations

import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --mark: light-dark(#0b6fa4, #5bb8ec); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.number, th.number { text-align: right; }
th[data-sorts] { cursor: pointer; } th[data-sorts]:hover { background: var(--soft); }
th[aria-sort=ascending]::after { content: " \\25B2"; } th[aria-sort=descending]::after { content: " \\25BC"; }
.bar { display: block; height: .3rem; background: var(--mark); border-radius: .15rem; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; font-size: 12px; }
svg .axis { stroke: currentColor; opacity: .4; } svg .point { fill: #8889; } svg .best { fill: var(--mark); }
.note { border-left: .25rem solid #d90; padding-left: .7rem; }
"""

# A cell says in data-value what it is sorted by; the first click puts the largest first, where the eye looks.
_SCRIPT = """
document.querySelectorAll("th[data-sorts]").forEach(head => head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], down = head.ariaSort !== "descending";
  const value = row => row.cells[head.cellIndex].dataset.value, sign = down ? -1 : 1;
  head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.ariaSort = down ? "descending" : "ascending";
  [...body.rows].sort((a, b) => sign * ("" === value(a) || "" === value(b) || isNaN(value(a)) || isNaN(value(b))
    ? value(a).localeCompare(value(b)) : value(a) - value(b))).forEach(row => body.append(row));
}));
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


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, bars: Sequence[str] = ()) -> str:
    """A table that is sorted by a click on a column's head. bars: columns of numbers that get a bar each."""
    numbers = {index for index in range(len(columns)) if any(isinstance(row[index], float | int) for row in rows)}
    tops = {
        index: max((_length(row[index]) for row in rows), default=0.0) for index in numbers if columns[index] in bars
    }
    head = "".join(
        f"<th data-sorts{' class=number' if index in numbers else ''}>{html.escape(name)}</th>"
        for index, name in enumerate(columns)
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(value, index in numbers, tops.get(index)) for index, value in enumerate(row))}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>\n"


def _length(value: Cell) -> float:
    return float(value) if isinstance(value, float | int) else 0.0


def _cell(value: Cell, number: bool, top: float | None) -> str:
    text = "" if value is None else value if isinstance(value, str) else f"{value:.3g}"
    bar = f'<span class=bar style="width:{100 * _length(value) / top:.1f}%"></span>' if top else ""
    shown, sorted_by = html.escape(text), html.escape("" if value is None else str(value), quote=True)
    return f'<td{" class=number" if number else ""} data-value="{sorted_by}">{shown}{bar}</td>'


def scatter(points: Sequence[tuple[float, float, str]], *, x: str, y: str, best: int) -> str:
    """Points (x, y, what it is) in an SVG, both axes from 0; the one number ``best`` is marked."""
    width, height, left, below = 620, 320, 60, 40
    right = 1.1 * max([point[0] for point in points], default=1.0)
    top = 1.1 * max([point[1] for point in points], default=1.0)
    to_x, to_y = (width - left) / right, (height - below) / top
    drawn = "".join(
        f'<circle class="point{" best" if index == best else ""}" cx="{left + px * to_x:.1f}" '
        f'cy="{height - below - py * to_y:.1f}" r="{8 if index == best else 6}"><title>{html.escape(name)}: '
        f"{px:.3g}, {py:.3g}</title></circle>"
        for index, (px, py, name) in enumerate(points)
    )
    ticks = "".join(
        f'<text x="{left + share * (width - left) / 1.1:.0f}" y="{height - below + 16}" text-anchor="middle">'
        f"{share * right / 1.1:.2g}</text>"
        f'<text x="{left - 6}" y="{height - below - share * (height - below) / 1.1:.0f}" text-anchor="end">'
        f"{share * top / 1.1:.2g}</text>"
        for share in (0, 0.5, 1)
    )
    label = html.escape(f"{y} against {x}", quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">'
        f'<line class=axis x1="{left}" y1="{height - below}" x2="{width}" y2="{height - below}"/>'
        f'<line class=axis x1="{left}" y1="0" x2="{left}" y2="{height - below}"/>{ticks}{drawn}'
        f'<text x="{(left + width) / 2}" y="{height - 4}" text-anchor="middle">{html.escape(x)}</text>'
        f'<text transform="translate(14 {(height - below) / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y)}</text>"
        "</svg>\n"
    )
