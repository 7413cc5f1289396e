"""A record beside a publisher's table: what is counted must agree, what is timed may only be put in the same order.

Times of two machines are never compared. Their orders can be: where one network is slower than another there, it
should be here, and Spearman's rank correlation says how far that holds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from runtime.errors import UnknownName
from zoo import page as pages
from zoo.bench.statistics import ranks, spearman
from zoo.disagreements import disagreements
from zoo.models import find
from zoo.published import Published, lookup
from zoo.spec import Variant

Record = dict[str, Any]
Row = dict[str, Any]
Value = str | float | None
Publisher = Literal["keras", "torchvision"]

NAMES: dict[Publisher, str] = {"keras": "Keras Applications", "torchvision": "torchvision"}
_MEASURED_THERE = "milliseconds for a step of 32 pictures, on a 92-core EPYC and an A100"
_FEWEST = 3  # rows that have an order worth a number
_SHOWN = 5  # displaced networks

# Where the frameworks' implementations of one network differ: Keras' builder, what differs, why.
_IMPLEMENTATIONS: tuple[tuple[str, str, str], ...] = (
    (r"keras:Inception(V3|ResNetV2)", "parameters", "Keras' normalisation layers have no scale"),
    (r"keras:ResNet\d+(V2)?", "parameters", "Keras' convolutions have biases where torch's have none"),
    (r"keras:ResNet\d+", "macs", "torch strides in the 3x3 convolution of a block, Keras in the 1x1 before it"),
    (r"keras:ResNet\d+V2", "macs", "Keras strides in the last block of a stage, torch in the first of the next"),
    (r"keras:EfficientNetB\d", "parameters", "Keras' network normalises its pictures itself: 7 numbers in one layer"),
    (r"keras:EfficientNetB\d", "depth", "Keras' network normalises its pictures itself, in one layer more"),
    (r"keras:(Xception|NASNetLarge)", "depth", "Keras counts a depthwise-separable convolution as one layer"),
)

_GMACS = "GMACs"
DIFFERENCES = ("model", "figure", "here", "there", "reason")
COLUMNS = (
    "model", "source", "precision", "batch", "device", "parameters", "published", "depth", "published depth", "MiB",
    "published MiB", "top-1", "published top-1", "ms here", "rank", "published rank",
)  # fmt: skip


def against(record: Record, source: Publisher) -> dict[str, Any]:
    """The record's rows that the publisher has figures of, beside those.

    rows: each with ``published`` figures and our ``parameters``, ``depth`` and ``size_mib`` (of the weights in
    float32) of the publisher's own network; ``measured``: the row's own figures. disagreements: figures that differ,
    each with its reason, None where there is none, which is a fault. orders: of each device, precision and batch, the
    rank correlation and the networks that are much slower or faster here. left_out: names without figures.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for row in record["rows"]:
        variant = variant_of(row["name"], source)
        published = lookup(variant) if variant else None
        if variant is None or published is None or variant.facts is None:
            left_out += [row["name"]] if row["name"] not in left_out else []
            continue
        rows.append(_beside(row, variant, published, source))
    return {
        "against": NAMES[source],
        "orders": _orders(rows, source),
        "disagreements": _disagreements(rows, source),
        "rows": rows,
        "left_out": left_out,
    }


def variant_of(name: str, source: Publisher) -> Variant | None:
    """The publisher's own implementation of a network of the catalogue; None where it has none."""
    try:
        spec = find(name)
    except UnknownName:  # the user's own file
        return None
    return next((each for each in spec.sources.values() if each.builder.startswith(f"{source}:")), None)


def told(found: dict[str, Any]) -> list[str]:
    """The orders in sentences, and what has to be known of them."""
    lines = []
    for order in found["orders"]:
        where = f"{order['device']}, {order['precision']}, batch {order['batch']}"
        lines.append(
            f"{where}: the order of {order['models']} networks by time here and by {order['by']} there has a rank "
            f"correlation of {order['spearman']:.3f}"
        )
        for kind in ("slower", "faster"):
            moved = [each for each in order["displaced"] if each["here"] == kind]
            if moved:
                names = ", ".join(f"{each['name']} ({each['published_rank']:g} to {each['rank']:g})" for each in moved)
                lines.append(f"much {kind} here than its rank there: {names}")
    if not found["orders"]:
        lines.append(f"fewer than {_FEWEST} networks that were timed have figures: there is no order to compare")
    elif found["orders"][0]["by"] == _GMACS:
        lines.append("torchvision publishes no times: the order there is that of multiply-accumulates")
    else:
        lines.append(f"the times there are {_MEASURED_THERE}: only their order can be compared with this machine's")
    lines.append("parameters, depth and MiB are of the publisher's own network, MiB of its weights in float32")
    if found["left_out"]:
        lines.append(f"without figures of {found['against']}: {', '.join(found['left_out'])}")
    return lines


