"""The columns of the table of `zoo bench`: what each shows of a row, and how. The one place that knows them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from zoo.bench.record import Record, Row

Line = dict[str, Row]
"""The rows that stand side by side, by their device: one network, source, precision and batch."""

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
"""Devices as the heads name them, in the order of their columns."""

MISSING = "–"
PUBLISHED, UNTRAINED, UNSETTLED = "*", "†", "~"


def digits(value: float) -> str:
    """A number of any size with three significant digits and no exponent: 0.0712, 4.10, 41.2, 1,234."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, min(6, 2 - math.floor(math.log10(abs(value)) + 1e-9)))}f}"


def count(value: float) -> str:
    """A large count with its unit: 61.7 K, 3.54 M, 15.5 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{digits(value / size)} {unit}"
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """A percentage that is one already."""
    return f"{value:.1f} %"


def share(value: float) -> str:
    """A part of one, as a percentage."""
    return f"{100 * value:.0f} %"


def interval(latency: dict[str, Any]) -> float:
    """Half the width of the median's interval, as a part of the median."""
    return float(latency["high"] - latency["low"]) / 2 / float(latency["median"] or 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A column. key: where its value is in a row, with a full stop before what is inside. show: the value as text.

    short: whether a terminal shows it; "mixed" where it does only if the rows differ in it.
    each: whether each device has a value, and so a column, of its own.
    """

    head: str
    key: str
    show: Callable[[Any], str] = str
    right: bool = True
    short: Literal["always", "mixed", "never"] = "never"
    each: bool = False
    device: str | None = None

    def row(self, line: Line) -> Row:
        """The row of a line that this column tells of; empty where the line has none."""
        if self.device is not None:
            return line.get(self.device, {})
        return next((row for row in line.values() if value_of(row, self.key) is not None), next(iter(line.values())))

    def value(self, line: Line) -> Any:
        """What it has of a line; None where there is nothing."""
        return value_of(self.row(line), self.key)


# The head is Keras Applications', in its order.
COLUMNS = (
    Column("Model", "name", right=False, short="always"),
    Column("Size (MiB)", "size_mib", digits, short="always"),
    Column("Top-1", "top1", percent, short="always"),
    Column("Top-5", "top5", percent, short="always"),
    Column("Parameters", "parameters", count, short="always"),
    Column("Depth", "depth", short="always"),
    Column("ms", "latency_ms.median", digits, short="always", each=True),
    Column("±", "latency_ms.interval", lambda value: f"{100 * value:.1f} %", short="always", each=True),
    Column("Precision", "precision", right=False, short="mixed"),
    Column("Source", "source", right=False, short="mixed"),
    Column("Batch", "batch", short="mixed"),
    Column("Threads", "threads", short="mixed"),
    Column("Of fp32's time", "ratio_to_fp32.median", digits, short="always", each=True),
    Column("MACs", "macs", count),
    Column("p50 ms", "latency_ms.p50", digits, each=True),
    Column("p90 ms", "latency_ms.p90", digits, each=True),
    Column("p99 ms", "latency_ms.p99", digits, each=True),
    Column("Min ms", "latency_ms.min", digits, each=True),
    Column("Waited", "waited_percent", percent, each=True),
    Column("Images/s", "images_per_second", digits, each=True),
    Column("First ms", "first_ms", digits, each=True),
    Column("Load ms", "load_ms", digits, each=True),
    Column("Copies ms", "copies_ms", digits),
    Column("Memory (MiB)", "peak_memory_mib", digits, each=True),
    Column("GPU memory (MiB)", "device_memory_mib", digits),
    Column("GFLOP/s", "gflops", digits, each=True),
    Column("Of peak", "share_of_peak", share, each=True),
    Column("Weights", "weights", right=False),
    Column("Calibrated on", "calibrated_on", right=False),
    Column("Engine", "engine", right=False),
    Column("Provider", "provider", right=False, each=True),
    Column("On provider", "provider_share", share, each=True),
    Column("Problem", "problem", right=False, each=True),
)


def value_of(row: Row, key: str) -> Any:
    """What a row has under a dotted key, None where it has nothing; latency_ms.interval is worked out."""
    if key == "latency_ms.interval":
        return interval(row["latency_ms"]) if row.get("latency_ms") else None
    outer, _, inner = key.partition(".")
    value = row.get(outer)
    return value.get(inner) if inner and value is not None else value


def lines(record: Record) -> list[Line]:
    """The rows by what they are, in the record's order: a network's CPU and GPU rows are one line."""
    found: dict[tuple[Any, ...], Line] = {}
    for number, row in enumerate(record["rows"]):
        what = tuple(row[key] for key in ("name", "source", "precision", "batch"))
        again = row["device"] in found.get(what, {})  # the same once more, as with two files of one name
        found.setdefault((*what, number) if again else what, {})[row["device"]] = row
    return [{device: line[device] for device in sorted(line, key=_order)} for line in found.values()]


def columns(record: Record) -> list[Column]:
    """The columns in which the record has anything; those that each device has, once per device."""
    devices = sorted({row["device"] for row in record["rows"]}, key=_order) or ["cpu"]
    shown: list[Column] = []
    for column in COLUMNS:
        if not column.each:
            shown.append(column)
            continue
        for device in devices:
            named = len(devices) > 1 or column.head == "ms"
            head = f"{DEVICES.get(device, device)} {column.head}" if named else column.head
            shown.append(Column(head, column.key, column.show, column.right, column.short, device=device))
    all_lines = lines(record)
    return [
        column
        for column in shown
        if (column.short == "always" and not column.key.startswith("ratio"))
        or any(column.value(line) is not None for line in all_lines)
    ]


def cell(column: Column, line: Line) -> str:
    """A cell as text, with the marks that `notes` explains."""
    value, row = column.value(line), column.row(line)
    if value is None:
        return MISSING
    text = column.show(value)
    if column.key in ("top1", "top5") and row["accuracy"] == "published":
        return text + PUBLISHED
    if column.key == "name" and row["weights"] == "none":
        return text + UNTRAINED
    if column.key == "latency_ms.median" and not row["latency_ms"]["settled"]:
        return UNSETTLED + text
    return text


def _order(device: str) -> tuple[int, str]:
    return (list(DEVICES).index(device) if device in DEVICES else len(DEVICES), device)
