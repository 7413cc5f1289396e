"""The README's table of int8 is what the record says."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import int8, int8_table


def row(name: str, file: str, agreement: float, *, trained: bool = True) -> dict[str, Any]:
    told = {"date": "2026-11-22", "machine": "a machine", "versions": {"onnxruntime-gpu": "1.31.1"}}
    figures = {"top1": agreement - 10, "agreement": agreement, "ratio": agreement / 200}
    return {"row": name, "file": file, "trained": trained, **figures, **told}


def test_the_table_has_the_better_of_onnxruntime_s_ranges() -> None:
    rows = [row("a", "float32", 100.0), row("a", "edgezoo", 97.0)]
    rows += [row("a", "stock min-max", 90.0), row("a", "stock percentile", 91.5)]
    rows += [row("b", kind, 50.0, trained=False) for kind in ("float32", "edgezoo", "stock min-max")]
    lines = int8_table.markdown({"rows": rows}).splitlines()
    assert lines[2] == "| a | 90.0 | 87.0, 97.0, 0.48 | 81.5, 91.5, 0.46 |"
    assert lines[3] == "| b | – | 0.25 | 0.25 |"


def test_the_readme_has_the_table_of_the_record(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    between = re.findall(f"{int8_table.START}\n(.*?){int8_table.END}", text, re.DOTALL)
    kept = json.loads(int8.RECORD.read_text(encoding="utf-8"))
    assert between == [int8_table.markdown(kept)], "run `python benchmarks/int8.py --table` and paste what it prints"
