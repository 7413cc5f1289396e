"""What peers.py found as tables: the README's from the whole record, and one for the terminal of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peer_runners import TOLERANCE
from zoo.bench.columns import digits

START, END = "<!-- peers:begin -->", "<!-- peers:end -->"
"""What stands around the table in the README."""

_LIBRARIES = ("edgezoo", "onnxruntime", "PyTorch", "torch.compile", "Keras", "OpenVINO", "LiteRT", "ncnn")
_FLOAT, FAR = "fp32", "†"


def markdown(record: Mapping[str, Any]) -> str:
    """One line a network, one column a library: milliseconds in float32, and in its fastest other precision where that
    is faster. The shortest time of a line is bold, of those that keep the scores near float32's; a dagger has the
    others. A dash: not measured, for a reason that the record has."""
    lines = [
        f"| | {' | '.join(_LIBRARIES)} |",
        f"|---|{'---:|' * len(_LIBRARIES)}",
        *(_line(row) for row in record["rows"]),
    ]
    return "\n".join([*lines, "", *_conditions(record), ""])


def _line(row: Mapping[str, Any]) -> str:
    timed = {name: entry for name, entry in (row["ours"]["files"] | row["peers"]).items() if entry["ms"]}
    best = min((entry["ms"] for entry in timed.values() if not _far(entry)), default=None)
    cells = [_cell(library, timed, best) for library in _LIBRARIES]
    return f"| {row['model']} | {' | '.join(cells)} |"


def _far(entry: Mapping[str, Any]) -> bool:
    return bool(entry["relative_error"] > TOLERANCE)


def _cell(library: str, timed: Mapping[str, Mapping[str, Any]], best: float | None) -> str:
    own = {name.rpartition(" ")[2]: entry for name, entry in timed.items() if name.rpartition(" ")[0] == library}
    if not own:
        return "–"
    fastest = min(own, key=lambda precision: float(own[precision]["ms"]))
    texts = []
    for precision in dict.fromkeys(precision for precision in (_FLOAT, fastest) if precision in own):
        entry = own[precision]
        text = f"{digits(entry['ms'])}{FAR if _far(entry) else ''}"
        text = f"**{text}**" if entry["ms"] == best else text
        texts.append(text if precision == _FLOAT else f"{text} {precision}")
    return " / ".join(texts)


def _conditions(record: Mapping[str, Any]) -> list[str]:
    machine, settings, versions = record["machine"], record["settings"], record["versions"]
    named = ", ".join(f"{name} {text}" for name, text in versions.items() if name not in ("edgezoo", "numpy", "pnnx"))
    rows = record["noise"]["rows"]
    noisy = f" Other programs were at work, or the machine drifted, during {', '.join(rows)}." if rows else ""
    return [
        f"`benchmarks/peers.py`, {record['date'][:10]}: {machine['cpu']}, {settings['threads']} threads, one picture, "
        f"milliseconds (median), {named}. {FAR}: scores further than {TOLERANCE:.0%} of the largest from float32's."
        f"{noisy}"
    ]


def of_row(row: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Columns and lines of one row of the record: every peer with its interval, its error and how it was opened."""
    lines: list[tuple[str, ...]] = []
    for name, entry in (row["ours"]["files"] | row["peers"]).items():
        if entry["ms"]:
            spread = f"{digits(entry['low'])} to {digits(entry['high'])}"
            lines.append((name, digits(entry["ms"]), spread, f"{entry['relative_error']:.0e}", entry["setting"]))
        else:
            lines.append((name, "", "", "", entry["skipped"]))
    return ["peer", "ms", "95 % interval", "error", "setting, or why it has no time"], lines
