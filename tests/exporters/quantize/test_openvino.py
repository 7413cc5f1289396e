"""The form that OpenVINO's integer kernels want: activation functions inside them, and OpenVINO's own times."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.quantize import targets
from exporters.quantize.emit import emit
from exporters.quantize.network import Network, add_biases
from exporters.quantize.observe import BATCH, observe, run
from exporters.quantize.reference import Reference
from exporters.quantize.road import Trial, quantize
from exporters.quantize.scheme import candidates, make_scheme
from exporters.quantize.targets import TARGETS, at_hand, measured_by
from exporters.quantize.timing import milliseconds
from runtime.engines import open_runner
from runtime.errors import MissingDependency
from runtime.tasks.alike import ALIKE
from tests.exporters.quantize.networks import mobile, pictures, silent

openvino = pytest.mark.skipif(not at_hand(TARGETS["openvino"]), reason="openvino is not installed")
STYLE = TARGETS["openvino"].style


def quantized(proto: Any, *, without: frozenset[str] = frozenset()) -> Any:
    network, few = Network(proto), pictures()
    seen = observe(network, few, silent)
    scheme = make_scheme(network, seen, candidates(network, STYLE) - without, "whole", STYLE)
    return emit(network, scheme).proto


def kinds_behind(proto: Any, name: str) -> list[str]:
    """What reads a tensor, and what reads that, as far as there is one reader only."""
    found: list[str] = []
    while len(readers := [node for node in proto.graph.node if name in node.input]) == 1:
        found.append(readers[0].op_type)
        name = readers[0].output[0]
    return found


def test_an_activation_stands_between_a_convolution_and_its_grid() -> None:
    made = quantized(mobile())
    assert kinds_behind(made, "expand")[:3] == ["HardSwish", "QuantizeLinear", "DequantizeLinear"]
    assert sorted(node.op_type for node in made.graph.node if "dw2.act" in node.input) == ["GlobalAveragePool", "Mul"]
    assert kinds_behind(made, "excite")[:3] == ["HardSigmoid", "Mul", "QuantizeLinear"]
    # A rectifier is the end of the range, and what integers take of each other stays on them.
    assert "stem.act" in [name for node in made.graph.node for name in node.output]
    assert not any(node.op_type in ("Clip", "Relu") for node in made.graph.node)


def test_the_answers_are_near() -> None:
    few, proto = pictures(), mobile()
    assert Reference(proto, few, ALIKE["classification"]).distance(quantized(mobile())) < 0.1


def test_a_rectifier_whose_result_stays_float_is_kept() -> None:
    few, proto = pictures(), mobile()
    made = quantized(mobile(), without=frozenset({"mean", "flat", "logits"}))
    assert kinds_behind(made, "head")[:2] == ["Relu", "GlobalAveragePool"]
    assert Reference(proto, few, ALIKE["classification"]).distance(made) < 0.1


@pytest.mark.parametrize("style", [TARGETS["x86-vnni"].style, STYLE])
def test_a_convolution_without_a_bias_is_a_layer(style: Any) -> None:
    few, bare = pictures(), mobile()
    for node in bare.graph.node:
        if node.output[0] in ("dw2", "right"):
            del node.input[2]
    wanted = [values["logits"] for values in run(bare, ["logits"], few)]
    given = onnx.ModelProto.FromString(bare.SerializeToString())
    assert not {"dw2", "right"} & candidates(Network(bare), style)
    add_biases(given)
    onnx.checker.check_model(given, full_check=True)
    assert {"dw2", "right"} <= candidates(Network(given), style)
    np.testing.assert_array_equal([values["logits"] for values in run(given, ["logits"], few)], wanted)


@openvino
def test_openvino_runs_it_on_integers(tmp_path: Path) -> None:
    from runtime.engines.openvino_runner import load_openvino

    few, file = pictures(8), tmp_path / "made.onnx"
    made = quantized(mobile())
    onnx.save(made, file)
    pixels = np.concatenate(list(few.batches(8)))
    runner = open_runner(file, engine="openvino")
    got = runner.run(["logits"], {"input": pixels})[0]
    passes = [{"logits": got[start : start + BATCH]} for start in range(0, len(got), BATCH)]
    assert Reference(made, few, ALIKE["classification"]).square(passes) < 0.05**2
    module = load_openvino()
    compiled = module.Core().import_model(io.BytesIO(runner.prepared()), "CPU", {"PERF_COUNT": "YES"})
    kernels = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        kernels[str(told["originalLayersNames"].value)] = str(told["runtimePrecision"].value)
    integers = {name for names, kind in kernels.items() if kind in ("i8", "u8") for name in names.split(",")}
    assert {"stem", "dw", "pw", "expand", "dw2", "project", "left", "head"} <= integers


@openvino
def test_times_are_openvino_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = open_runner

    def spy(*given: Any, **options: Any) -> Any:
        opened.append(options["engine"])
        return real(*given, **options)

    monkeypatch.setattr("exporters.quantize.timing.open_runner", spy)
    file = tmp_path / "float.onnx"
    onnx.save(mobile(), file)
    picture = next(pictures().batches(1))
    times = milliseconds([str(file), mobile().SerializeToString()], picture, engine="openvino", budget_s=0.1)
    assert opened == ["openvino", "openvino"]
    assert all(0 < time < 1000 for time in times)


@openvino
def test_a_file_for_openvino(mobile_file: Path, tmp_path: Path) -> None:
    trial = Trial(pictures(32).sources, pictures(40, seed=1).sources)
    done = quantize(mobile_file, tmp_path / "int8.onnx", trial, target="openvino", plain=True, force=True)
    told = done.metadata.quantization
    assert told is not None
    assert (told.target, done.engine) == ("openvino", "openvino")
    assert told.time_ratio is not None
    assert done.measured.agreement >= 75


def test_without_openvino_it_is_not_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(engine: str) -> None:
        raise MissingDependency("openvino is not installed")

    monkeypatch.setattr(targets, "why_not", missing)
    at_hand.cache_clear()
    try:
        assert not at_hand(TARGETS["openvino"])
        assert measured_by(TARGETS["openvino"]) == "onnxruntime"
    finally:
        at_hand.cache_clear()
