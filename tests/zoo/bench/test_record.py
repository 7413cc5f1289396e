"""Records: read, refused, written whole; and the schema, held against records and against what is none."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from runtime.errors import InvalidInput, OutputNotWritable
from tests.zoo.bench.records import make_record
from zoo.bench.record import SCHEMA, SCHEMA_FILE, identity, read, write

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def test_the_schema_is_one_and_of_this_version() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    assert VALIDATOR.schema["properties"]["schema"] == {"const": SCHEMA}


def test_records_are_valid() -> None:
    for record in (make_record(), make_record(devices=("cpu", "cuda"), problems=("vgg16",)), make_record([])):
        VALIDATOR.validate(record)


def changed(**values: Any) -> dict[str, Any]:
    record = copy.deepcopy(make_record(["lenet5"]))
    record["rows"][0] |= values
    return record


@pytest.mark.parametrize(
    "record",
    [
        changed(latency_ms=None),  # without a time there is a reason
        changed(problem="a reason beside a time"),
        changed(precision="fp8"),
        changed(top1=101.0),
        changed(surprise=1),
        changed(samples_ms=[1.0] * 257),
        changed(latency_ms={"median": 1.0}),
        {**make_record(), "schema": SCHEMA + 1},
        {name: part for name, part in make_record().items() if name != "machine"},
    ],
)
def test_what_is_no_record_is_refused_by_the_schema(record: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(record)


def test_round_trip(tmp_path: Path) -> None:
    record = make_record()
    write(record, tmp_path / "a.json")
    assert read(tmp_path / "a.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert len({identity(row) for row in record["rows"]}) == len(record["rows"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "is no record"),
        ("[]", "is no record"),
        ('{"rows": []}', "is no record"),
        ('{"schema": 99}', f"version 99, this edgezoo reads version {SCHEMA}"),
        ('{"schema": 1, "rows": []}', "without machine, settings, noise"),
        ("[" * 200_000, "is no record"),
    ],
)
def test_files_that_are_no_record(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidInput, match=word):
        read(tmp_path / "a.json")


def test_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write({"a": float("nan")}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputNotWritable):
        write({}, tmp_path / "nowhere" / "a.json")
