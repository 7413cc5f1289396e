"""The job that verifies the catalogue: what it calls a fault, what it does again, what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import catalogue
from zoo.models import MODELS, find

LENET = [(find("lenet5"), "torch"), (find("lenet5"), "keras")]


def row(**changes: Any) -> dict[str, Any]:
    versions = {name: catalogue._version(name) for name in catalogue.PACKAGES}
    good = {
        "name": "lenet5", "source": "torch", "input": [28, 28], "relative_error": 1e-6, "tolerance": 1e-4,
        "macs": 416_520, "peak_memory_gb": 1.0, "seconds": 5.0, "bytes": 250_000, "date": "2026-01-02",
        "versions": versions,
    }  # fmt: skip
    return good | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, []),
        ({"error": "zoo: error: no"}, ["zoo: error: no"]),
        ({"relative_error": 2e-4}, ["relative error 0.0002"]),
        ({"relative_error": float("nan")}, ["relative error nan"]),
        ({"macs": 5}, ["5 MACs in the file, 416,520 in the row"]),
        ({"peak_memory_gb": 12.5}, ["12.5 GB of memory, 12.0 allowed"]),
    ],
)
def test_faults(changes: dict[str, Any], says: list[str]) -> None:
    assert catalogue.faults(row(**changes)) == says


def run(record: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, *, again: bool = False) -> list[str]:
    """The sources that were exported for a record of LeNet-5."""
    done: list[str] = []

    def exported(spec: Any, framework: str, folder: Path) -> dict[str, Any]:
        done.append(framework)
        return row(source=framework, seconds=7.0)

    monkeypatch.setattr(catalogue, "exported", exported)
    catalogue.run(LENET, record, folder / "record.json", again=again)  # type: ignore[arg-type]
    return done


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = {"rows": {"lenet5/torch": row()}}
    assert run(record, tmp_path, monkeypatch) == ["keras"]
    kept = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [(name, row["seconds"]) for name, row in kept.items()] == [("lenet5/torch", 5.0), ("lenet5/keras", 7.0)]
    assert run({"rows": kept}, tmp_path, monkeypatch) == []
    assert run({"rows": kept}, tmp_path, monkeypatch, again=True) == ["torch", "keras"]


@pytest.mark.parametrize("changes", [{"error": "no"}, {"macs": 5}, {"versions": {"torch": "1.0"}}])
def test_what_is_at_fault_or_of_other_versions_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    record = {"rows": {"lenet5/torch": row(**changes), "lenet5/keras": row(source="keras")}}
    assert run(record, tmp_path, monkeypatch) == ["torch"]


def test_every_row_is_wanted_by_default() -> None:
    assert len(catalogue.wanted([])) == sum(len(spec.sources) for spec in MODELS)
    assert catalogue.wanted(["LeNet-5"]) == LENET


def test_the_table_for_people() -> None:
    failed = {key: value for key, value in row(name="alexnet", error="zoo: no", seconds=65).items() if key != "macs"}
    record = {"machine": {"cpu": "a CPU", "cores": 2}, "rows": {"a": row(), "b": failed}}
    text = catalogue.markdown(record)
    assert "2 exports" in text
    assert "| lenet5 | torch | 28x28 | 0.4 M | 1.0e-06 | 0.2 | 5 | 1.0 |  |" in text
    assert "| alexnet | torch |  | 0.0 M | nan | 0.0 | 65 | 1.0 | zoo: no |" in text
