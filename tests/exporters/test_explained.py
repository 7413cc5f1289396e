"""Grad-CAM inside the file: the same answers, the same map, in one call of any onnxruntime."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import runtime
from exporters.artifact import stamp
from exporters.explained import write_explained
from exporters.quantize.emit import emit
from exporters.quantize.network import Network
from exporters.quantize.observe import observe
from exporters.quantize.scheme import Style, candidates, make_scheme
from runtime.errors import InvalidInput, ParityError, UnknownName
from runtime.image import preprocess
from tests.exporters.quantize.networks import mobile, pictures, silent

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 14, 3), dtype=np.uint8)


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("layer", [None, "relu"])
def test_one_call_gives_answer_and_map(
    tiny: Callable[..., Path], tmp_path: Path, batch: int | str, layer: str | None
) -> None:
    file, output = tiny(batch=batch), tmp_path / "explained.onnx"
    assert write_explained(file, output, layer=layer) == ("relu" if layer else "conv")
    with runtime.load(file) as model:
        wanted = [model.explain(PICTURE, target=target, layer=layer) for target in (None, 1)]
        pixels = np.repeat(preprocess(PICTURE, model.rule), 2, axis=0)
        scores = model.run(pixels)
    session = ort.InferenceSession(output.read_bytes())
    assert [item.name for item in session.get_inputs()] == ["input"]
    plain = session.run(None, {"input": pixels})
    np.testing.assert_array_equal(plain[0], scores)
    assert plain[1].shape == (0, 8, 8)
    switch = {"input": pixels, "explain": np.array(True)}
    for extra, one in zip(({}, {"class_index": np.array([1])}), wanted, strict=True):
        logits, maps = session.run(["logits", "explanation"], switch | extra)
        np.testing.assert_array_equal(logits, scores)
        np.testing.assert_allclose(maps, np.stack([one.map] * 2), rtol=1e-4, atol=1e-6)


def test_the_runtime_takes_it_from_the_file_without_onnx(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file, output = tiny(), tmp_path / "explained.onnx"
    write_explained(file, output, layer="relu")
    with runtime.load(output) as model:
        assert model.baked
        assert list(model.run_all(preprocess(PICTURE, model.rule))) == ["logits"]
        found = model.explain(PICTURE, target="blue")
        other = model.explain(PICTURE, "layer-cam")  # not in the file, but of it
    with runtime.load(file) as model:
        wanted = model.explain(PICTURE, target="blue", layer="relu")
        np.testing.assert_allclose(other.map, model.explain(PICTURE, "layer-cam", layer="relu").map, rtol=1e-5)
    np.testing.assert_allclose(found.map, wanted.map, rtol=1e-4, atol=1e-6)
    assert (found.label, found.layer, found.score) == ("blue", "relu", pytest.approx(wanted.score))
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import runtime, numpy\n"
        "found = runtime.load(sys.argv[1]).explain(numpy.full((9, 9, 3), 70, numpy.uint8))\n"
        "print(found.map.shape, found.method)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(output)], capture_output=True, text=True)
    assert done.stdout.strip() == "(8, 8) grad-cam", done.stderr


def test_integer_kernels_stay_in_the_plain_prediction(tiny: Callable[..., Path], tmp_path: Path) -> None:

    network, style = Network(mobile()), Style()
    made = emit(
        network, make_scheme(network, observe(network, pictures(), silent), candidates(network, style), "whole", style)
    )
    file, output = tmp_path / "int8.onnx", tmp_path / "explained.onnx"
    _stamped(made.proto, file, tiny)
    write_explained(file, output, layer="head.act")
    kinds = []
    for path in (file, output):
        options = ort.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
        ort.InferenceSession(path.read_bytes(), options)
        kinds.append([node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node])
    assert kinds[1].count("QLinearConv") == kinds[0].count("QLinearConv") > 5
    assert set(kinds[1]) - set(kinds[0]) <= {"If", "ReorderOutput", "DequantizeLinear", "Transpose"}
    with runtime.load(output) as model:
        found = model.explain(pictures(1).sources[0])
    assert found.map.any()


def _stamped(proto: Any, file: Path, tiny: Callable[..., Path]) -> None:
    from dataclasses import replace

    from runtime.metadata import Labels
    from tests.exporters.quantize.networks import RULE

    with runtime.load(tiny()) as model:
        assert model.metadata is not None
        labels = Labels(names=tuple("abcdefghij"))
        stamp(proto, replace(model.metadata, preprocess=RULE, labels=labels, explain_layer="head.act"))
    onnx.save(proto, file)


def test_what_does_not_hold_is_not_written(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, output = tiny(), tmp_path / "explained.onnx"
    real = __import__("exporters.explained", fromlist=["bake"]).bake

    def wrong(proto: Any, layer: str, scores: str) -> Any:
        made = real(proto, layer, scores)
        weight = next(item for item in made.graph.initializer if item.name == "fw")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(1), "fw"))
        return made

    monkeypatch.setattr("exporters.explained.bake", wrong)
    with pytest.raises(ParityError, match="does not answer as before"):
        write_explained(file, output)
    assert not output.exists()


def test_requests_that_make_no_sense(zoo: Any, tiny: Callable[..., Path], tmp_path: Path) -> None:
    file, output = tiny(), tmp_path / "explained.onnx"
    with pytest.raises(UnknownName, match="no layer 'x'"):
        write_explained(file, output, layer="x")
    write_explained(file, output)
    with pytest.raises(InvalidInput, match="gives explanations already"):
        write_explained(output, tmp_path / "again.onnx")
    done = zoo("stamp", file)
    assert (done.code, done.err.strip()) == (2, "zoo: error: nothing to stamp: give --explain")
    done = zoo("stamp", file, "--explain", "--layer", "relu")
    assert done.code == 0, done.err
    assert "is Grad-CAM at relu" in done.out
    refused = zoo("quantize", file.with_name("tiny_explained.onnx"), "--data", tmp_path)
    assert refused.code == 2


@pytest.mark.slow
def test_export_writes_it_at_once(zoo: Any, root: Path, tmp_path: Path) -> None:
    done = zoo("export", "lenet5", "--explain", "-o", tmp_path / "lenet.onnx")
    assert done.code == 0, done.err
    assert "its output explanation is Grad-CAM at" in done.out
    digit = next(iter(sorted((root / "exporters" / "samples" / "digits").glob("*.png"))))
    with runtime.load(tmp_path / "lenet.onnx") as model:
        assert model.baked
        assert model.explain(digit).map.any()
