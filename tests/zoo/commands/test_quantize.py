"""``zoo quantize``: which pictures it takes, and its one-line errors."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from runtime.errors import InvalidInput
from runtime.metadata import Labels
from tests.exporters.quantize.test_ready import untidy
from zoo.datasets import open_pictures
from zoo.quantizing import split


def write_pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:03}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.parametrize(
    ("count", "calibration", "ordered", "kept"),
    [
        (1000, 100, True, list(range(100))),
        (1000, 100, False, list(range(0, 1000, 10))),
        (40, 100, True, list(range(20))),
        (150, 100, False, [index * 2 for index in range(75)]),
        (1, 100, True, [0]),
    ],
)
def test_which_are_kept_to_calibrate_on(count: int, calibration: int, ordered: bool, kept: list[int]) -> None:
    assert split(count, calibration, ordered=ordered) == kept


def test_pictures_with_and_without_labels(tmp_path: Path) -> None:
    labels = Labels(names=("red", "green"))
    paths = write_pictures(tmp_path / "loose", 3)
    assert open_pictures(tmp_path / "loose", labels) == (paths, None)
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label"], ["002.png", "green"], ["000.png", "red"]])
    assert open_pictures(tmp_path / "loose", labels, table=table) == ([paths[2], paths[0]], [1, 0])
    assert open_pictures(tmp_path / "loose", None) == (paths, None)
    with pytest.raises(InvalidInput, match="leave the labels out"):
        open_pictures(tmp_path / "loose", None, table=table)
    (tmp_path / "by class").mkdir()
    inside = write_pictures(tmp_path / "by class" / "red", 2)
    assert open_pictures(tmp_path / "by class", labels) == (inside, [0, 0])
    assert open_pictures(tmp_path / "by class", None) == (inside, None)


def test_forced_and_in_json(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_pictures(tmp_path / "loose", 12)
    output = tmp_path / "small.onnx"
    done = zoo("quantize", tiny(), "--data", tmp_path / "loose", "--force", "-o", output, "--json")
    assert done.code == 0, done.err
    assert "calibrated on 6 pictures: below 32" in done.err
    assert "measured on 6 pictures: one of them is 16.7 points" in done.err
    told = json.loads(done.out)
    assert told["path"] == str(output)
    assert told["quantization"]["top1"] is None
    shown = zoo("quantize", tiny(), "--data", tmp_path / "loose", "--force", "-o", output)
    assert "same answer for " in shown.out
    assert zoo("show", output).code == 0


@pytest.mark.parametrize(
    ("task", "said"), [("features", "same nearest picture for"), ("multilabel", "of the labels given to 6 pictures")]
)
def test_where_no_class_is_the_right_one(
    zoo: Any, tiny: Callable[..., Path], tmp_path: Path, task: str, said: str
) -> None:
    file, data = tiny(task=task, **({"labels": None} if task == "features" else {})), tmp_path / "sorted"
    data.mkdir()
    for name in ("walks", "faces"):  # folders that are no classes of the network
        write_pictures(data / name, 6)
    options = ["--data", data, "--force", "-o", tmp_path / "small.onnx"]
    done = zoo("quantize", file, *options, "--report", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert said in done.out and "top-1" not in done.out
    assert said in (tmp_path / "report.html").read_text(encoding="utf-8")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nwalks/000.png,a\n")
    refused = zoo("quantize", file, *options, "--labels", table)
    assert refused.code == 2 and "one class a picture is not what this network answers" in refused.err
    tuned = zoo("tune", file, "--data", data, "--max-drop", "90", "--budget", "0.3s", "--json")
    assert tuned.code == 0, tuned.err
    trials = [trial for trial in json.loads(tuned.out)["trials"] if trial["error"] is not None]
    assert all(trial["agreement"] is not None and trial["top1"] is None for trial in trials)


def test_outputs_that_nobody_knows(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_pictures(tmp_path / "loose", 12)
    file, output = tiny(task="other", labels=None), tmp_path / "small.onnx"
    options = ["--data", tmp_path / "loose", "-o", output]
    refused = zoo("quantize", file, *options, "--force")
    assert refused.code == 2 and "is of task other" in refused.err and "--max-distance" in refused.err
    refused = zoo("quantize", file, *options, "--max-distance", "0.1", "--max-drop", "1")
    assert refused.code == 2 and "--max-drop counts answers" in refused.err
    refused = zoo("quantize", file, *options, "--max-distance", "1e-9")
    assert refused.code == 1 or refused.code == 2
    assert "logits is 0.0" in refused.err and "apart on 6 pictures, 1e-09 allowed" in refused.err
    assert not output.exists()
    done = zoo("quantize", file, *options, "--max-distance", "0.5", "--force", "--report", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert re.search(r"on 6 pictures logits 0\.0\d\d apart", done.out)
    assert "points" not in done.err
    assert "on 6 pictures logits 0.0" in (tmp_path / "report.html").read_text(encoding="utf-8")
    told = json.loads(zoo("show", output, "--json").out)["quantization"]
    assert told["agreement"] is None and 0 < told["distance"] < 0.1


def test_the_report_is_one_page(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_pictures(tmp_path / "loose", 12)
    options = ["--data", tmp_path / "loose", "--force", "-o", tmp_path / "small.onnx"]
    assert zoo("quantize", tiny(), *options, "--report", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>tiny, int8</title>" in page
    assert re.search(r"<td data-value=\"conv\">conv</td><td data-value=\"Conv\">", page)
    assert not re.search(r"(src|href)=|http", page)  # nothing from elsewhere


def test_noise_only_when_asked_for_and_said(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    options = ["--random-calibration", "--calibration", "6", "--force", "-o", output]
    done = zoo("quantize", tiny(), *options, "--json")
    assert done.code == 0, done.err
    assert "calibrated on noise" in done.err
    told = json.loads(done.out)["quantization"]
    assert (told["calibrated_on"], told["measured_on"], told["images"]) == ("noise", "noise", 6)
    write_pictures(tmp_path / "loose", 12)
    done = zoo("quantize", tiny(), *options, "--data", tmp_path / "loose", "--json")
    told = json.loads(done.out)["quantization"]
    assert (told["calibrated_on"], told["measured_on"], told["images"]) == ("noise", "pictures", 12)


def test_float16(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    write_pictures(tmp_path / "loose", 12)
    file = tiny()
    done = zoo("quantize", file, "--fp16", "--data", tmp_path / "loose")
    assert done.code == 0, done.err
    assert "its time was not measured: cuda is not at hand" in done.err or "of the time" in done.out
    assert "same answer for 100.00 % of 12 pictures" in done.out
    assert zoo("show", file.with_name("tiny_fp16.onnx")).code == 0


@pytest.mark.parametrize("opset", [13, 18])
def test_a_file_from_elsewhere(zoo: Any, tmp_path: Path, opset: int) -> None:
    onnx.save(untidy(opset), tmp_path / "other.onnx")
    write_pictures(tmp_path / "loose", 12)
    options = ["--data", tmp_path / "loose", "--force"]
    done = zoo("quantize", tmp_path / "other.onnx", *options)
    assert (done.code, done.out) == (2, "")
    assert "stamp it with `zoo import` first" in done.err
    imported, output = tmp_path / "imported.onnx", tmp_path / "small.onnx"
    rule = "0-1,size=16x16,resize=16x16"
    assert zoo("import", tmp_path / "other.onnx", "--preprocess", rule, "-o", imported).code == 0
    report = tmp_path / "report.html"
    done = zoo("quantize", imported, *options, "-o", output, "--report", report)
    assert done.code == 0, done.err
    assert "small.onnx has the scores alone: swish of imported.onnx left out" in done.err
    raised = f"{output} is of opset 14, imported.onnx of 13: for HardSwish"
    assert (raised in done.err) == (opset == 13)
    written = onnx.load(output)
    assert written.opset_import[0].version == max(opset, 14)
    assert json.loads(zoo("show", output, "--json").out)["provenance"]["opset"] == max(opset, 14)
    kinds = set(re.findall(r'data-value="([A-Z][A-Za-z]+)"', report.read_text(encoding="utf-8")))
    assert kinds == {"Conv", "GlobalAveragePool", "Reshape", "Gemm"}
    both = [json.loads(zoo("predict", file, tmp_path / "loose", "--json").out) for file in (imported, output)]
    for exact, smaller in zip(*both, strict=True):
        assert smaller["top"][0]["probability"] == pytest.approx(exact["top"][0]["probability"], abs=0.1)


@pytest.mark.slow
def test_export_and_quantize_in_one(zoo: Any, root: Path, tmp_path: Path) -> None:
    output, digits = tmp_path / "small.onnx", root / "exporters" / "samples" / "digits"
    done = zoo("export", "lenet5", "--int8", "--data", digits, "--force", "-o", output)
    assert done.code == 0, done.err
    assert "verified against torch" in done.out
    assert "same answer for 100.00 % of 5 pictures" in done.out
    assert list(tmp_path.iterdir()) == [output]
    told = json.loads(zoo("show", output, "--json").out)
    assert told["quantization"]["calibration"] == 5
    assert told["provenance"]["weights"] == "bundled"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8"], "give --data DIR"),
        (["--data", "."], "--data is for --int8, --fp16 and --bf16"),
        (["--max-drop", "1"], "--max-drop is for --int8"),
        (["--random-calibration"], "--random-calibration is for --int8"),
        (["--int8", "--data", "none"], "none"),
    ],
)
def test_export_errors(zoo: Any, tmp_path: Path, options: list[str], message: str) -> None:
    done = zoo("export", "lenet5", *options, "-o", tmp_path / "small.onnx")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --data DIR"),
        (["--fp16"], "fp16 needs pictures to be measured on: give --data DIR"),
        (["--fp16", "--bf16", "--data", "loose"], "not allowed with"),
        (["--fp16", "--random-calibration"], "--random-calibration is for int8"),
        (["--data", "loose", "--report", "no/where.html"], "no: no such folder: create it first"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--data", "loose", "--calibration", "0"], "--calibration must be at least 1"),
        (["--data", "loose", "--target", "z80"], "--target z80: one of auto, x86-vnni"),
        (["--data", "loose", "-o", "small.txt"], "must end in .onnx"),
        (["--data", "one"], "one picture"),
        (["--data", "loose", "--max-distance", "0"], "--max-distance must be a number above 0"),
    ],
)
def test_errors(
    zoo: Any,
    tiny: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "loose", 4)
    write_pictures(tmp_path / "one", 1)
    before = sorted(tmp_path.rglob("*"))
    file = tiny()
    done = zoo("quantize", file, *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, file])