def cells(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows as text, for COLUMNS."""
    return [tuple(map(_text, line)) for line in _lines(found)]


def difference_cells(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The figures that differ, as text, for DIFFERENCES."""
    return [tuple(map(_text, line)) for line in _differences(found)]


def fragment(found: dict[str, Any]) -> str:
    """The comparison as a part of an HTML page."""
    differences = _differences(found)
    parts = [pages.heading(f"Beside {found['against']}"), *map(pages.paragraph, told(found))]
    parts.append(pages.table(COLUMNS, _lines(found)))
    if differences:
        parts += [pages.heading("Figures that differ"), pages.table(DIFFERENCES, differences)]
    return "".join(parts)


# ---- one row


def _beside(row: Row, variant: Variant, published: Published, source: Publisher) -> dict[str, Any]:
    facts, latency = variant.facts, row["latency_ms"]
    assert facts is not None
    times = {"cpu": published.cpu_ms, "cuda": published.gpu_ms} if source == "keras" else {}
    measured = {key: row[key] for key in ("parameters", "depth", "macs", "size_mib", "weights", "accuracy")}
    return {
        **{key: row[key] for key in ("name", "source", "precision", "device", "batch", "input")},
        "builder": variant.builder,
        # Whether the very network was measured that the figures are of, or another implementation of it.
        "same": row["source"] == ("keras" if source == "keras" else "torch"),
        "parameters": facts.total if published.counts == "total" else facts.trainable,
        "depth": facts.depth,
        "size_mib": facts.total * 4 / 2**20,
        "published": {
            "parameters": published.parameters,
            "depth": published.depth,
            "size_mib": published.size_mb,
            "top1": published.top1,
            "top5": published.top5,
            "ms": times.get(row["device"]),
            "gmacs": published.gmacs,
        },
        "measured": measured
        | {key: row[key] if row["accuracy"] == "measured" else None for key in ("top1", "top5")}
        | {"latency_ms": latency["median"] if latency else None},
        "rank": None,
        "published_rank": None,
    }


# ---- what is counted


def _disagreements(rows: Sequence[dict[str, Any]], source: Publisher) -> list[dict[str, Any]]:
    """Published figures that the publisher's network does not have, then what of a row is another implementation's."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        name, variant = row["name"], variant_of(row["name"], source)
        assert variant is not None and variant.facts is not None
        for each in disagreements(variant):
            found[name, each.figure] = _differs(name, each.figure, each.counted, each.published, each.reason)
        for figure, has in (("parameters", variant.facts.total), ("depth", variant.facts.depth)):
            own = row["measured"][figure]
            if own is not None and own != has:
                kind = f"{figure} of {row['source']}"
                found[name, kind] = _differs(name, kind, own, has, _why(row, figure, source))
        own, has = row["measured"]["macs"], variant.facts.macs
        if own is not None and abs(own - has) > 0.01 * has:  # what the order is to be judged by
            kind = f"GMACs of {row['source']}"
            found[name, kind] = _differs(name, kind, own / 1e9, has / 1e9, _why(row, "macs", source))
    return list(found.values())


def _differs(name: str, figure: str, counted: float, published: float, reason: str | None) -> dict[str, Any]:
    return {"name": name, "figure": figure, "counted": counted, "published": published, "reason": reason}


def _why(row: dict[str, Any], figure: str, source: Publisher) -> str | None:
    """Why a row's figure is not that of the publisher's own network; None where nothing says so."""
    spec, variant = find(row["name"]), variant_of(row["name"], source)
    if variant and variant.preprocess and figure == "macs" and (*variant.preprocess.size,) != (*row["input"][1:],):
        mine, theirs = ("x".join(map(str, size)) for size in (row["input"][1:], variant.preprocess.size))
        return f"measured at {mine} pixels, {NAMES[source]}'s network takes {theirs}"
    if row["same"] or "keras" not in spec.sources:
        return None
    builder = spec.sources["keras"].builder
    return next((why for form, of, why in _IMPLEMENTATIONS if of == figure and re.fullmatch(form, builder)), None)


# ---- what is timed


def _orders(rows: list[dict[str, Any]], source: Publisher) -> list[dict[str, Any]]:
    """The rank correlation of each device, precision and batch; ranks go into the rows."""
    by, key = (_GMACS, "gmacs") if source == "torchvision" else ("published time", "ms")
    groups: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["published"][key] is not None and row["measured"]["latency_ms"] is not None:
            group = groups[row["device"], row["precision"], row["batch"]]
            if row["name"] not in group or row["same"]:  # once, and rather the publisher's own
                group[row["name"]] = row
    orders = []
    for (device, precision, batch), members in groups.items():
        chosen = list(members.values())
        if len(chosen) < _FEWEST:
            continue
        here = [row["measured"]["latency_ms"] for row in chosen]
        there = [row["published"][key] for row in chosen]
        for row, rank, published_rank in zip(chosen, ranks(here), ranks(there), strict=True):
            row["rank"], row["published_rank"] = float(rank), float(published_rank)
        orders.append(
            {
                "device": device, "precision": precision, "batch": batch, "by": by, "models": len(chosen),
                "spearman": spearman(there, here), "displaced": _displaced(chosen),
            }
        )  # fmt: skip
    return orders


def _displaced(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The networks that are a fifth of the list or more from their published rank, the farthest first."""
    far = [row for row in rows if abs(row["rank"] - row["published_rank"]) >= max(2, len(rows) / 5)]
    far.sort(key=lambda row: -abs(row["rank"] - row["published_rank"]))
    return [
        {
            "name": row["name"], "rank": row["rank"], "published_rank": row["published_rank"],
            "here": "slower" if row["rank"] > row["published_rank"] else "faster",
        }
        for row in far[:_SHOWN]
    ]  # fmt: skip


# ---- as people read it


def _lines(found: dict[str, Any]) -> list[tuple[Value, ...]]:
    lines: list[tuple[Value, ...]] = []
    for row in found["rows"]:
        published, measured = row["published"], row["measured"]
        lines.append(
            (
                row["name"], row["source"], row["precision"], row["batch"], row["device"],
                row["parameters"], published["parameters"], row["depth"], published["depth"],
                row["size_mib"], published["size_mib"], measured["top1"], published["top1"],
                measured["latency_ms"], row["rank"], row["published_rank"],
            )
        )  # fmt: skip
    return lines


def _differences(found: dict[str, Any]) -> list[tuple[Value, ...]]:
    keys = ("name", "figure", "counted", "published")
    return [(*(each[key] for key in keys), each["reason"] or "unexplained") for each in found["disagreements"]]


def _text(value: Value) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
