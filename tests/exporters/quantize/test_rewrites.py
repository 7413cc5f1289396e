"""Centring, equalisation and the integer form: what they must leave alone, and what they must bring."""

import platform
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.quantize.centre import centre
from exporters.quantize.correction import corrections, straightened
from exporters.quantize.emit import emit
from exporters.quantize.equalise import equalise, worth_rescaling
from exporters.quantize.network import Network, cut
from exporters.quantize.observe import observe, run
from exporters.quantize.scheme import Style, candidates, make_scheme
from tests.exporters.quantize.networks import mobile, pictures, silent

SWISHES = ("expand.act", "dw2.act")  # a layer of its own is cheap for the first: it is dense, and takes 8 channels


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
    equalise(network, seen, rescale=SWISHES if rescaled else ())
    # On the calibration pictures nothing is clipped that was not before.
    assert error(answers(network.proto()), wanted) < 1e-4
    for name, before in uneven.items():
        assert np.median(seen[name].reach) / seen[name].reach.max() >= before - 1e-6
    made = [network.maker(f"{name}::unscaled") for name in SWISHES]
    assert [node and node.op_type for node in made] == (["Conv", "Mul"] if rescaled else [None, None])
    again = observe(network, pictures(), silent)
    for name in ("stem.act", "pw", "expand", "cat"):
        np.testing.assert_allclose(seen[name].highest, again[name].highest, rtol=1e-3, atol=1e-4)


def test_those_hard_swish_are_rescaled_whose_channels_are_uneven() -> None:
    network = Network(mobile())

    def scale(layer: str, factors: Any) -> None:
        for name in (f"{layer}.w", f"{layer}.b"):
            array = network.weights[name]
            network.weights[name] = (array * factors.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)

    for layer in ("expand", "dw2"):
        scale(layer, 20 / observe(network, pictures(), silent)[layer].reach)
    seen = observe(network, pictures(), silent)
    assert worth_rescaling(network, seen, SWISHES, 0.0, {}) == set()
    uneven = np.array([1.0] + [0.02] * 15)
    scale("dw2", uneven)
    network.weights["project.w"] = (network.weights["project.w"] / uneven.reshape(1, -1, 1, 1)).astype(np.float32)
    seen = observe(network, pictures(), silent)
    assert worth_rescaling(network, seen, SWISHES, 0.0, {}) == {"dw2.act"}
    assert worth_rescaling(network, seen, SWISHES[:1], 0.0, {}) == set(), "only among those"


def test_relu6_s_channels_grow_to_the_limit_and_no_further() -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    equalise(network, seen)
    assert seen["stem.act"].highest.max() <= 6 + 1e-4
    assert np.median(seen["stem.act"].highest) > 5


def test_caution_leaves_room_for_what_calibration_did_not_see() -> None:
    """Channels that the calibration pictures hardly reach, or not at all, are well up in others."""
    wanted, errors = answers(mobile()), []
    for caution in (0.0, 0.5, 1.0):
        network = Network(mobile())
        seen = observe(network, pictures(), silent)
        item = seen["stem.act"]
        item.highest = item.highest * np.array([0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 1.0, 1.0])
        equalise(network, seen, caution=caution)
        errors.append(error(answers(network.proto()), wanted))
    nothing_lost, half, all_the_way = reversed(errors)
    assert nothing_lost < 1e-5
    assert nothing_lost < half < 0.5 * all_the_way
    assert all_the_way > 0.05


PLAIN = Style()


