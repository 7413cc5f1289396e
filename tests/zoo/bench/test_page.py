"""The page of a record: well-formed, complete, on its own."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from tests.zoo.bench.records import NETWORKS, make_record
from tests.zoo.test_page import Tags
from zoo.bench import columns
from zoo.bench.page import page

NAMES = ["lenet5", "alexnet", "vgg16"]
RECORDS = {
    "usual": make_record(),
    "both devices": make_record(NAMES, precisions=("fp32", "fp16", "int8"), devices=("cpu", "cuda"), batches=(1, 32)),
    "measured, noisy, unsettled": make_record(NAMES, accuracy="measured", noisy=True, unsettled=["vgg16"]),
    "no accuracy": make_record(NAMES, accuracy=None),
    "one row": make_record(["alexnet"], precisions=("fp32",)),
    "problems only": make_record(NAMES, problems=NAMES),
    "odd names": make_record(['<script>alert(1)</script> & "x"', "y" * 300, "模型"]),
    "no rows": make_record([]),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())
def test_a_page_is_well_formed_and_asks_for_nothing(record: dict[str, Any]) -> None:
    text = page(record)
    tags = Tags(text)
    assert tags.open == []
    assert tags.seen.count("script") == 1
    assert tags.seen.count("tr") - text.count("<table><tr><th>") > len(columns.lines(record))
    assert not re.search(r"http|<link|<img|src=|href=|@import|url\(", text)


def test_all_rows_and_all_columns_are_there() -> None:
    record = RECORDS["usual"]
    text = page(record)
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    assert body.count("<tr>") == len(record["rows"]) == 2 * len(NETWORKS)
    for column in columns.columns(record):
        assert f">{html.escape(column.head)}</th>" in text
    assert body.count('role="img"') == len(record["rows"])  # the samples of each
    medians = {str(row["latency_ms"]["median"]) for row in record["rows"]}
    assert medians <= set(re.findall(r'data-value="([^"]*)"', body))


def test_the_charts_are_there_where_there_is_something_to_draw() -> None:
    drawn = {name: set(re.findall(r'<figure id="([^"]*)"', page(record))) for name, record in RECORDS.items()}
    assert drawn["usual"] == {"latency-accuracy", "size-latency", "distributions"}
    assert drawn["no accuracy"] == {"size-latency", "distributions"}
    assert drawn["problems only"] == set()
    assert "No row has both a time and an accuracy" in page(RECORDS["no accuracy"])
    assert page(RECORDS["problems only"]).count("there is nothing to draw") == 3


def test_noise_comes_before_any_figure() -> None:
    text = page(RECORDS["measured, noisy, unsettled"])
    assert text.index("This run was noisy") < text.index("<h2>")
    assert "This run was noisy" not in page(RECORDS["usual"])


def test_the_conditions_and_the_marks_are_explained() -> None:
    text = page(RECORDS["usual"])
    for words in ("interleaved rounds", "AMD EPYC", "* published by Keras Applications and torchvision", "† untrained"):
        assert words in text


def test_names_are_text() -> None:
    text = page(RECORDS["odd names"])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
