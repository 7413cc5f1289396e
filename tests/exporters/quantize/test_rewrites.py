"""Centring, equalisation and the integer form: what they must leave alone, and what they must bring."""

import platform
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.bias import corrections
from exporters.quantize.centre import centre
from exporters.quantize.emit import emit
from exporters.quantize.equalise import equalise
from exporters.quantize.network import Network
from exporters.quantize.observe import observe
from exporters.quantize.scheme import candidates, make_scheme
from tests.exporters.quantize.networks import mobile, pictures, silent


def answers(proto: Any, count: int = 24) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString())
    return np.concatenate([session.run(None, {"input": batch})[0] for batch in pictures(count).batches(8)])


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("seed", range(4))
def test_centring_changes_no_answer_and_narrows_the_stream(seed: int) -> None:
    network = Network(mobile(seed))
    seen = observe(network, pictures(), silent)
    before, wanted = seen["sum"].reach.max(), answers(network.proto())
    centre(network, seen)
    assert error(answers(network.proto()), wanted) < 1e-5
    assert seen["sum"].reach.max() <= before * 1.001
    again = observe(network, pictures(), silent)  # what was worked out is what is there
    for name in ("pw", "project", "sum"):
        for kind in ("lowest", "highest", "mean", "power"):
            np.testing.assert_allclose(getattr(seen[name], kind), getattr(again[name], kind), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equalisation_changes_no_answer_and_evens_channels(seed: int, rescaled: bool) -> None:
    network = Network(mobile(seed))
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    uneven = {name: np.median(seen[name].reach) / seen[name].reach.max() for name in ("stem.act", "dw.act", "sum")}
    equalise(network, seen, rescale=lambda shape: rescaled)
    # On the calibration pictures nothing is clipped that was not before.
    assert error(answers(network.proto()), wanted) < 1e-4
    for name, before in uneven.items():
        assert np.median(seen[name].reach) / seen[name].reach.max() >= before - 1e-6
    assert any("::inverse" in name for name in network.weights) == rescaled
    again = observe(network, pictures(), silent)
    for name in ("stem.act", "pw", "expand", "cat"):
        np.testing.assert_allclose(seen[name].highest, again[name].highest, rtol=1e-3, atol=1e-4)


def test_relu6_s_channels_grow_to_the_limit_and_no_further() -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    equalise(network, seen)
    assert seen["stem.act"].highest.max() <= 6 + 1e-4
    assert np.median(seen["stem.act"].highest) > 5


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
def test_the_integer_form_is_near_and_on_integer_kernels(signed: bool, rescaled: bool, tmp_path: Any) -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    centre(network, seen)
    equalise(network, seen, rescale=lambda shape: rescaled)
    scheme = make_scheme(network, seen, candidates(network), "whole")
    made = emit(network, scheme, signed=signed)
    assert error(answers(made.proto), wanted) < 0.1
    if signed != (platform.machine() in ("aarch64", "arm64")):
        return  # the form of another processor: onnxruntime runs it here, in part in float
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(made.proto.SerializeToString(), options)
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert not {"Conv", "FusedConv", "HardSwish", "HardSigmoid", "Sigmoid", "Add", "Mul"} & set(kinds), kinds
    assert kinds.count("QLinearConv") == sum(node.op_type == "Conv" for node in network.nodes)


def test_bias_correction_brings_the_means_back() -> None:
    network = Network(mobile(1))
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    scheme = make_scheme(network, seen, candidates(network), "whole")
    plain = answers(emit(network, scheme).proto)
    shifts = corrections(network, scheme, lambda found: emit(network, scheme, shifts=found), pictures(), silent)
    mended = answers(emit(network, scheme, shifts=shifts).proto)
    assert np.abs((mended - wanted).mean(axis=0)).max() < 0.5 * np.abs((plain - wanted).mean(axis=0)).max()


def test_layers_left_in_float_stay_in_float() -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    chosen = candidates(network) - {"stem", "project"}
    made = emit(network, make_scheme(network, seen, chosen, "whole")).proto
    assert "stem.w" in {item.name for item in made.graph.initializer}
    assert error(answers(made), wanted) < 0.15
    none = emit(network, make_scheme(network, seen, set(), "whole")).proto
    np.testing.assert_allclose(answers(none), wanted, rtol=1e-5, atol=1e-5)
