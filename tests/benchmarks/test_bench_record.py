"""The project's own record of `zoo bench`: whole, valid, and the table beside it is its table."""

import json
from pathlib import Path

import jsonschema

from zoo.bench.record import SCHEMA_FILE, read
from zoo.bench.rows import MISSION
from zoo.bench.table import markdown
from zoo.models import find
from zoo.published import lookup

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_the_table_is_the_records() -> None:
    record = read(RESULTS / "bench.json")
    assert (RESULTS / "bench.md").read_text(encoding="utf-8") == markdown(record), (
        "zoo bench --read benchmarks/results/bench.json --markdown benchmarks/results/bench.md"
    )


def test_every_row_is_there_with_what_the_catalogue_says() -> None:
    record = read(RESULTS / "bench.json")
    jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    floats = {row["name"]: row for row in record["rows"] if row["precision"] == "fp32"}
    assert list(floats) == [spec.name for spec in MISSION]
    assert record["finished"] and not [row["problem"] for row in record["rows"] if row["problem"]]
    for name, row in floats.items():
        variant = find(name).variant(row["source"])[1]
        assert variant.facts is not None
        assert (row["parameters"], row["depth"], row["macs"]) == (
            variant.facts.total, variant.facts.depth, variant.facts.macs,
        )  # fmt: skip
        assert (row["accuracy"] == "published") == (lookup(variant) is not None)
