"""The guard of score maps: right ones pass, each kind of wrong one is stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exporters.artifact import stamp
from exporters.passes import clean
from exporters.source import Recipe, Source, Weights, sample_files
from exporters.top import Convolutional, fully_convolutional
from exporters.windows import verify_windows
from runtime.errors import InvalidInput, ParityError
from runtime.metadata import Labels, Metadata, Parity, Preprocess, Window
from runtime.model import Model
from tests.exporters.graphs import run
from tests.exporters.sliding import LENET, PADDED, SIDE, UNPADDED, network

NAMES = Labels(("a", "b", "c", "d", "e"))


def nothing(_: Any) -> Any:
    raise AssertionError("not to be called")


def source_of(proto: onnx.ModelProto, **changes: Any) -> Source:
    """A network that takes no pictures; its framework is onnxruntime on the graph as it was."""
    values: dict[str, Any] = {
        "framework": "none", "framework_version": "0", "exporter": "none", "builder": "tests", "opsets": range(18, 19),
        "forward": lambda batch: run(proto, {"input": batch})[0], "features": nothing, "transform": nothing,
        "convert": nothing, "preprocess": None, "input_shape": (3, SIDE, SIDE), "task": "classification",
        "layout": "NCHW",
        "labels": NAMES,
    }  # fmt: skip
    return Source(**{**values, **changes})


Check = Callable[..., tuple[Parity, Window]]


@pytest.fixture
def check(tmp_path: Path, metadata: Metadata) -> Check:
    """Stamps and writes a map, and verifies the file."""

    def verify(source: Source, scores: Any, sliding: Convolutional, **options: Any) -> tuple[Parity, Window]:
        window = Window(sliding.size, sliding.stride, 0.0)
        said = replace(metadata, task="score-map", window=window, preprocess=source.preprocess, labels=source.labels)
        proto = copy(sliding.proto)
        stamp(proto, said)
        path = tmp_path / "map.onnx"
        onnx.save(proto, path)
        with Model(path) as model:
            return verify_windows(source, model, scores, sliding, options.pop("pictures", []), kind="none", **options)

    return verify


def copy(proto: Any) -> Any:
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    return twin


@pytest.mark.parametrize("name", UNPADDED)
def test_unpadded_networks_agree_with_windows_cut_out(check: Check, name: str) -> None:
    proto = network(**UNPADDED[name])
    sliding = fully_convolutional(proto)
    parity, window = check(source_of(proto), proto, sliding)
    assert (window.size, window.stride) == ((SIDE, SIDE), sliding.stride)
    assert window.crop_error <= 1e-5
    assert (parity.inputs, parity.inputs_kind, parity.batch_sizes) == (10, "random arrays", (1, 3))


@pytest.mark.parametrize("name", PADDED)
def test_padded_networks_say_how_much_the_border_matters(check: Check, name: str) -> None:
    proto = network(**PADDED[name])
    parity, window = check(source_of(proto), proto, fully_convolutional(proto))
    assert parity.max_relative_error <= 1e-5
    assert 1e-3 < window.crop_error < 2


def test_a_frozen_batch(check: Check) -> None:
    source, proto = source_of(network(**LENET)), network(**LENET, batch=2)
    parity, window = check(source, proto, fully_convolutional(proto), batch=2)
    assert (parity.batch_sizes, window.crop_error <= 1e-5) == ((2,), True)
    with pytest.raises(ParityError, match="batch of 1: the ONNX file does not run"):
        check(source, proto, fully_convolutional(proto))


def test_a_wrong_kernel_differs_at_the_native_size(check: Check) -> None:
    proto = network(**LENET)
    sliding = fully_convolutional(proto)
    (tensor,) = (t for t in sliding.proto.graph.initializer if t.dims[-2:] == [3, 3] and t.dims[0] == 8)
    turned = numpy_helper.to_array(tensor).transpose(0, 1, 3, 2)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), tensor.name))
    with pytest.raises(ParityError, match="batch of 1: relative error of the logits"):
        check(source_of(proto), proto, sliding)


def test_a_map_that_does_not_grow(check: Check) -> None:
    proto = network(**UNPADDED["odd strides"])
    sliding = fully_convolutional(proto)
    pool = [node for node in sliding.proto.graph.node if node.op_type == "AveragePool"][-1]
    pool.op_type = "GlobalAveragePool"
    del pool.attribute[:]
    with pytest.raises(ParityError, match=r"a map of \(1, 1\) places instead of"):
        check(source_of(proto), proto, sliding)


def test_places_that_look_at_each_other(check: Check) -> None:
    proto = network(**LENET)
    sliding = fully_convolutional(proto)
    last = sliding.proto.graph.node[-1]
    last.output[0] = "own"
    mean = helper.make_node("GlobalAveragePool", ["own"], ["mean"], "mean")  # of one place: itself
    sliding.proto.graph.node.extend([mean, helper.make_node("Mean", ["own", "mean"], ["logits"], "both")])
    with pytest.raises(ParityError, match="differs from the classifier's head, window by window"):
        check(source_of(proto), proto, sliding)


def test_padding_that_nobody_told_of(check: Check) -> None:
    proto = network(**PADDED["pads"])
    sliding = replace(fully_convolutional(proto), padding=())
    with pytest.raises(ParityError, match="no layer pads, but the map differs from the framework on windows cut out"):
        check(source_of(proto), proto, sliding)


def test_a_wrong_stride(check: Check) -> None:
    proto = network(**LENET)
    sliding = fully_convolutional(proto)
    with pytest.raises(ParityError, match="places instead of"):
        check(source_of(proto), proto, replace(sliding, stride=(2, 4)))


def test_classes_that_do_not_exclude_each_other(check: Check) -> None:
    proto = network(**LENET)
    with pytest.raises(InvalidInput, match="do not exclude each other"):
        check(source_of(proto, task="multilabel"), proto, fully_convolutional(proto))


# ---- the frameworks


RULE = Preprocess(size=(32, 28), resize=(32, 28), mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)


def torch_network(num_classes: int = 5) -> Any:
    """AlexNet's form at a small size: strides, padding, an adaptive pooling, three dense layers."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d((7, 6)), nn.Flatten(), nn.Dropout(), nn.Linear(252, 16), nn.ReLU(),
        nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, num_classes),
    )  # fmt: skip


