"""A record of `zoo bench` as text: cells for a terminal, CSV and Markdown, all from one list of columns."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from csv import writer
from dataclasses import fields
from typing import Any

from zoo.bench.columns import DEVICES, PUBLISHED, UNSETTLED, UNTRAINED, cell, columns, lines, value_of
from zoo.bench.record import Record
from zoo.published import Published

LEAVING = (
    "source", "threads", "top5", "depth", "ratio_to_fp32.median", "parameters", "latency_ms.interval", "size_mib",
    "top1",
)  # fmt: skip
"""Columns that a narrow terminal goes without, the first to go first."""


def terminal(record: Record, *, width: int | None = None) -> tuple[list[str], list[list[str]], set[str]]:
    """The short table: its heads, its rows, and the heads of the columns that are aligned to the right.

    width: in letters, of the terminal: columns that do not fit into it are left out. A head may have several lines.
    """
    all_lines = lines(record)
    short = [
        column
        for column in columns(record)
        if column.short == "always"
        or (column.short == "mixed" and len({str(column.value(line)) for line in all_lines}) > 1)
    ]
    shown = [[cell(column, line) for line in all_lines] for column in short]
    widths = [max(map(len, [*column.head.split(), *cells])) for column, cells in zip(short, shown, strict=True)]
    stay = set(range(len(short)))
    for key in LEAVING if width is not None else ():
        if 1 + sum(widths[index] + 3 for index in stay) <= (width or 0):
            break
        stay -= {index for index in stay if short[index].key == key}
    heads = ["\n".join(textwrap.wrap(column.head, room)) for column, room in zip(short, widths, strict=True)]
    rows = [[cells[number] for index, cells in enumerate(shown) if index in stay] for number in range(len(all_lines))]
    return [heads[index] for index in sorted(stay)], rows, {heads[index] for index in stay if short[index].right}


def warnings(record: Record) -> list[str]:
    """What has to be said before any figure; empty where nothing has."""
    said = []
    if record["noise"]["noisy"]:
        reasons = "; ".join(record["noise"]["reasons"]) or "no reason was recorded"
        said.append(f"This run was noisy, its times may be off: {reasons}.")
    if not record.get("finished", True):
        said.append("This run is not finished: rows are missing or have fewer samples.")
    return said


def notes(record: Record) -> list[str]:
    """What the marks mean, as far as there are any, and why rows have no figures."""
    rows = record["rows"]
    said = []
    sources = sorted(
        {(row["published"] or {}).get("source", "others") for row in rows if row["accuracy"] == "published"}
    )
    if sources:
        said.append(f"{PUBLISHED} published by {' and '.join(sources)}, not measured here")
    if any(row["weights"] == "none" for row in rows):
        said.append(f"{UNTRAINED} untrained weights: time, size and depth do not depend on them")
    if any(row["latency_ms"] and not row["latency_ms"]["settled"] for row in rows):
        said.append(f"{UNSETTLED} not settled within its time: the 95 % interval of the median (±) is wide")
    for row in rows:
        if row["problem"]:
            device = DEVICES.get(row["device"], row["device"])
            said.append(f"{row['name']} {row['precision']}, {device}, batch {row['batch']}: {row['problem']}")
    return said


def csv(record: Record) -> str:
    """One line per row of the record with every field that is one value; the heads are the same for every record."""
    nested = {
        "latency_ms": ["median", "low", "high", "p50", "p90", "p99", "min", "samples", "rounds", "settled"],
        "ratio_to_fp32": ["median", "low", "high"],
        "published": [field.name for field in fields(Published)],
    }
    keys = dict.fromkeys(key for row in record["rows"] for key in row if key not in ("samples_ms", "turns_ms"))
    heads = [head for key in keys for head in ([f"{key}.{inner}" for inner in nested[key]] if key in nested else [key])]
    text = io.StringIO()
    out = writer(text, lineterminator="\n")
    out.writerow(heads)
    out.writerows([_plain(value_of(row, head)) for head in heads] for row in record["rows"])
    return text.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "x".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def markdown(record: Record) -> str:
    """The whole table with what it was measured on above it and what its marks mean below."""
    from zoo.bench.conditions import facts

    shown, all_lines = columns(record), lines(record)
    parts = [*(f"> **{_escaped(warning)}**\n" for warning in warnings(record))]
    parts.append("\n".join(f"- {name}: {_escaped(text)}" for name, text in facts(record)) + "\n")
    heads = " | ".join(_escaped(column.head) for column in shown)
    rules = " | ".join("---:" if column.right else ":---" for column in shown)
    rows = [" | ".join(_escaped(cell(column, line)) for column in shown) for line in all_lines]
    parts.append("\n".join(f"| {text} |" for text in (heads, rules, *rows)) + "\n")
    parts += [f"{_escaped(note)}\n" for note in notes(record)]
    return "\n".join(parts)


def _escaped(text: str) -> str:
    """Text that means itself in Markdown and stays in its cell."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|~" else letter for letter in line)
