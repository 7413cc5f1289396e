"""The columns: how numbers are written, and that each reads what the record has."""

from __future__ import annotations

import pytest

from tests.zoo.bench.records import make_record
from zoo.bench import columns as table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (0.07124, "0.0712"), (0.9999, "1.000"), (1.0, "1.00"), (4.1, "4.10"), (41.23, "41.2"),
        (412.3, "412"), (1234.5, "1,234"), (14_449.1, "14,449"), (1e-9, "0.000000"), (-4.1, "-4.10"),
    ],
)  # fmt: skip
def test_three_digits_of_any_size(value: float, shown: str) -> None:
    assert table.digits(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (912, "912"), (61_706, "61.7 K"), (3_538_984, "3.54 M"), (138_357_544, "138 M"), (15.47e9, "15.5 G")],
)
def test_counts_have_their_unit(value: float, shown: str) -> None:
    assert table.count(value) == shown


def test_every_column_finds_something_in_a_whole_record() -> None:
    record = make_record(["alexnet", "vgg16"], devices=("cpu", "cuda"), problems=["vgg16"])
    shown = {column.key for column in table.columns(record)}
    assert {column.key for column in table.COLUMNS} == shown


def test_a_column_without_a_value_is_left_out_apart_from_keras_own() -> None:
    shown = [column.head for column in table.columns(make_record(["lenet5"], precisions=("fp32",)))]
    assert shown[:7] == ["Model", "Size (MiB)", "Top-1", "Top-5", "Parameters", "Depth", "CPU ms"]
    assert not {"Problem", "Copies ms", "GPU memory (MiB)", "Of fp32's time", "Calibrated on"} & set(shown)


def test_each_device_has_its_own_columns_of_what_was_measured() -> None:
    both = [column.head for column in table.columns(make_record(["alexnet"], devices=("cuda", "cpu")))]
    assert both.index("CPU ms") + 1 == both.index("GPU ms")
    assert {"CPU p90 ms", "GPU p90 ms", "MACs"} <= set(both)
    assert both.count("MACs") == 1
    alone = [column.head for column in table.columns(make_record(["alexnet"]))]
    assert "p90 ms" in alone
