"""``zoo import`` as people use it: what it prints, where, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.exporters import foreign

Zoo = Callable[..., Any]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of opset 9 with five scores, in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given.onnx"
    path.write_bytes(foreign.upsample(9).SerializeToString())
    return path


def test_says_what_it_did(zoo: Zoo, given: Path, root: Path) -> None:
    (given.parent / "names.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    done = zoo("import", given, "--preprocess", "0-1", "--labels", "names.txt")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("wrote given-imported.onnx (0.00 MB, opset 13, classification of 5 labels, logits)")
    assert lines[1:3] == [
        "  weights that were inputs too and are no longer: 3",
        f"  opset 9 -> 13 (onnx.version_converter of onnx {__import__('onnx').__version__})",
    ]
    assert lines[3].startswith(
        "verified against given.onnx on 8 photos (exporters/samples), batch 1 and 3: relative error"
    )
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    (answer,) = json.loads(zoo("predict", "given-imported.onnx", picture, "--json").out)
    assert answer["top"][0]["label"] in "abcde"
    assert json.loads(zoo("show", "given-imported.onnx", "--json").out)["labels"]["names"] == list("abcde")


def test_json(zoo: Zoo, given: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    options = ["--name", "five", "--task", "multilabel", "--opset", 15, "--license", "MIT", "-o", output]
    done = zoo("import", given, "--preprocess", "torch,resize=8", *options, "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["path"], told["bytes"]) == (str(output), output.stat().st_size)
    assert told["changes"][1].startswith("opset 9 -> 15")
    metadata = told["metadata"]
    assert (metadata["name"], metadata["task"], metadata["provenance"]["license"]) == ("five", "multilabel", "MIT")
    assert metadata["preprocess"]["resize"] == 8
    assert metadata["parity"]["batch_sizes"] == [1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "looks like a picture"),
        (["--preprocess", "imagenet"], "no recipe 'imagenet': choose from torch"),
        (["--preprocess", "0-1", "--opset", "30"], "opset 30 is not supported"),
        (["--preprocess", "0-1", "--labels", "none.txt"], "none.txt: not a readable label file"),
        (["--preprocess", "0-1,color=L"], "change size, color or layout in --preprocess"),
        (["--preprocess", "0-1", "--scores", "probabilities"], "they are no probabilities"),
        (["--preprocess", "0-1", "-o", "given.onnx"], "would replace given.onnx"),
        (["--preprocess", "0-1", "-o", "nowhere/o.onnx"], "nowhere: no such folder"),
        (["--preprocess", "0-1", "--output-name", "z"], "no output 'z': it has y"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(zoo: Zoo, given: Path, options: list[str], message: str) -> None:
    done = zoo("import", given, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert list(given.parent.iterdir()) == [given]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[N,C,H,W] x) => (y) { y = Relu(x) }", "add layout=NCHW or layout=NHWC to --preprocess"),
        ("(float[N,3,H,W] x) => (y) { y = Relu(x) }", "fixes no input size: add size=HxW"),
        ("(float[N,10] x) => (y) { y = Relu(x) }", "takes no pictures of 1 or 3 channels"),
    ],
)
def test_a_rule_that_the_input_does_not_settle(zoo: Zoo, given: Path, text: str, message: str) -> None:
    given.write_bytes(foreign.model(text).SerializeToString())
    done = zoo("import", given, "--preprocess", "0-1")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_what_only_an_import_mends(zoo: Zoo, given: Path, root: Path) -> None:
    """predict does not guess: it says that the file needs an import, and then the file runs."""
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    for proto, message in (
        (foreign.pixels_in(), "takes uint8, the preprocessing gives float32: leave it out where the file has its own"),
        (foreign.tail("y = GlobalAveragePool(r)", "float[N,4,1,1] y"), "is no (N, classes): `zoo import` it"),
    ):
        given.write_bytes(proto.SerializeToString())
        done = zoo("predict", given, picture, "--preprocess", "0-255")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err
        assert zoo("import", given, "--preprocess", "0-255").code == 0
        assert zoo("predict", "given-imported.onnx", picture).code == 0


def test_softmax_is_not_applied_twice(zoo: Zoo, given: Path, root: Path) -> None:
    """A file without metadata that ends in Softmax gives its own probabilities."""
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    proto = foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) y = Softmax(f)", "float[N,4] y")
    given.write_bytes(proto.SerializeToString())
    assert zoo("import", given, "--preprocess", "0-1").code == 0
    ours, theirs = (
        json.loads(zoo("predict", *argv, "--json").out)[0]["top"]
        for argv in ((given, picture, "--preprocess", "0-1"), ("given-imported.onnx", picture))
    )
    assert ours == theirs
    assert sum(guess["probability"] for guess in ours) == pytest.approx(1)


def test_other_outputs_are_shown(zoo: Zoo, given: Path, root: Path) -> None:
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    given.write_bytes(foreign.two_outputs().SerializeToString())
    assert zoo("import", given, "--preprocess", "0-1").code == 0
    (answer,) = json.loads(zoo("predict", "given-imported.onnx", picture, "--json").out)
    assert [(row["name"], row["shape"]) for row in answer["outputs"]] == [("b", [1, 36, 4]), ("y", [1, 5])]
    assert "1 x 36 x 4" in zoo("predict", "given-imported.onnx", picture).out
    done = zoo("eval", "given-imported.onnx", root / "exporters")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is of task other: accuracy is measured where one class is right" in done.err


def test_features_and_scores_that_are_not_finite(zoo: Zoo, given: Path, root: Path) -> None:
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    assert zoo("import", given, "--preprocess", "0-1", "--task", "features").code == 0
    (answer,) = json.loads(zoo("predict", "given-imported.onnx", picture, "--json").out)
    assert len(answer["features"]) == 5
    assert "5" in zoo("predict", "given-imported.onnx", picture).out
    proto = foreign.tail("p = GlobalAveragePool(r) f = Flatten(p) z = Sub(f, f) y = Log(z)", "float[N,4] y")
    given.write_bytes(proto.SerializeToString())
    done = zoo("predict", given, picture, "--preprocess", "0-1")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "its scores are not finite" in done.err


def test_binary_accuracy(zoo: Zoo, given: Path, root: Path) -> None:
    """One score, two classes: right where the score is on the side of the folder's name."""
    samples = root / "exporters" / "samples" / "photos"
    from tests.exporters.graphs import normal

    proto = foreign.tail(
        "p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, k)", "float[N,1] y", k=normal(4, 1, seed=3)
    )
    given.write_bytes(proto.SerializeToString())
    (given.parent / "names.txt").write_text("low\nhigh\n", encoding="utf-8")
    done = zoo("import", given, "--preprocess", "0-1,mean=0.5", "--task", "binary", "--labels", "names.txt")
    assert done.code == 0, done.err
    answers = json.loads(zoo("predict", "given-imported.onnx", *sorted(samples.glob("*.jpg")), "--json").out)
    table = "".join(f"{answer['image']},{answer['top'][0]['label']}\n" for answer in answers)
    (given.parent / "right.csv").write_text(table, encoding="utf-8")
    (given.parent / "wrong.csv").write_text(
        table.replace(",high", ",x").replace(",low", ",high").replace(",x", ",low"), encoding="utf-8"
    )
    figures = [
        json.loads(zoo("eval", "given-imported.onnx", f"{name}.csv", "--json").out) for name in ("right", "wrong")
    ]
    assert [figure["top1"] for figure in figures] == [100, 0]
    assert [figure["top5"] for figure in figures] == [100, 100]


