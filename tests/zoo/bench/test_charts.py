"""The charts of a record: the front against brute force, and as many points as there are figures."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET

import pytest

from tests.zoo.bench.records import NETWORKS, make_record
from zoo import plot
from zoo.bench import charts

SVG = "{http://www.w3.org/2000/svg}"


def _titles(drawing: str | None, kind: str = "point") -> list[str]:
    assert drawing is not None
    root = ET.fromstring(drawing)
    return [each.findtext(f"{SVG}title") or "" for each in root.iter() if each.attrib.get("class") == kind]


def test_the_front_is_what_nothing_else_beats() -> None:
    rng = random.Random(0)
    for _ in range(300):
        points = [(float(rng.randint(1, 8)), float(rng.randint(1, 8))) for _ in range(rng.randint(0, 12))]
        expected = {
            index
            for index, (x, y) in enumerate(points)
            if not any(ox <= x and oy >= y and (ox < x or oy > y) for ox, oy in points)
        }
        front = charts.pareto(points)
        assert set(front) == expected
        assert [points[index] for index in front] == sorted(points[index] for index in front)
        assert len(front) == len(set(front))


def test_every_row_with_a_time_and_an_accuracy_is_a_point() -> None:
    record = make_record(problems=["resnet50"])
    with_accuracy = sum(top1 is not None for *_, top1, _ in NETWORKS) - 1
    titles = _titles(charts.latency_accuracy(record, plot.LIGHT))
    assert len(titles) == with_accuracy  # int8 has no published accuracy
    row = next(row for row in record["rows"] if row["name"] == "mobilenet_v2")
    (told,) = (title for title in titles if title.startswith("mobilenet_v2 "))
    assert f"{row['latency_ms']['median']:.2f} ms" in told
    assert told.endswith("top-1 71.9 % published by torchvision")
    assert len(_titles(charts.size_latency(record, plot.LIGHT))) == 2 * (len(NETWORKS) - 1)
    assert len(_titles(charts.distributions(record, plot.LIGHT), "spread")) == 2 * (len(NETWORKS) - 1)


def test_published_accuracy_is_hollow_and_measured_is_filled() -> None:
    mixed = make_record(["alexnet", "vgg16"], precisions=("fp32",))
    mixed["rows"][1] |= {"accuracy": "measured"}
    drawn = charts.latency_accuracy(mixed, plot.LIGHT)
    assert drawn is not None
    root = ET.fromstring(drawn)
    fills = {
        (each.findtext(f"{SVG}title") or "").split()[0]: each.attrib["fill"]
        for each in root.iter()
        if each.attrib.get("class") == "point"
    }
    assert fills == {"alexnet": plot.LIGHT.ground, "vgg16": plot.LIGHT.series[0]}
    words = {each.text for each in root.iter(f"{SVG}text")}
    assert {"accuracy published", "measured here"} <= words


def test_devices_and_batches_are_never_in_one_panel() -> None:
    record = make_record(["alexnet", "vgg16"], devices=("cpu", "cuda"), batches=(1, 32))
    drawn = charts.size_latency(record, plot.LIGHT)
    assert drawn is not None
    panels = [f"{device}, batch {batch}" for device in ("CPU", "GPU") for batch in (1, 32)]
    assert all(f"time of one run on the {panel} (ms)" in drawn for panel in panels)
    height = float(ET.fromstring(drawn).attrib["height"])
    alone = ET.fromstring(charts.size_latency(make_record(["alexnet", "vgg16"]), plot.LIGHT) or "")
    assert height > 3 * float(alone.attrib["height"])


@pytest.mark.parametrize("record", [make_record(["alexnet"], problems=["alexnet"]), make_record([])])
def test_where_there_is_nothing_there_is_no_chart(record: charts.Record) -> None:
    assert [draw(record, plot.LIGHT) for _, draw, _ in charts.CHARTS.values()] == [None] * 3
    assert all(instead for *_, instead in charts.CHARTS.values())


def test_without_accuracy_two_charts_are_left() -> None:
    record = make_record(["alexnet", "vgg16"], accuracy=None)
    drawn = {name: draw(record, plot.LIGHT) for name, (_, draw, _) in charts.CHARTS.items()}
    assert [name for name, drawing in drawn.items() if drawing is None] == ["latency-accuracy"]


def test_the_histogram_holds_every_sample_that_is_in_range() -> None:
    """Steps of a path: their heights and widths add up to the samples between the scale's ends."""
    record = make_record(["alexnet"], precisions=("fp32",))
    (row,) = record["rows"]
    scale = charts.spread([row])
    path = re.search(r'<path d="M0\.0 19\.0([^"]*)V19\.0Z"', charts.strip(row, scale, plot.LIGHT))
    assert path is not None
    steps = [(19 - float(y), float(x)) for y, x in re.findall(r"V([\d.]+)h([\d.]+)", path[1])]
    assert sum(width for _, width in steps) == pytest.approx(110, abs=0.5)
    median = row["latency_ms"]["median"]
    inside = [100 * (sample / median - 1) for sample in row["samples_ms"]]
    inside = [value for value in inside if scale.low <= value < scale.high]
    bins = [0] * 72
    for value in inside:
        bins[int(72 * (value - scale.low) / (scale.high - scale.low))] += 1
    area = sum(height * width for height, width in steps)
    assert area == pytest.approx(18 / max(bins) * len(inside) * 110 / 72, rel=0.02)
    beyond = sum(100 * (sample / median - 1) >= scale.high for sample in row["samples_ms"])
    assert beyond > 0
    assert f"{beyond} beyond the right edge" in charts.strip(row, scale, plot.LIGHT)


def test_long_names_and_odd_ones_stay_whole_in_the_title() -> None:
    name = 'my <network> & "its" ' + 60 * "x" + " end"
    drawn = charts.distributions(make_record([name]), plot.LIGHT)
    assert drawn is not None
    assert all(title.startswith(name) for title in _titles(drawn, "spread"))
    words = [each.text or "" for each in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert max(map(len, words)) < 130
    assert any("..." in word and word.endswith("end fp32") for word in words)