def optimized(proto: Any, folder: Any) -> Any:
    """What onnxruntime makes of a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(proto.SerializeToString(), options)
    return onnx.load(options.optimized_model_filepath)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
def test_the_integer_form_is_near_and_on_integer_kernels(signed: bool, rescaled: bool, tmp_path: Any) -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    centre(network, seen)
    equalise(network, seen, rescale=SWISHES if rescaled else ())
    style = Style(signed=signed)
    scheme = make_scheme(network, seen, candidates(network, style), "whole", style)
    made = emit(network, scheme)
    assert error(answers(made.proto), wanted) < 0.1
    if signed != (platform.machine() in ("aarch64", "arm64")):
        return  # the form of another processor: onnxruntime runs it here, in part in float
    kinds = [node.op_type for node in optimized(made.proto, tmp_path).graph.node]
    assert not {"Conv", "FusedConv", "HardSwish", "HardSigmoid", "Sigmoid", "Add", "Mul"} & set(kinds), kinds
    assert kinds.count("QLinearConv") == sum(node.op_type == "Conv" for node in network.nodes)


def test_bias_correction_brings_the_means_back() -> None:
    network = Network(mobile(1))
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    scheme = make_scheme(network, seen, candidates(network, PLAIN), "whole", PLAIN)
    plain = answers(emit(network, scheme).proto)
    mended = corrections(network, scheme, pictures(), silent)
    mended = answers(emit(network, scheme, mended).proto)
    assert np.abs((mended - wanted).mean(axis=0)).max() < 0.5 * np.abs((plain - wanted).mean(axis=0)).max()


def test_correction_brings_means_and_gains_back() -> None:
    random = np.random.default_rng(0)
    wanted = [random.normal(3, [[[1.0]], [[5.0]], [[0.0]]], size=(4, 3, 20, 20)) for _ in range(3)]
    noise = [random.normal(0, 0.1, size=one.shape) for one in wanted]
    got = [0.9 * one + 0.5 + some for one, some in zip(wanted, noise, strict=True)]
    gain, shift = straightened(zip(wanted, got, strict=True))
    np.testing.assert_allclose(gain[:2], 1 / 0.9, rtol=0.01)
    assert 0.74 < gain[2] < 1.34, "a channel that never changes has no slope"
    now = np.concatenate([gain[:, None, None] * one + shift[:, None, None] for one in got])
    np.testing.assert_allclose(now.mean((0, 2, 3)), np.concatenate(wanted).mean((0, 2, 3)), rtol=1e-6)


def test_corrected_layers_keep_their_gain() -> None:
    network = Network(mobile(1))
    seen = observe(network, pictures(), silent)
    for item in seen.values():
        item.highest = 0.8 * item.highest  # clips a good deal, which lowers the gains of the layers behind it
    scheme = make_scheme(network, seen, candidates(network, PLAIN), "whole", PLAIN)
    mended = corrections(network, scheme, pictures(), silent)
    shifted = {name: np.stack([np.ones_like(gain), shift]) for name, (gain, shift) in mended.items()}
    names = ["stem", "pw", "expand"]
    wanted = next(run(network.proto(extra_outputs=names), names, pictures(), batch=100))

    def slopes(some: dict[str, Any], name: str) -> np.ndarray:
        made = emit(network, scheme, some).proto
        result = name if any(name in node.output for node in made.graph.node) else scheme.absorbed[name]
        got = next(run(cut(made, [result]), [result], pictures(), batch=100))[result]
        one, other = (value - value.mean((0, 2, 3), keepdims=True) for value in (wanted[name], got))
        slope: np.ndarray = (one * other).sum((0, 2, 3)) / np.square(one).sum((0, 2, 3))
        return slope

    for name in names:
        assert np.abs(slopes(mended, name) - 1).max() < 2e-3
        assert np.abs(slopes(shifted, name) - 1).mean() > 0.01, "not by biases"


def test_a_float_layer_behind_integer_ones_is_corrected_too() -> None:
    network = Network(mobile(1))
    behind = {"left", "right", "head", "logits"}
    scheme = make_scheme(
        network, observe(network, pictures(), silent), candidates(network, PLAIN) - behind, "whole", PLAIN
    )
    mended = corrections(network, scheme, pictures(), silent)
    assert behind <= set(mended)
    wanted = answers(network.proto())
    made = emit(network, scheme, mended).proto
    read = {name for node in made.graph.node for name in node.input}
    assert [item.name for item in made.graph.initializer if item.name not in read] == [], "stored for nobody"
    plain, mended = (answers(emit(network, scheme, some).proto) for some in ({}, mended))
    assert np.abs((mended - wanted).mean(axis=0)).max() < 0.1 * np.abs((plain - wanted).mean(axis=0)).max()
    front = candidates(network, PLAIN) - {"stem", "stem.act", "dw", "dw.act"}
    scheme = make_scheme(network, observe(network, pictures(), silent), front, "whole", PLAIN)
    assert "dw" not in corrections(network, scheme, pictures(), silent), "nothing before it is rounded"


def test_layers_left_in_float_stay_in_float(tmp_path: Any) -> None:
    network = Network(mobile())
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    chosen = candidates(network, PLAIN) - {"stem", "project"}
    made = emit(network, make_scheme(network, seen, chosen, "whole", PLAIN)).proto
    assert "stem.w" in {item.name for item in made.graph.initializer}
    # Between two quantized tensors onnxruntime would round them itself, all outputs on one scale.
    kinds = [node.op_type for node in optimized(made, tmp_path).graph.node]
    convolutions = sum(node.op_type == "Conv" for node in network.nodes)
    assert (kinds.count("QLinearConv"), kinds.count("Conv") + kinds.count("FusedConv")) == (convolutions - 2, 2)
    assert error(answers(made), wanted) < 0.15
    none = emit(network, make_scheme(network, seen, set(), "whole", PLAIN)).proto
    np.testing.assert_allclose(answers(none), wanted, rtol=1e-5, atol=1e-5)


def test_the_symmetric_form_is_what_gpus_want() -> None:
    """0 as every zero point, signed integers, biases and rectifiers in float (onnxruntime's notes on TensorRT)."""
    network, style = Network(mobile()), Style(signed=True, symmetric=True)
    seen = observe(network, pictures(), silent)
    wanted = answers(network.proto())
    made = emit(network, make_scheme(network, seen, candidates(network, style), "whole", style)).proto
    onnx.checker.check_model(made, full_check=True)
    assert error(answers(made), wanted) < 0.1
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in made.graph.initializer}
    makers = {node.output[0]: node for node in made.graph.node}
    zeros = [constants[node.input[2]] for node in made.graph.node if node.op_type.endswith("quantizeLinear")]
    zeros += [constants[node.input[2]] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    for node in made.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert constants[node.input[2]].dtype == np.float32
            assert makers[node.input[1]].op_type == "DequantizeLinear"
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Relu") == sum(node.op_type == "Relu" for node in network.nodes)
    assert kinds.count("Clip") == sum(node.op_type == "Clip" for node in network.nodes)
