"""Two records: what is a regression, what is noise, and what may not be compared at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from runtime.errors import InvalidInput
from tests.zoo.bench.records import make_record
from zoo.bench.compare import COLUMNS, Change, cells, compare, told

NAMES = ["lenet5", "mobilenet_v2", "resnet50", "vgg16"]


def record(**changes: Any) -> dict[str, Any]:
    """Four networks, fp32 and int8."""
    return make_record(NAMES, **changes)


def changed(
    edit: Callable[[dict[str, Any]], None], *, name: str = "resnet50", precision: str = "fp32"
) -> dict[str, Any]:
    """The record with one row edited."""
    made = copy.deepcopy(record())
    edit(next(row for row in made["rows"] if (row["name"], row["precision"]) == (name, precision)))
    return made


def times(factor: float) -> Callable[[dict[str, Any]], None]:
    """Make a row slower, its interval with it."""

    def edit(row: dict[str, Any]) -> None:
        for key in ("median", "low", "high"):
            row["latency_ms"][key] *= factor

    return edit


def only(found: list[Change] | tuple[Change, ...]) -> Change:
    (change,) = found
    return change


def test_a_record_is_as_good_as_itself() -> None:
    found = compare(record(), record())
    assert (found.changes, found.exit_code, found.matched, found.conditions) == ((), 0, 8, ())
    assert found.drift == {"cpu": 1}


@pytest.mark.parametrize(("factor", "what", "code"), [(1.2, "slower", 1), (0.8, "faster", 0)])
def test_a_time_that_moved_is_named(factor: float, what: str, code: int) -> None:
    found = compare(record(), changed(times(factor)))
    change = only(found.changes)
    assert (change.name, change.precision, change.what, change.worse) == ("resnet50", "fp32", what, code == 1)
    assert change.change == pytest.approx(factor - 1)
    assert found.exit_code == code
    assert found.drift["cpu"] == pytest.approx(1)  # one row of eight


def test_the_intervals_must_not_touch_and_the_margin_be_left() -> None:
    assert compare(record(), changed(times(1.04))).changes == ()  # intervals apart, within the margin
    assert only(compare(record(), changed(times(1.04)), margin=0.03).changes).what == "slower"

    def uncertain(row: dict[str, Any]) -> None:
        times(1.2)(row)
        row["latency_ms"]["low"] /= 1.25

    assert compare(record(), changed(uncertain)).changes == ()  # 20 % slower, perhaps
    with pytest.raises(InvalidInput, match="margin"):
        compare(record(), record(), margin=-0.1)


def test_noise_widens_the_margin() -> None:
    def unsettled(factor: float) -> Callable[[dict[str, Any]], None]:
        def edit(row: dict[str, Any]) -> None:
            times(factor)(row)
            row["latency_ms"]["settled"] = False

        return edit

    def noisy(made: dict[str, Any]) -> dict[str, Any]:
        return made | {"noise": {"noisy": True, "reasons": ["the load was high"]}}

    # 5 %, 10 % where either is in doubt, 20 % where both are.
    assert only(compare(record(), changed(times(1.08))).changes).what == "slower"
    assert compare(record(), changed(unsettled(1.08))).changes == ()
    assert compare(noisy(record()), changed(times(1.08))).changes == ()
    assert "not settled" in only(compare(record(), changed(unsettled(1.12))).changes).because
    assert compare(record(), noisy(changed(unsettled(1.18)))).changes == ()
    found = compare(record(), noisy(changed(unsettled(1.25))))
    assert "noisy run, not settled: beyond 20 %" in only(found.changes).because
    assert any("the load was high" in line for line in told(found))


def test_a_drift_of_the_whole_machine_is_shown() -> None:
    new = copy.deepcopy(record())
    for row in new["rows"]:
        times(1.1)(row)
    found = compare(record(), new)
    assert found.drift["cpu"] == pytest.approx(1.1)
    assert found.exit_code == 1
    assert any("the machine itself" in line for line in told(found))
    assert not any("the machine itself" in line for line in told(compare(record(), record())))


@pytest.mark.parametrize(
    ("key", "factor", "what"),
    [("bytes", 1.02, "file"), ("parameters", 1.0001, "parameters"), ("peak_memory_mib", 1.2, "memory")],
)
def test_what_got_bigger(key: str, factor: float, what: str) -> None:
    def grow(by: float) -> Callable[[dict[str, Any]], None]:
        def edit(row: dict[str, Any]) -> None:
            row[key] = row[key] * by

        return edit

    found = compare(record(), changed(grow(factor)))
    assert (only(found.changes).what, found.exit_code) == (what, 1)
    found = compare(record(), changed(grow(1 / factor)))
    assert (only(found.changes).what, found.exit_code) == (what, 0)
    assert compare(record(), changed(grow(1 + 1e-9))).exit_code == (key == "parameters")


def test_a_lower_accuracy_is_a_regression_where_it_was_measured() -> None:
    def lose(points: float) -> Callable[[dict[str, Any]], None]:
        def edit(row: dict[str, Any]) -> None:
            row["top1"] -= points

        return edit

    def pair(points: float, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        old = record(**changes)
        new = copy.deepcopy(old)
        lose(points)(next(row for row in new["rows"] if row["name"] == "resnet50"))
        return old, new

    assert only(compare(*pair(0.3, accuracy="measured")).changes).what == "top-1"
    assert compare(*pair(0.3, accuracy="measured")).exit_code == 1
    assert compare(*pair(-0.3, accuracy="measured")).exit_code == 0
    assert compare(*pair(0.2, accuracy="measured")).changes == ()  # two of 1000 pictures
    assert compare(*pair(0.3, accuracy="published")).changes == ()
    old, new = pair(0.3, accuracy="measured")
    new["settings"]["images"] = 500
    found = compare(old, new)
    assert found.changes == ()
    assert any("accuracies are not compared" in line for line in found.conditions)


def test_rows_that_vanish_fail_or_come() -> None:
    def fail(row: dict[str, Any]) -> None:
        row.update(problem="no memory", latency_ms=None, ratio_to_fp32=None, peak_memory_mib=None)

    less = record()
    less["rows"] = [row for row in less["rows"] if row["name"] != "vgg16"]
    found = compare(record(), less)
    assert [(each.name, each.what, each.worse) for each in found.changes] == [("vgg16", "gone", True)] * 2
    assert compare(record(), less, subset=True).exit_code == 0
    found = compare(less, record())
    assert {(each.name, each.what, each.worse) for each in found.changes} == {("vgg16", "new", False)}
    broken = changed(fail)
    change = only(compare(record(), broken).changes)
    assert (change.what, change.worse, change.because) == ("problem", True, "no memory")
    change = only(compare(broken, record()).changes)
    assert (change.what, change.worse) == ("mended", False)
    assert compare(broken, broken).changes == ()


def test_a_provider_that_changed_is_a_regression() -> None:
    def elsewhere(row: dict[str, Any]) -> None:
        row["provider"] = "CUDAExecutionProvider"

    def partly(row: dict[str, Any]) -> None:
        row["provider_share"] = 0.0

    for edit in (elsewhere, partly):
        old = changed(lambda row: row.update(provider_share=1.0))
        new = copy.deepcopy(old)
        edit(next(row for row in new["rows"] if row["name"] == "resnet50" and row["precision"] == "fp32"))
        change = only(compare(old, new).changes)
        assert (change.what, change.worse) == ("provider", True)


def test_times_of_another_machine_are_not_compared() -> None:
    def other(made: dict[str, Any], **machine: Any) -> dict[str, Any]:
        return made | {"machine": made["machine"] | machine}

    def everywhere(row: dict[str, Any]) -> None:
        times(3)(row)
        row["peak_memory_mib"] *= 3

    new = other(changed(everywhere), cpu="another")
    found = compare(record(), new)
    assert (found.changes, found.drift) == ((), {})
    assert "another" in found.conditions[0]
    assert any("not compared" in line for line in told(found)[:2])
    assert compare(record(), other(changed(everywhere), platform="another kernel")).exit_code == 1  # said, compared

    def slow_int8(row: dict[str, Any]) -> None:
        row["ratio_to_fp32"] = {"median": 0.9, "low": 0.88, "high": 0.92}

    def quick_int8(row: dict[str, Any]) -> None:
        row["ratio_to_fp32"] = {"median": 0.5, "low": 0.49, "high": 0.51}

    old, new = (changed(edit, precision="int8") for edit in (quick_int8, slow_int8))
    change = only(compare(old, other(new, cpu="another")).changes)
    assert (change.what, change.precision, change.worse) == ("slower beside fp32", "int8", True)
    assert compare(old, new).changes == ()  # on one machine the times themselves speak


def test_a_gpu_is_the_machine_of_its_rows_alone() -> None:
    old = make_record(NAMES, precisions=["fp32"], devices=["cpu", "cuda"])
    new = copy.deepcopy(old)
    new["machine"]["gpu"] = "another"
    for row in new["rows"]:
        times(2)(row)
    found = compare(old, new)
    assert {each.device for each in found.changes} == {"cpu"}
    assert set(found.drift) == {"cpu"}


def test_other_versions_and_threads_are_said_first() -> None:
    new = copy.deepcopy(record())
    new["machine"]["versions"]["onnxruntime"] = "1.32.0"
    new["settings"]["threads"] = 1
    found = compare(record(), new)
    assert found.conditions == (
        "threads: 2 then, 1 now: rows are compared at the same number only",
        "onnxruntime: 1.31.1 then, 1.32.0 now",
    )
    assert told(found)[:2] == list(found.conditions)
    for row in new["rows"]:
        row["threads"] = 1
    assert compare(record(), new).matched == 0


def test_another_input_is_no_regression() -> None:
    def larger(row: dict[str, Any]) -> None:
        times(4)(row)
        row["input"] = [3, 448, 448]

    found = compare(record(), changed(larger))
    assert (only(found.changes).what, found.exit_code) == ("input", 0)


def test_a_record_that_lacks_a_part_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no bytes"):
        compare(record(), changed(lambda row: row.pop("bytes")))


def test_text_and_json_hold_every_change() -> None:
    found = compare(record(), make_record(NAMES[:3], slower=0.5))
    lines = cells(found)
    assert {len(line) for line in lines} == {len(COLUMNS)}
    assert [(line[0], line[7]) for line in lines] == [("worse", "gone")] * 2 + [("", "faster")] * 6
    json.dumps(asdict(found), allow_nan=False)
    assert told(found)[-1] == "6 rows in both records, 2 regressions"
