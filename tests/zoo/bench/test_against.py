"""A record beside published tables: every figure that differs has its reason, orders are those of the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.bench.records import make_record
from zoo.bench.against import (
    COLUMNS,
    DIFFERENCES,
    Publisher,
    against,
    cells,
    difference_cells,
    fragment,
    told,
    variant_of,
)
from zoo.models import MODELS, find


def everything() -> dict[str, Any]:
    """A record of the whole catalogue, every source, with the catalogue's counts."""
    record = make_record(["lenet5"], precisions=["fp32"])
    (pattern,) = record["rows"]
    record["rows"] = []
    for place, spec in enumerate(MODELS):
        for source, variant in spec.sources.items():
            facts = variant.facts
            assert facts is not None
            size = variant.preprocess.size if variant.preprocess else (28, 28)
            record["rows"].append(
                pattern
                | {"name": spec.name, "source": source, "input": [3, *size], "parameters": facts.total}
                | {"trainable": facts.trainable, "depth": facts.depth, "macs": facts.macs}
                | {"latency_ms": pattern["latency_ms"] | {"median": 1.0 + place}}
            )
    return record


def published(root: Path, table: str) -> dict[str, dict[str, str]]:
    """A publisher's table, read without the code under test."""
    with (root / "zoo" / "tables" / table).open(encoding="utf-8", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("source", ["keras", "torchvision"])
def test_every_figure_that_differs_in_the_whole_catalogue_has_its_reason(source: Publisher) -> None:
    found = against(everything(), source)
    assert [each for each in found["disagreements"] if not each["reason"]] == []
    assert len(found["rows"]) >= 60
    assert "unexplained" not in json.dumps(difference_cells(found))


def test_what_is_said_of_the_implementations_is_so() -> None:
    differs = {
        (each["name"], each["figure"]): each["counted"] - each["published"]
        for each in against(everything(), "keras")["disagreements"]
    }
    for spec in MODELS:
        got = differs.get((spec.name, "parameters of torch"))
        if got is None:
            continue
        facts = spec.sources["torch"].facts
        assert facts is not None
        channels = (facts.total - facts.trainable) // 2  # of all normalisation layers: two statistics each
        if spec.name.startswith("inception"):
            assert got == channels  # a scale for each
        elif spec.name.startswith("efficientnet"):
            assert got == -7  # three means, three variances and a count
            assert differs[spec.name, "depth of torch"] == -1
        elif spec.name.endswith("_v2"):
            assert -channels < got < 0
        else:
            assert got == -channels  # a bias for each: every convolution is followed by a normalisation
    assert ("resnet50", "parameters of torch") in differs


def test_published_values_are_the_tables(root: Path) -> None:
    keras = published(root, "keras_applications.csv")
    (row,) = against(make_record(["vgg16"], precisions=["fp32"]), "keras")["rows"]
    assert row["published"]["ms"] == float(keras["VGG16"]["cpu_ms_per_step"])
    assert row["published"]["top1"] == float(keras["VGG16"]["top1_pct"])
    assert row["published"]["depth"] == row["depth"] == 16
    assert (row["parameters"], row["published"]["parameters"]) == (138_357_544, 138_357_544)
    assert row["size_mib"] == pytest.approx(138_357_544 * 4 / 2**20)
    assert row["same"] is False  # measured from torch, published of Keras' own
    (row,) = against(make_record(["vgg16"], precisions=["fp32"], devices=["cuda"]), "keras")["rows"]
    assert row["published"]["ms"] == float(keras["VGG16"]["gpu_ms_per_step"])


def with_times(record: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
    """The record with these medians."""
    for row in record["rows"]:
        row["latency_ms"] = (row["latency_ms"] or {}) | {"median": times[row["name"]]}
    return record


def test_the_order_is_keras_own_where_times_are(root: Path) -> None:
    keras = published(root, "keras_applications.csv")
    names = ["vgg16", "resnet50", "mobilenet_v2", "xception", "densenet121", "efficientnet_b0", "efficientnet_b7"]
    builders = {name: find(name).sources["keras"].builder.partition(":")[2] for name in names}
    there = {name: float(keras[builder]["cpu_ms_per_step"]) for name, builder in builders.items()}
    record = make_record(names, precisions=["fp32"])
    # Another machine, a hundred times as fast, with the same order; then the other way round.
    (order,) = against(with_times(record, {name: time / 100 for name, time in there.items()}), "keras")["orders"]
    assert order["spearman"] == pytest.approx(1)
    assert (order["by"], order["models"], order["displaced"]) == ("published time", 7, [])
    found = against(with_times(record, {name: 1 / time for name, time in there.items()}), "keras")
    assert found["orders"][0]["spearman"] == pytest.approx(-1)
    slowest = max(there, key=lambda name: there[name])
    moved = {each["name"]: each for each in found["orders"][0]["displaced"]}
    assert moved[slowest] == {"name": slowest, "rank": 1, "published_rank": 7, "here": "faster"}
    assert any(slowest in line and "much faster" in line for line in told(found))


def test_torchvision_has_no_times_and_says_so() -> None:
    record = make_record(["vgg16", "resnet50", "mobilenet_v2", "alexnet"], precisions=["fp32"])
    gmacs = {"vgg16": 15.47, "resnet50": 4.09, "mobilenet_v2": 0.3, "alexnet": 0.714}
    found = against(with_times(record, gmacs), "torchvision")
    assert found["orders"][0]["spearman"] == pytest.approx(1)
    assert found["orders"][0]["by"] == "GMACs"
    assert any("publishes no times" in line for line in told(found))
    assert all(row["published"]["ms"] is None for row in found["rows"])


def test_a_network_measured_twice_is_ranked_once_and_rather_as_published() -> None:
    record = everything()
    record["rows"] = [row for row in record["rows"] if row["name"] in ("vgg16", "resnet50", "mobilenet_v2", "xception")]
    found = against(record, "keras")
    assert found["orders"][0]["models"] == 4
    ranked = {(row["name"], row["source"]) for row in found["rows"] if row["rank"]}
    assert ranked == {(name, "keras") for name in ("vgg16", "resnet50", "mobilenet_v2", "xception")}


def test_what_cannot_be_compared_is_left_out() -> None:
    record = make_record(["lenet5", "my_net", "vgg16"], problems=["vgg16"], precisions=["fp32"])
    found = against(record, "keras")
    assert found["left_out"] == ["lenet5", "my_net"]
    assert [row["name"] for row in found["rows"]] == ["vgg16"]
    assert found["orders"] == []
    assert any("there is no order" in line for line in told(found))
    assert variant_of("my_net", "keras") is None


def test_accuracy_stands_beside_only_where_it_was_measured() -> None:
    for accuracy in ("published", "measured"):
        record = make_record(["vgg16"], precisions=["fp32"], accuracy=accuracy)
        (row,) = against(record, "torchvision")["rows"]
        assert (row["measured"]["top1"] is None) == (accuracy == "published")
        assert row["published"]["top1"] == 71.592


def test_a_figure_that_nothing_explains_is_called_so() -> None:
    record = make_record(["vgg16"], precisions=["fp32"])
    record["rows"][0]["depth"] = 17
    found = against(record, "torchvision")
    assert difference_cells(found) == [("vgg16", "depth of torch", "17", "16", "unexplained")]


def test_text_json_and_page_hold_the_rows() -> None:
    found = against(make_record(batches=[1, 32]), "keras")
    json.dumps(found, allow_nan=False)
    assert {len(line) for line in cells(found)} == {len(COLUMNS)}
    assert {len(line) for line in difference_cells(found)} == {len(DIFFERENCES)}
    page = fragment(found)
    assert page.count("<table") == page.count("</table>") == 2
    assert page.count("<tr") == 2 + len(cells(found)) + len(difference_cells(found))
    assert "Keras&#x27; network normalises" in page
