"""The nodes that normalise pixels, known again by what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.pixels import pixel_rule, with_pixels
from runtime.errors import InvalidArtifact, InvalidInput
from runtime.metadata import Layout, Preprocess
from runtime.pixel_input import find, float_network, other, without_pixels

RULE = Preprocess(size=(8, 8), resize=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)


@pytest.fixture
def pixels(tiny_model: onnx.ModelProto) -> onnx.ModelProto:
    made: onnx.ModelProto = with_pixels(tiny_model, RULE, "NHWC")
    return made


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_numpy_does_what_the_nodes_do(tiny_model: onnx.ModelProto, layout: Layout) -> None:
    proto = with_pixels(tiny_model, RULE, layout)
    found = find(proto)
    assert found is not None
    shape = (2, 8, 8, 3) if layout == "NHWC" else (2, 3, 8, 8)
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    proto.graph.output.append(onnx.helper.make_tensor_value_info(found.input, 1, ["N", 3, 8, 8]))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run([found.input], {found.pixels: batch})
    np.testing.assert_array_equal(found.floats(batch), wanted)
    assert found.rule(pixel_rule(RULE, layout), "here") == RULE


def test_float_files_are_as_they_are(tiny_model: onnx.ModelProto) -> None:
    assert find(tiny_model) is None
    assert without_pixels(tiny_model) is tiny_model
    assert float_network(tiny_model, RULE, "here") == (tiny_model, RULE)


def test_the_float_network_and_its_rule(tiny_model: onnx.ModelProto, pixels: onnx.ModelProto) -> None:
    assert float_network(pixels, pixel_rule(RULE, "NHWC"), "here") == (tiny_model, RULE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.485, 0.456, 0.4)},
        {"std": (0.229, 0.224, 0.2)},
        {"scale": 1.0},
        {"mean": (0.0, 0.0, 0.0)},
        {"layout": "NCHW"},
        {"input": "float32"},
    ],
)
def test_what_does_otherwise_than_it_says(pixels: onnx.ModelProto, wrong: dict[str, Any]) -> None:
    found = find(pixels)
    assert found is not None
    with pytest.raises(InvalidArtifact, match=r"here: normalises pixels otherwise than it says"):
        found.rule(replace(pixel_rule(RULE, "NHWC"), **wrong), "here")


def other_operator(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.name == "pixels::std").op_type = "Div"


def cut_off(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.name == "pixels::mean").input[0] = "relu"


def without_cast(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.name == "pixels::cast").name = "cast"


def computed(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.name == "pixels::mean").input[1] = "pixels::cast"


@pytest.mark.parametrize("change", [other_operator, cut_off, without_cast, computed])
def test_other_nodes_of_these_names_are_not_taken_off(
    pixels: onnx.ModelProto, change: Callable[[onnx.GraphProto], None]
) -> None:
    change(pixels.graph)
    assert find(pixels) is None
    assert without_pixels(pixels) is pixels
    with pytest.raises(InvalidInput, match=r"here: its uint8 input is not of edgezoo's making"):
        float_network(pixels, pixel_rule(RULE, "NHWC"), "here")


def test_the_other_layout() -> None:
    assert (other("NHWC"), other("NCHW")) == ("NCHW", "NHWC")
