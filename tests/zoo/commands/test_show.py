"""``zoo show``: files of others, and the layer table as people and programs read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper, numpy_helper

from zoo.layer_report import clean, human

Zoo = Callable[..., Any]
Tiny = Callable[..., Path]

# tiny: Conv 3 -> 6 channels, 3x3 on 8x8, then Gemm 6 -> 4
PARAMETERS, MACS = 6 * 27 + 6 + 6 * 4 + 4, 64 * 6 * 27 + 6 * 4


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "unknown"),
        (0, "0"),
        (864, "864"),
        (999, "999"),
        (1000, "1.00 k"),
        (9_994, "9.99 k"),
        (9_996, "10.0 k"),
        (999_940, "999.9 k"),
        (999_960, "1.00 M"),
        (3_538_984, "3.54 M"),
        (300_774_272, "300.8 M"),
        (4_089_184_256, "4.09 G"),
        (12_345_678_901_234_567, "12345.7 T"),
    ],
)
def test_numbers_are_readable(number: int | None, text: str) -> None:
    assert human(number) == text


def test_names_carry_no_escapes_to_the_terminal() -> None:
    assert clean("a\x1b[31mb\n") == "a?[31mb?"


def test_layers_of_a_file(zoo: Zoo, tiny: Tiny) -> None:
    path = tiny()
    done = zoo("show", path, "--layers", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["file"], told["bytes"]) == (str(path), path.stat().st_size)
    assert (told["parameters"], told["macs"], told["complete"]) == (PARAMETERS, MACS, True)
    assert told["inputs"] == {"input": [1, 3, 8, 8]}
    assert [layer["operator"] for layer in told["layers"]] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    assert told["layers"][0]["output_shape"] == [1, 6, 8, 8]
    assert told["separable"] is None


def test_layers_as_a_table(zoo: Zoo, tiny: Tiny) -> None:
    path = tiny(stamped=False)
    lines = zoo("show", path, "--layers").out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells[0] == ["conv", "Conv", "3x3", "1x6x8x8", "168", "10.4 k"]
    assert cells[-2] == ["logits", "Gemm", "6 -> 4", "1x4", "28", "24"]
    assert cells[-1] == ["total", "", "", "", "196", "10.4 k"]
    assert len(cells) == 5  # Flatten only moves numbers
    text = "\n".join(lines)
    assert f"196 parameters stored, {path.stat().st_size:,} bytes on disk" in text
    assert "for input 1x3x8x8" in text
    assert "depthwise" not in text


def _separable_file(path: Path, size: Any = 8) -> Path:
    """A depthwise 3x3 and a pointwise convolution from 4 to 10 channels."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["d"], name="dw", group=4, pads=[1] * 4),
        helper.make_node("Conv", ["d", "v"], ["y"], name="pw"),
    ]
    shapes = {"w": (4, 1, 3, 3), "v": (10, 4, 1, 1)}
    tensors = [numpy_helper.from_array(_noise(shape), name) for name, shape in shapes.items()]
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 4, size, size])]
    outputs = [helper.make_tensor_value_info("y", 1, ["N", 10, size, size])]
    graph = helper.make_graph(nodes, "separable", inputs, outputs, tensors)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def _noise(shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_separable_convolutions_beside_standard_ones(zoo: Zoo, tmp_path: Path) -> None:
    text = zoo("show", _separable_file(tmp_path / "s.onnx"), "--layers").out
    row = next(line for line in text.splitlines() if "dw + pw" in line)
    # 64 places; 36 + 40 weights against 9 * 4 * 10
    assert [cell.strip() for cell in row.strip("│").split("│")[2:]] == [
        "4 -> 10",
        "76",
        "360",
        "4.86 k",
        "23.0 k",
        "0.211",
    ]
    assert "if all separable convolutions were standard ones: 23.0 k MACs instead of 4.86 k" in text


def test_free_axes_take_a_size_and_are_unknown_without(zoo: Zoo, tmp_path: Path) -> None:
    path = _separable_file(tmp_path / "free.onnx", "side")
    assert json.loads(zoo("show", path, "--layers", "--input-size", "4x8", "--json").out)["macs"] == 32 * 76
    text = zoo("show", path, "--layers").out
    assert "at least 0" in text
    assert "incomplete: the MACs of 2 layers are unknown: dw (Conv), pw (Conv)" in text
    assert "give --input-size HxW" in text


def test_a_file_of_others_says_what_it_can(zoo: Zoo, tmp_path: Path) -> None:
    path = _separable_file(tmp_path / "foreign.onnx", "side")
    told = json.loads(zoo("show", path, "--json").out)
    assert told["inputs"] == {"x": {"type": "float", "shape": ["N", 4, "side", "side"]}}
    assert told["outputs"]["y"]["shape"] == ["N", 10, "side", "side"]
    assert told["opset"] == {"ai.onnx": 18}
    assert told["file"] == {"bytes": path.stat().st_size, "parameters": 76, "macs": None}
    text = zoo("show", path).out
    assert "exported by something else" in text
    assert "N, 4, side, side" in text


def test_a_file_of_edgezoo_says_its_size_too(zoo: Zoo, tiny: Tiny) -> None:
    path = tiny()
    told = json.loads(zoo("show", path, "--json").out)
    assert told["name"] == "tiny"
    assert told["file"] == {"bytes": path.stat().st_size, "parameters": PARAMETERS, "macs": MACS}


@pytest.mark.parametrize("name", ["candy", "mnist", "ultraface-RFB-320"])
def test_files_of_others(zoo: Zoo, shared_data: Path, name: str) -> None:
    path = shared_data / "onnx" / f"{name}.onnx"
    for options in ((), ("--layers",)):
        done = zoo("show", path, *options)
        assert (done.code, done.err) == (0, "")
    assert json.loads(zoo("show", path, "--layers", "--json").out)["complete"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--source", "torch"), "add --layers"),
        (("--input-size", "8x8"), "add --layers"),
        (("--layers", "--source", "torch"), "a file is built already"),
        (("--layers", "--input-size", "8"), "--input-size '8': give HEIGHTxWIDTH"),
        (("--layers", "--input-size", "9x9"), "input input is fixed to 8x8"),
    ],
)
def test_mistakes(zoo: Zoo, tiny: Tiny, options: tuple[str, ...], message: str) -> None:
    done = zoo("show", tiny(), *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("data", [b"", b"hello, I am a text file\n" * 40])
def test_layers_of_what_is_no_model(zoo: Zoo, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    done = zoo("show", path, "--layers")
    assert (done.code, done.out) == (2, "")
    assert "broken.onnx" in done.err


@pytest.mark.slow
def test_layers_of_a_name(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LeNet-5 as LeCun et al. 1998 describe it, with C3 fully connected: products per picture by hand."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    done = zoo("show", "lenet5", "--layers", "--source", "torch", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["name"], told["source"]) == ("lenet5", "torch")
    first, second = 28 * 28 * 6 * 25, 10 * 10 * 16 * 6 * 25
    assert told["macs"] == first + second + 400 * 120 + 120 * 84 + 84 * 10
    assert told["complete"] is True
    assert list(tmp_path.iterdir()) == []
