"""From a float32 artifact to an int8 one, or to a refusal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import runtime
from exporters.artifact import stamp
from exporters.quantize.road import quantize
from runtime.errors import InvalidInput, QuantizationRefused
from runtime.metadata import Labels, Metadata
from tests.exporters.quantize.networks import RULE, mobile, pictures


@pytest.fixture
def mobile_file(tmp_path: Path, metadata: Metadata) -> Path:
    proto = mobile()
    labels = Labels(names=tuple("abcdefghij"))
    stamp(proto, replace(metadata, preprocess=RULE, labels=labels, explain_layer="head.act"))
    path = tmp_path / "mobile.onnx"
    onnx.save(proto, path)
    return path


def own_answers(file: Path, images: list[Any]) -> list[int]:
    with runtime.load(file) as model:
        return [int(scores.argmax()) for scores in model.scores_many(images, batch_size=1)]


@pytest.mark.slow
def test_a_forced_file_says_how_it_was_made(mobile_file: Path, tmp_path: Path) -> None:
    calibration, held_out = pictures(32).sources, pictures(40, seed=1).sources
    right, output = own_answers(mobile_file, held_out), tmp_path / "int8.onnx"
    steps: list[str] = []
    done = quantize(
        mobile_file, output, calibration, held_out, right, force=True, target="x86-vnni",
        progress=lambda what, done, total: steps.append(what),
    )  # fmt: skip
    assert {"ranges", "histograms", "bias correction", "sensitivity", "timing", "measuring"} <= set(steps)
    with runtime.load(output) as model:
        assert model.metadata == done.metadata
        record = model.metadata.quantization if model.metadata else None
        assert record is not None
        assert (record.calibration, record.images, record.target) == (32, 40, "x86-vnni")
        assert record.top1 == (100, record.agreement)
        assert record.agreement >= 75
        assert 0 < record.integer_nodes < record.integer_nodes + record.float_nodes
    assert record.search == done.way.describe()
    with pytest.raises(InvalidInput, match="already"):
        quantize(output, tmp_path / "again.onnx", calibration, held_out, right)


@pytest.mark.slow
def test_a_refusal_writes_nothing(mobile_file: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(QuantizationRefused, match=r"top-1 (falls|rises)? ?from|not faster") as refusal:
        quantize(
            mobile_file, tmp_path / "int8.onnx", pictures(32).sources, pictures(40, seed=1).sources,
            own_answers(mobile_file, pictures(40, seed=1).sources), max_drop=-1,
        )  # fmt: skip
    assert "tried: " in str(refusal.value)
    assert "--force" in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"stamped": False}, "zoo import"), ({"task": "features", "labels": None}, "is of task features")],
)
def test_what_cannot_be_quantized(
    tiny: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        quantize(tiny(**changes), tmp_path / "o.onnx", [], [], None)
    with pytest.raises(InvalidInput, match="x86-vnni"):
        quantize(tiny(), tmp_path / "o.onnx", [], [], None, target="z80")


@pytest.mark.slow
def test_real_weights_keep_their_answers(zoo: Any, tmp_path: Path, shared_data: Path) -> None:
    """onnxruntime's own recipe with min-max ranges agrees on 92.6 % of 900 photos here (benchmarks/int8.py)."""
    weights, output = shared_data / "weights" / "squeezenet1_1_onnxzoo.pth", tmp_path / "float.onnx"
    assert zoo("export", "squeezenet1_1", "--weights", weights, "-o", output).code == 0
    photos, table = shared_data / "photos", tmp_path / "some.csv"
    table.write_text("".join((photos / "labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)[:401]))
    options = ["--data", photos, "--labels", table, "--force", "-o", tmp_path / "int8.onnx", "--json"]
    done = zoo("quantize", output, *options)
    assert done.code == 0, done.err
    record = json.loads(done.out)["quantization"]
    assert (record["calibration"], record["images"]) == (100, 300)
    # Which of the ways is taken hangs on times, and the answers to 300 photos on that; the distance hardly does.
    assert record["agreement"] >= 92.6
    assert record["distance"] <= 0.022
    told = zoo("eval", tmp_path / "int8.onnx", table, "--images", photos, "--skip", 100, "--json")
    assert json.loads(told.out)["top1"] == pytest.approx(record["top1"][1], abs=0.4)  # a photo: other batches


@pytest.mark.slow
def test_lenet_keeps_its_answers(zoo: Any, tmp_path: Path, shared_data: Path, lenet_file: Path) -> None:
    options = ["--data", shared_data / "mnist", "--force", "-o", tmp_path / "int8.onnx", "--json"]
    done = zoo("quantize", lenet_file, *options)
    assert done.code == 0, done.err
    record = json.loads(done.out)["quantization"]
    assert record["images"] == 9900
    assert record["agreement"] >= 99.5
    assert record["top1"][0] - record["top1"][1] <= 0.1
