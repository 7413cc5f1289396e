"""What int8.py found as the README's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

START, END = "<!-- int8:begin -->", "<!-- int8:end -->"
"""What stands around the table in the README."""

_OTHERS = ("onnxruntime's own", "NNCF")
_KINDS = {"stock": _OTHERS[0], "NNCF": _OTHERS[1]}


def markdown(record: Mapping[str, Any]) -> str:
    """One line a network: top-1 and the share of the same answers where it is trained, and times beside float32's.

    Of onnxruntime's two kinds of ranges the one that keeps more answers.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        rows.setdefault(row["row"], []).append(row)
    others = [name for name in _OTHERS if any(_of(name, found) for found in rows.values())]
    heads = [
        "",
        "top-1 % in float32",
        "edgezoo: top-1 %, same answer %, time",
        *(f"{name}: the same" for name in others),
    ]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name, found in rows.items():
        files = {row["file"]: row for row in found}
        trained = files["float32"]["trained"]
        cells = [_cell(files["edgezoo"], trained), *(_cell(_of(other, found), trained) for other in others)]
        lines.append(f"| {name} | {files['float32']['top1'] if trained else '–'} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _conditions(record["rows"]), ""])


def _of(other: str, found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    named = [row for row in found if _KINDS.get(row["file"].partition(" ")[0]) == other]
    return max(named, key=lambda row: float(row["agreement"]), default=None)


def _cell(row: Mapping[str, Any] | None, trained: bool) -> str:
    if row is None:
        return "–"
    return f"{row['top1']}, {row['agreement']:.1f}, {row['ratio']:.2f}" if trained else f"{row['ratio']:.2f}"


def _conditions(rows: Sequence[Mapping[str, Any]]) -> str:
    dates, machines = sorted({row["date"] for row in rows}), sorted({row["machine"] for row in rows})
    versions = sorted({f"onnxruntime {row['versions']['onnxruntime-gpu']}" for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"`benchmarks/int8.py`, {when}: {'; '.join(machines)}, {', '.join(versions)}; 100 pictures calibrate, the "
        "others measure; times of one interleaved run of each row. Networks without a top-1 are untrained: their times "
        "alone count."
    )
