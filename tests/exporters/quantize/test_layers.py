"""The layers of a smaller file: what belongs together, and whose error and time is whose."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.emit import emit
from exporters.quantize.layers import compare
from exporters.quantize.network import Network
from exporters.quantize.observe import observe
from exporters.quantize.scheme import Style, candidates, make_scheme
from exporters.quantize.way import Form, Way
from tests.exporters.quantize.networks import mobile, pictures, silent

STYLE = Style()


def made(chosen: set[str]) -> Way:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    proto = emit(network, make_scheme(network, seen, chosen, "whole", STYLE)).proto
    return Way("by hand", proto, len(network.nodes) - len(chosen), frozenset(chosen), form=Form(network, seen, {}))


def test_every_layer_has_its_error_and_its_time(mobile_file: Path, tmp_path: Path) -> None:
    way = made(candidates(Network(mobile()), STYLE))
    onnx.save(way.proto, tmp_path / "int8.onnx")
    layers = compare(way, mobile_file, tmp_path / "int8.onnx", pictures(8), progress=silent)
    by_name = {layer.name: layer for layer in layers}
    assert "stem" in by_name
    assert "stem.act" not in by_name  # an activation is its layer's
    assert {"left", "right", "cat", "max", "logits"} <= set(by_name)
    assert [layer.error or 0 for layer in layers] == sorted((layer.error or 0 for layer in layers), reverse=True)
    assert by_name["stem"].kind == "int8"
    # A sigmoid that is concatenated with what is a hundred times as large is all but lost on their grid.
    others = [layer.error for layer in layers if layer.error is not None and layer.name != "right"]
    assert all(0 < error < 0.2 for error in others)
    assert sum(layer.error is not None for layer in layers) > 0.8 * len(layers)
    assert all(layer.float_ms > 0 and layer.smaller_ms > 0 for layer in layers if layer.operator == "Conv")
    # The error of the answer is that of the two files' own answers.
    answers = []
    for file in (mobile_file, tmp_path / "int8.onnx"):
        session = ort.InferenceSession(file.read_bytes())
        answers.append(np.concatenate([session.run(None, {"input": batch})[0] for batch in pictures(8).batches(4)]))
    wanted = np.linalg.norm(answers[1] - answers[0]) / np.linalg.norm(answers[0])
    assert by_name["logits"].error == pytest.approx(wanted, rel=1e-4)


def test_a_layer_in_float_is_named_so_and_errs_only_by_what_came_before(mobile_file: Path, tmp_path: Path) -> None:
    way = made(candidates(Network(mobile()), STYLE) - {"stem"})
    onnx.save(way.proto, tmp_path / "int8.onnx")
    layers = {
        layer.name: layer for layer in compare(way, mobile_file, tmp_path / "int8.onnx", pictures(8), progress=silent)
    }
    assert layers["stem"].kind == "float32"
    assert layers["stem"].error == pytest.approx(0.004, abs=0.004)  # its result is read as integers by the next
    assert (layers["dw"].error or 0) > 0
