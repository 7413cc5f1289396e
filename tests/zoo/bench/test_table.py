"""A record as text: read back, and compared with the record itself."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest

from tests.zoo.bench.records import make_record
from zoo.bench import table
from zoo.bench.columns import MISSING, columns

KERAS = ["Model", "Size (MiB)", "Top-1", "Top-5", "Parameters", "Depth", "CPU ms", "GPU ms"]


def _terminal(record: dict[str, Any]) -> list[dict[str, str]]:
    heads, rows, right = table.terminal(record)
    assert right <= set(heads)
    assert len(heads) == len(set(heads))
    return [dict(zip(map(_line, heads), row, strict=True)) for row in rows]


def _line(head: str) -> str:
    return " ".join(head.split())


def test_the_head_is_keras_applications_own() -> None:
    heads, _, _ = table.terminal(make_record(["alexnet"], devices=("cpu", "cuda")))
    assert list(map(_line, heads))[:8] == KERAS
    heads, _, right = table.terminal(make_record(["alexnet"]))
    assert list(map(_line, heads))[:7] == KERAS[:7]
    assert set(map(_line, right)) >= set(KERAS[1:7])
    assert "Model" not in right


def test_a_networks_devices_are_one_line() -> None:
    record = make_record(["alexnet", "mobilenet_v2"], precisions=("fp32", "fp16"), devices=("cpu", "cuda"))
    rows = _terminal(record)
    assert [(row["Model"], row["Precision"]) for row in rows] == [
        ("alexnet†", "fp32"), ("alexnet†", "fp16"), ("mobilenet_v2†", "fp32"), ("mobilenet_v2†", "fp16"),
    ]  # fmt: skip
    for row in record["rows"]:
        shown = next(
            line for line in rows if (line["Model"], line["Precision"]) == (f"{row['name']}†", row["precision"])
        )
        head = "CPU ms" if row["device"] == "cpu" else "GPU ms"
        assert float(shown[head]) == pytest.approx(row["latency_ms"]["median"], rel=6e-3)
    assert [row["CPU ms"] for row in rows if row["Precision"] == "fp16"] == [MISSING] * 2


def test_two_files_of_one_name_are_two_lines() -> None:
    record = make_record(["alexnet"], precisions=("fp32",))
    record["rows"].append(dict(record["rows"][0], file="other.onnx"))
    assert len(_terminal(record)) == 2


def test_what_is_not_measured_is_marked_and_the_mark_is_explained() -> None:
    record = make_record(["lenet5", "alexnet"], precisions=("fp32",), unsettled=["alexnet"])
    lenet, alexnet = _terminal(record)
    assert (lenet["Model"], lenet["Top-1"]) == ("lenet5", MISSING)
    assert (alexnet["Model"], alexnet["Top-1"]) == ("alexnet†", "56.5 %*")
    latency = record["rows"][1]["latency_ms"]
    assert alexnet["CPU ms"].startswith("~")
    assert float(alexnet["CPU ms"][1:]) == pytest.approx(latency["median"], rel=6e-3)
    assert alexnet["±"] == "8.0 %"
    assert not lenet["CPU ms"].startswith("~")
    notes = table.notes(record)
    assert [note[0] for note in notes] == ["*", "†", "~"]
    assert "published by torchvision, not measured here" in notes[0]
    measured = make_record(["lenet5"], precisions=("fp32",), accuracy="measured")
    assert table.notes(measured) == []


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_narrow_terminal_cuts_nothing(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    record = make_record(["lenet5", "inception_resnet_v2"], devices=("cpu", "cuda"), unsettled=["lenet5"])
    heads, rows, right = table.terminal(record, width=width)
    shown = Table()
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    Console(width=width).print(shown)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= width
    for row in rows:  # in one line each, with every cell whole
        assert any([cell.strip() for cell in line.split("│")[1:-1]] == row for line in printed)
    assert right <= set(heads)
    wider, _, _ = table.terminal(record, width=width + 60)
    assert set(heads) < set(wider) or len(heads) == len(table.terminal(record)[0])
    assert {"Model", "CPU ms", "GPU ms", "Precision"} <= set(map(_line, heads))


def test_the_interval_is_half_its_width() -> None:
    record = make_record(["alexnet"], precisions=("fp32",))
    record["rows"][0]["latency_ms"] |= {"median": 10.0, "low": 9.5, "high": 10.7}
    assert _terminal(record)[0]["±"] == "6.0 %"


def test_a_noisy_and_an_unfinished_run_say_so() -> None:
    assert table.warnings(make_record(["alexnet"])) == []
    noisy = make_record(["alexnet"], noisy=True) | {"finished": False}
    first, second = table.warnings(noisy)
    assert all(reason in first for reason in noisy["noise"]["reasons"])
    assert "not finished" in second
    assert table.markdown(noisy).startswith(f"> **{first.replace('_', chr(92) + '_')}**")


def test_a_row_without_figures_says_why() -> None:
    record = make_record(["alexnet", "vgg16"], problems=["vgg16"])
    assert [row["CPU ms"] == MISSING for row in _terminal(record)] == [False, False, True, True]
    told = [note for note in table.notes(record) if note.startswith("vgg16")]
    assert told == [
        f"vgg16 {precision}, CPU, batch 1: {record['rows'][-1]['problem']}" for precision in ("fp32", "int8")
    ]


def test_csv_has_every_field_of_every_row() -> None:
    record = make_record(devices=("cpu", "cuda"), batches=(1, 32), problems=["vgg16"])
    read = list(csv.DictReader(io.StringIO(table.csv(record))))
    assert len(read) == len(record["rows"])
    for shown, row in zip(read, record["rows"], strict=True):
        flat: dict[str, Any] = {}
        for key, value in row.items():
            if isinstance(value, dict):
                flat |= {f"{key}.{inner}": each for inner, each in value.items()}
            elif key not in ("samples_ms", "turns_ms", "input"):
                flat[key] = value
        for key, value in flat.items():
            if key in ("latency_ms", "ratio_to_fp32", "published"):
                assert value is None
            elif isinstance(value, bool):
                assert shown[key] == str(value).lower()
            elif isinstance(value, float | int):
                assert float(shown[key]) == value
            else:
                assert shown[key] == (value or "")
        assert shown["input"] == "x".join(map(str, row["input"]))


def test_csv_has_the_same_head_whatever_happened() -> None:
    records = [make_record(["lenet5"]), make_record(["alexnet"], problems=["alexnet"]), make_record(devices=("cuda",))]
    assert len({table.csv(record).partition("\n")[0] for record in records}) == 1


def _cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table: a stroke behind a backslash is text."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_one_table_under_its_conditions() -> None:
    record = make_record(["alexnet", "mobilenet_v2"], devices=("cpu", "cuda"))
    text = table.markdown(record)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(_cells(line)) for line in lines} == {len(columns(record))}
    assert len(lines) == 2 + 4
    assert _cells(lines[0])[:8] == KERAS
    assert [cell.endswith(":") for cell in _cells(lines[1])] == [column.right for column in columns(record)]
    above = text[: text.index("| Model")]
    for fact in ("AMD EPYC 9R14", "NVIDIA H200", "onnxruntime 1.31.1", record["date"], "4 interleaved rounds", "8 s"):
        assert fact in above
    assert "published by torchvision" in text[text.rindex("|") :]


def test_markdown_keeps_odd_names_in_their_cell() -> None:
    name = "a|b`*_<i>\n[x](y)"
    text = table.markdown(make_record([name], precisions=("fp32",)))
    (row,) = [line for line in text.splitlines() if "a\\|b" in line]
    assert re.sub(r"\\(.)", r"\1", _cells(row)[0]) == name.replace("\n", " ")
    assert len(_cells(row)) == len(columns(make_record([name], precisions=("fp32",))))


def test_an_empty_record_is_no_error() -> None:
    empty = make_record([])
    assert table.terminal(empty)[1] == []
    assert table.notes(empty) == []
    assert "Model" in table.markdown(empty)
    assert table.csv(empty).strip() == ""
