"""A short form of the comparison of predict_many with a loop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import throughput


def test_throughput(lenet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    argv = [lenet_file, "--limit", 25, "--rounds", 2, "--batch", 1, 4, "--workers", 0, 2, "--json", file]
    monkeypatch.setattr(sys, "argv", ["throughput.py", *map(str, argv)])
    assert throughput.main() == 0
    record = json.loads(file.read_text())
    assert (record["pictures"], record["rounds"]) == (25, 2)
    assert {"date", "machine", "versions", "file"} <= set(record)
    found = record["pictures_per_s"]
    assert list(found)[:2] == ["a loop of predict", "predict_many"]
    assert len(found) == 2 + 2 * 2
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in found.values())
