"""What `zoo export` takes for a name, and what it answers to what it does not take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.errors import InvalidInput, UnknownName
from zoo.models import MODELS
from zoo.targets import resolve_target

Zoo = Callable[..., Any]

FACTORY = """
import torch

def build(num_classes=4):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, num_classes),
    )

def radar():
    return torch.nn.Sequential(torch.nn.Conv2d(5, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3))
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    return path


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_a_row_stands_for_itself(spec: Any) -> None:
    assert resolve_target(spec.name) == (spec, None)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("model.onnx", InvalidInput, "zoo import"),
        ("missing.keras", InvalidInput, "no such file"),
        ("folder/missing", InvalidInput, "no such file"),
        ("resnet5O", UnknownName, "did you mean resnet50"),
        ("package.module:", UnknownName, "package.module:factory"),
        ("package.module:1x", UnknownName, "package.module:factory"),
        ("torchvision:resnet5O", UnknownName, "resnet50"),
        ("torchvision:fcn_resnet50", InvalidInput, "fcn_resnet50"),
    ],
)
def test_what_is_none(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve_target(text)


def test_files_are_told_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).touch()
        with pytest.raises(InvalidInput, match=r"holds weights, not a network.*zoo export NAME --weights"):
            resolve_target(str(tmp_path / name))
    with pytest.raises(InvalidInput, match=r"without saved_model\.pb"):
        resolve_target(str(tmp_path))
    (tmp_path / "saved_model.pb").touch()
    for name, framework in (("m.keras", "keras"), ("m.h5", "keras"), ("m.pt2", "torch"), (".", "keras")):
        (tmp_path / name).is_dir() or (tmp_path / name).touch()
        spec, labels = resolve_target(str(tmp_path / name))
        assert (list(spec.sources), spec.labels, labels, spec.task) == ([framework], None, None, None)
    pickled, _ = resolve_target(str(tmp_path / "weights.pth"), trust=True)
    assert list(pickled.sources) == ["torch"]


def test_a_library_s_network_brings_its_configuration() -> None:
    spec, labels = resolve_target("timm:mobilenetv4_conv_small.e2400_r224_in1k")
    _, variant = spec.variant()
    assert (spec.labels, labels) == ("imagenet", None)
    assert variant.license == "apache-2.0"  # as the library spells it
    assert variant.hub == "timm/mobilenetv4_conv_small.e2400_r224_in1k"
    assert variant.preprocess is not None
    assert variant.preprocess.size == (224, 224)


# ---- exported


def test_a_factory_with_labels_of_its_own(zoo: Zoo, factory: Path, tmp_path: Path) -> None:
    labels, output = tmp_path / "labels.txt", tmp_path / "m.onnx"
    labels.write_text("0 ant\n1 bee\n2 wasp\n")
    done = zoo(
        "export", f"{factory}:build", "--weights", "none", "--labels", labels,
        "--preprocess", "0-1,size=32x24,color=BGR", "-o", output,
    )  # fmt: skip
    assert done.code == 0, done.err
    with runtime.load(output) as model:
        assert model.labels.names == ("ant", "bee", "wasp")
        assert (model.rule.color, model.rule.size) == ("BGR", (32, 24))
        assert model.metadata is not None
        assert model.metadata.provenance.builder.endswith("net.py:build")


def test_another_number_of_classes(zoo: Zoo, factory: Path, tmp_path: Path) -> None:
    options = ["--weights", "none", "--preprocess", "0-1,size=32x32", "--json"]
    done = zoo("export", f"{factory}:build", "--classes", "6", *options, "-o", tmp_path / "six.onnx")
    assert json.loads(done.out)["metadata"]["labels"]["names"] == [f"class {index}" for index in range(6)]
    two = zoo("export", f"{factory}:build", "--classes", "2", *options, "-o", tmp_path / "two.onnx")
    assert json.loads(two.out)["metadata"]["task"] == "classification"  # two outputs, not one


def test_an_input_that_is_no_picture(zoo: Zoo, factory: Path, tmp_path: Path) -> None:
    output = tmp_path / "radar.onnx"
    done = zoo("export", f"{factory}:radar", "--weights", "none", "--input-size", "5x20x30", "-o", output)
    assert done.code == 0, done.err
    assert "random arrays" in done.out
    with runtime.load(output) as model:
        assert model.run(np.zeros((2, 5, 20, 30), np.float32)).shape == (2, 3)
    refused = zoo("predict", output, factory)
    assert (refused.code, "takes arrays" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nobody wrote down its preprocessing"),
        (["--preprocess", "0-1,size=32x32", "--classes", "0"], "--classes must be at least 1"),
        (["--preprocess", "0-1,size=32x32", "--source", "keras"], "torch"),
        (["--input-size", "5x5x5x5"], "HEIGHTxWIDTH"),
        (["--preprocess", "0-1,size=32x32", "--weights", "imagenet"], "no ImageNet weights"),
    ],
)
def test_refusals(zoo: Zoo, factory: Path, tmp_path: Path, options: list[str], says: str) -> None:
    weights = [] if "--weights" in options else ["--weights", "none"]
    done = zoo("export", f"{factory}:build", *weights, *options, "-o", tmp_path / "m.onnx")
    assert done.code == 2, done.err
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "m.onnx").exists()


def test_classes_and_labels_must_agree(zoo: Zoo, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    done = zoo("export", "lenet5", "--weights", "none", "--labels", labels, "--classes", 3, "-o", tmp_path / "m.onnx")
    assert (done.code, "2 labels, but --classes says 3" in done.err) == (2, True)
    done = zoo("export", "lenet5", "--classes", 3, "-o", tmp_path / "m.onnx")
    assert (done.code, "have 10 classes" in done.err) == (2, True)


KERAS_FACTORY = """
import keras

def bare():
    pixels = keras.Input((20, 20, 3))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))

def none():
    return 5
"""


def test_a_keras_factory_without_parameters(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(KERAS_FACTORY)
    options = ["--source", "keras", "--weights", "none", "--preprocess", "tf", "-o", tmp_path / "m.onnx"]
    done = zoo("export", f"{tmp_path / 'nets.py'}:bare", *options, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["metadata"]["preprocess"]["size"] == [20, 20]  # the network's own
    refused = zoo("export", f"{tmp_path / 'nets.py'}:none", *options)
    assert (refused.code, "returns int, not a keras.Model" in refused.err) == (2, True)


@pytest.mark.slow
def test_an_input_that_is_too_small_for_the_network(zoo: Zoo, tmp_path: Path) -> None:
    for source, says in (("keras", "at least 75x75"), ("torch", "does not run on an input of")):
        options = ["--source", source, "--weights", "none", "--input-size", "32x32", "-o", tmp_path / "m.onnx"]
        done = zoo("export", "inception_v3", *options)
        assert (done.code, says in done.err) == (2, True), done.err


@pytest.mark.slow
def test_a_keras_file_of_one_s_own(zoo: Zoo, tmp_path: Path) -> None:
    import keras

    pixels = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(pixels, x)
    network.save(tmp_path / "mine.keras")
    done = zoo("export", tmp_path / "mine.keras", "-o", tmp_path / "m.onnx", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["metadata"]
    assert (told["task"], told["labels"]["names"], told["name"]) == ("binary", ["no", "yes"], "mine")
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    with runtime.load(tmp_path / "m.onnx") as model:
        answer = model.predict(picture)
    expected = float(network(picture[np.newaxis].astype(np.float32))[0, 0])
    yes = next(guess for guess in answer.top if guess.label == "yes")
    assert yes.probability == pytest.approx(expected, abs=1e-5)