def keras_network(num_classes: int = 5, input_shape: tuple[int, int, int] = (32, 28, 3)) -> Any:
    """Valid convolutions, a flattened map in Keras' own order, two dense layers."""
    import keras
    from keras import layers

    inputs = keras.Input(input_shape)
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Dense(8, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(num_classes)(x))


def loaded(framework: str) -> Source:
    from exporters import keras, torch

    recipe = Recipe(
        name="mine", builder=f"tests.exporters.test_windows:{framework}_network", preprocess=RULE, labels=NAMES,
        weights=Weights(kind="none", seed=1),
    )  # fmt: skip
    return (torch if framework == "torch" else keras).load(recipe)


@pytest.mark.parametrize(("framework", "stride", "padding"), [("torch", (4, 4), 2), ("keras", (4, 4), 0)])
def test_a_network_of_each_framework(check: Check, framework: str, stride: tuple[int, int], padding: int) -> None:
    pytest.importorskip("torch" if framework == "torch" else "tensorflow")
    source = loaded(framework)
    proto = clean(source.convert(18, None), opset=18, batch=None)
    sliding = fully_convolutional(proto)
    parity, window = check(source, proto, sliding, pictures=sample_files("photos"))
    assert (window.size, window.stride, len(sliding.padding)) == ((32, 28), stride, padding)
    assert parity.max_relative_error <= 1e-5
    assert (window.crop_error > 1e-3) if padding else (window.crop_error <= 1e-5)


@pytest.mark.slow
def test_a_trained_network_finds_what_is_in_a_large_picture(tmp_path: Path, shared_data: Path, check: Check) -> None:
    """Six photos side by side: the most probable place of each one's class lies in that photo."""
    pytest.importorskip("torch")
    import csv

    from PIL import Image

    from exporters.torch import load
    from zoo.labels import load as labels
    from zoo.models import find

    _, variant = find("squeezenet1_1").variant("torch")
    weights = Weights(kind="file", path=shared_data / "weights" / "squeezenet1_1_onnxzoo.pth")
    source = load(
        Recipe(
            name="squeezenet1_1", builder=variant.builder, preprocess=variant.preprocess, labels=labels("imagenet"),
            weights=weights,
        )
    )  # fmt: skip
    proto = clean(source.convert(18, None), opset=18, batch=None)
    _, window = check(source, proto, fully_convolutional(proto), pictures=sample_files("photos"))
    assert window.stride == (16, 16)
    assert 0.01 < window.crop_error < 1
    with (shared_data / "photos" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[200:206]
    canvas = Image.new("RGB", (3 * 299, 2 * 299))
    for index, row in enumerate(rows):
        canvas.paste(Image.open(shared_data / "photos" / row["file"]), (index % 3 * 299, index // 3 * 299))
    with Model(tmp_path / "map.onnx") as model:
        found = model.score_map(canvas)
    assert found.scores.shape == (1000, 24, 43)
    for index, row in enumerate(rows):
        _, _, (top, left, height, width) = found.best(source.labels.names[int(row["imagenet_index"])])
        assert ((top + height / 2) // 299, (left + width / 2) // 299) == (index // 3, index % 3)