@pytest.mark.slow
def test_mnist_of_another_tool(zoo: Zoo, tmp_path: Path, root: Path, shared_data: Path) -> None:
    """A CNTK file of opset 8, whose publisher's figure is 98.7 %."""
    output = tmp_path / "mnist.onnx"
    names = root / "zoo" / "labelsets" / "digits.txt"
    original = shared_data / "onnx" / "mnist.onnx"
    done = zoo("import", original, "--preprocess", "0-255", "--labels", names, "-o", output)
    assert done.code == 0, done.err
    assert "opset 8 -> 13" in done.out
    told = json.loads(zoo("eval", output, shared_data / "mnist", "--json").out)
    assert told["images"] == 10_000
    assert told["top1"] >= 98.7
    options = ["--preprocess", "0-255", "--labels", names, "--limit", 200, "--json"]
    assert json.loads(zoo("eval", original, shared_data / "mnist", *options).out)["top1"] >= 97


def test_a_face_detector_of_two_outputs(zoo: Zoo, tmp_path: Path, shared_data: Path) -> None:
    output = tmp_path / "face.onnx"
    original = shared_data / "onnx" / "ultraface-RFB-320.onnx"
    done = zoo("import", original, "--preprocess", "mean=127,std=128", "--output-name", "boxes", "-o", output, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["metadata"]["task"] == "other"
    assert told["metadata"]["preprocess"]["size"] == [240, 320]
    assert told["metadata"]["parity"]["max_relative_error"] <= 1e-5
