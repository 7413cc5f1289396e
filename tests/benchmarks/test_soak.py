"""A short form of the soak, and what it calls an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import runtime
from benchmarks import soak

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")


def test_soak(lenet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    argv = [lenet_file, "--count", 1300, "--threads", 8, "--json", file]
    monkeypatch.setattr(sys, "argv", ["soak.py", *map(str, argv)])
    soak.main()  # how much memory is the benchmark's own matter
    record = json.loads(file.read_text())
    assert (record["pictures"], record["threads"], record["errors"]) == (1300, 8, [])
    assert {"date", "machine", "versions", "file", "seconds", "growth_percent"} <= set(record)
    assert record["memory_mib"]["after_the_first"] > 0


@pytest.mark.parametrize("fault", ["another answer", "RuntimeError: stopped"])
def test_what_goes_wrong_in_a_soak_is_told(lenet_file: Path, fault: str) -> None:
    class Faulty(runtime.Model):
        asked = 0

        def predict(self, image: Any, *, top: int = 5) -> Any:
            self.asked += 1
            if self.asked > 200:
                if fault.startswith("RuntimeError"):
                    raise RuntimeError("stopped")
                top = 1
            return super().predict(image, top=top)

    model = Faulty(lenet_file)
    found = soak.soak(model, soak.pictures(model, None), 500, 3)
    assert fault in found["errors"][0]
    assert len(found["errors"]) <= 3  # the others stop
