"""``zoo export --uint8-input``: a file of pixels goes through every command, or is refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Zoo = Callable[..., Any]


@pytest.fixture
def pixel_file(zoo: Zoo, tmp_path: Path) -> Path:
    path = tmp_path / "pixels.onnx"
    done = zoo("export", "lenet5", "--source", "torch", "--uint8-input", "-o", path)
    assert done.code == 0, done.err
    assert "input uint8 Nx" in done.out
    return path


def test_every_command_takes_a_file_of_pixels(
    zoo: Zoo, pixel_file: Path, lenet_file: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = root / "exporters" / "samples" / "digits"
    seven = digits / "7.png"

    def told(*argv: object) -> Any:
        done = zoo(*argv, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    mine, plain = (told("predict", file, seven)[0]["top"][0] for file in (pixel_file, lenet_file))
    assert mine["label"] == plain["label"] == "7"
    assert mine["probability"] == pytest.approx(plain["probability"], abs=1e-6)
    mine, plain = (told("show", file) for file in (pixel_file, lenet_file))
    assert (mine["preprocess"]["input"], mine["preprocess"]["layout"]) == ("uint8", "NHWC")
    assert (mine["file"]["parameters"], mine["file"]["macs"]) == (plain["file"]["parameters"], plain["file"]["macs"])
    mine, plain = (told("explain", file, seven) for file in (pixel_file, lenet_file))
    assert mine[0]["map"] == plain[0]["map"]
    mine, plain = (zoo("layers", file).out.replace(str(file), "") for file in (pixel_file, lenet_file))
    assert mine == plain
    profiled = told("profile", pixel_file, "--image", seven, "--runs", 2)
    assert "pixels::cast" in json.dumps(profiled["nodes"])
    data = tmp_path / "data"
    for digit in (1, 7):
        (data / str(digit)).mkdir(parents=True)
        (data / str(digit) / "a.png").write_bytes((digits / f"{digit}.png").read_bytes())
    assert told("eval", pixel_file, data)["top1"] == 100
    assert zoo("stamp", pixel_file, "--explain", "-o", "explained.onnx").code == 0
    assert told("explain", "explained.onnx", seven)[0]["label"] == "7"
    options = ["--fp16", "--data", digits, "--force", "-o", "half.onnx", "--report", "half.html"]
    assert zoo("quantize", pixel_file, *options).code == 0
    assert told("predict", "half.onnx", seven)[0]["top"][0]["label"] == "7"
    assert "conv1" in Path("half.html").read_text(encoding="utf-8")
    scored = zoo("explain", pixel_file, "--score", data, "--limit", 1, "--method", "grad-cam")
    assert scored.code == 0, scored.err


@pytest.mark.slow
def test_the_bench_takes_one(zoo: Zoo, pixel_file: Path, tmp_path: Path) -> None:
    record = tmp_path / "bench.json"
    done = zoo("bench", pixel_file, "--precision", "fp32", "int8", "--budget", 0.2, "--rounds", 2, "-o", record)
    assert done.code == 0, done.err
    assert "problem" not in done.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lenet5", "--fully-convolutional"], "--uint8-input: a map of scores takes float32 pictures of any size"),
        (["BANDS", "--input-size", "5x16x16"], "--uint8-input: the input is no picture"),
    ],
)
def test_what_cannot_take_pixels(zoo: Zoo, tmp_path: Path, argv: list[str], message: str) -> None:
    bands = tmp_path / "bands.py"
    bands.write_text(
        "import torch\n"
        "def build(pretrained=False, **options):\n"
        "    parts = torch.nn.Conv2d(5, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()\n"
        "    return torch.nn.Sequential(*parts).eval()\n"
    )
    argv = [f"{bands}:build" if part == "BANDS" else part for part in argv]
    done = zoo("export", *argv, "--weights", "none", "--uint8-input", "-o", tmp_path / "out.onnx")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert not list(tmp_path.glob("*.onnx"))


def test_a_rule_of_floats_for_a_file_of_pixels(zoo: Zoo, pixel_file: Path, root: Path) -> None:
    seven = root / "exporters" / "samples" / "digits" / "7.png"
    for command in ("predict", "explain"):
        done = zoo(command, pixel_file, seven, "--preprocess", "0-1")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "takes uint8, the preprocessing gives float32: leave it out" in done.err
    done = zoo("profile", pixel_file, "--image", seven, "--preprocess", "0-1")
    assert (done.code, "takes uint8 [1, 28, 28, 1], not a picture of float32" in done.err) == (2, True)


@pytest.mark.slow
def test_with_everything_at_once(zoo: Zoo, tmp_path: Path, root: Path) -> None:
    """On integers and with its explanation inside."""
    digits, path = root / "exporters" / "samples" / "digits", tmp_path / "all.onnx"
    options = ["--uint8-input", "--int8", "--data", digits, "--force", "--explain", "-o", path]
    done = zoo("export", "lenet5", "--source", "torch", *options)
    assert done.code == 0, done.err
    assert json.loads(zoo("predict", path, digits / "3.png", "--json").out)[0]["top"][0]["label"] == "3"
    assert json.loads(zoo("explain", path, digits / "3.png", "--json").out)[0]["layer"]
