"""``zoo profile``: what it prints, writes and refuses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from runtime.errors import EdgeZooError, InvalidInput, OutputNotWritable
from zoo.commands.profile import add_arguments, run


def command(*argv: object) -> int:
    """Run the command by itself."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in argv]))


def data_of(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    """The JSON of a command that succeeds."""
    assert command(*argv, "--json") == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def test_the_data_of_a_profile(
    lenet_file: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, trace = root / "exporters/samples/digits/7.png", tmp_path / "lenet.json"
    data = data_of(capsys, lenet_file, "--image", picture, "--runs", 4, "--threads", 1, "--trace", trace)
    assert (data["device"], data["threads"], data["batch"], data["runs"]) == ("cpu", 1, 1, 4)
    assert data["inputs"] == {"input": [1, 1, 28, 28]}
    assert data["macs"] == data["joined_macs"] == 416_520
    assert data["nodes_ms"] == pytest.approx(sum(node["milliseconds"] for node in data["nodes"]))
    assert data["providers"] == {"CPUExecutionProvider": pytest.approx(1)}
    assert data["undisturbed_ms"] > 0
    assert data["profiled_ms"] > 0
    assert data["float_nodes"] is None  # nothing in it runs on integers
    events = json.loads(trace.read_text())["traceEvents"]
    shown = {event["name"] for event in events if event["ph"] == "X"}
    assert {node["name"] for node in data["nodes"]} <= shown
    assert sum(event["args"].get("macs", 0) for event in events) % 416_520 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lenet.json"]


def test_the_tables_of_a_profile(lenet_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(lenet_file, "--runs", 2, "--top", 2, "--batch", 3) == 0
    out = capsys.readouterr().out
    assert "batch 3" in out
    assert "the longest nodes" in out
    assert "more, " in out
    assert "1.25 M MACs of 1.25 M" in out
    assert "undisturbed" in out


def test_integer_files_say_what_runs_in_float(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.zoo.test_profiling import integer_file

    file = integer_file(tmp_path)
    data = data_of(capsys, file, "--runs", 2)
    found = {(node["operator"], node["between"]) for node in data["float_nodes"]}
    assert found >= {("Conv", False), ("Erf", True), ("Erf", False)}
    shares = [node["share"] for node in data["nodes"] if node["arithmetic"] == "float"]
    assert [node["share"] for node in data["float_nodes"]] == shares
    assert command(file, "--runs", 2) == 0
    out = capsys.readouterr().out.split("in float: ")
    assert len(out) == 2
    rows = [line for line in out[1].splitlines() if "│" in line]
    assert [line for line in rows if "middle" in line and "yes" in line]
    assert [line for line in rows if "first" in line and "yes" not in line]


def test_foreign_files_with_free_axes_need_a_size(
    tiny: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny("free.onnx", stamped=False)
    proto = onnx.load(file)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(proto, file)
    with pytest.raises(InvalidInput, match="--input-size"):
        command(file)
    data = data_of(capsys, file, "--input-size", "12x16", "--runs", 1)
    assert data["inputs"] == {"input": [1, 3, 12, 16]}
    assert data["macs"] == 6 * 12 * 16 * 27 + 24


def test_a_picture_says_how_long_free_axes_are(
    tiny: Callable[..., Path], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny("free.onnx", stamped=False)
    proto = onnx.load(file)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(proto, file)
    picture = root / "exporters/samples/photos/cat.jpg"
    with pytest.raises(InvalidInput, match="add --preprocess"):
        command(file, "--image", picture)
    rule = "0-1,size=20x24,layout=NCHW"
    data = data_of(capsys, file, "--image", picture, "--preprocess", rule, "--runs", 1)
    assert data["inputs"] == {"input": [1, 3, 20, 24]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runs", 0], "--runs must be at least 1"),
        (["--batch", 0], "--batch must be at least 1"),
        (["--top", -1], "--top must be at least 1"),
        (["--threads", 0], "threads 0"),
        (["--device", "tpu"], "unknown device"),
        (["--input-size", "9x9"], "fixed to 8x8"),
        (["--preprocess", "torch"], "add --image"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--batch", 2], "takes batches of 1 alone"),
    ],
)
def test_what_cannot_be_is_said(tiny: Callable[..., Path], options: list[object], said: str) -> None:
    with pytest.raises(EdgeZooError, match=said) as caught:
        command(tiny(batch=1), *options)
    assert caught.value.exit_code == 2


def test_a_trace_that_cannot_be_written_is_refused_first(tiny: Callable[..., Path], tmp_path: Path) -> None:
    for path in (tmp_path / "trace.txt", tmp_path / "none" / "trace.json"):
        with pytest.raises(OutputNotWritable):
            command(tiny(), "--trace", path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.onnx"
    file.write_text("no model")
    for path in (file, tmp_path / "none.onnx", tmp_path):
        with pytest.raises(EdgeZooError) as caught:
            command(path)
        assert caught.value.exit_code == 2
