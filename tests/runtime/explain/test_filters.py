"""Filter pictures: they excite their filter, and no other is needed for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import runtime
from runtime.errors import InvalidInput, UnknownName
from runtime.explain import visualise


def test_each_picture_excites_its_own_filter(lenet_file: Path) -> None:
    with runtime.load(lenet_file) as model:
        layer = model.layers()[0]
        assert layer.shape[0] >= 4
        filters = [0, 2, 3]
        pictures = visualise(model, layer.name, filters, steps=24)
        assert pictures.shape == (3, 28, 28, 3)
        noise = np.random.default_rng(0).integers(96, 160, (28, 28), dtype=np.uint8)
        plain = model.activations(noise, layer.name)[layer.name].mean((1, 2))
        for picture, number in zip(pictures, filters, strict=True):
            excited = model.activations(picture[..., :1], layer.name)[layer.name].mean((1, 2))
            assert excited[number] > plain[number]
        again = visualise(model, layer.name, filters[:1], steps=24)
        np.testing.assert_array_equal(again[0], pictures[0])  # whoever else climbs beside it


def test_a_dead_filter_stays_grey(tiny: Callable[..., Path]) -> None:
    file = tiny()
    proto = onnx.load(file)
    bias = next(item for item in proto.graph.initializer if item.name == "b")
    values = numpy_helper.to_array(bias).copy()
    values[1] = -1e6
    bias.CopyFrom(numpy_helper.from_array(values, "b"))
    onnx.save(proto, file)
    with runtime.load(file) as model:
        pictures = visualise(model, "relu", [0, 1], steps=4)
    assert np.ptp(pictures[0]) > 100
    assert np.ptp(pictures[1]) == 0
    assert 120 <= pictures[1].max() <= 136


def test_requests_that_make_no_sense(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny()) as model:
        with pytest.raises(InvalidInput, match="conv: no filter 6: they are 0 to 5"):
            visualise(model, "conv", [0, 6])
        with pytest.raises(InvalidInput, match="give one or more"):
            visualise(model, "conv", [])
        with pytest.raises(UnknownName, match="no layer 'x'"):
            visualise(model, "x", [0])
