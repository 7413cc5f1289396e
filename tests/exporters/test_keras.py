"""Keras networks on the whole road: real files, equal bytes, the rows of the catalogue."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.metadata import Labels, Preprocess
from tests.exporters.keras_support import (
    Zoo,
    lenet,
    softmax,
)
from zoo.models import MODELS

h5py = pytest.importorskip("h5py")

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]


# ---- real files


@pytest.mark.slow
def test_keras_2_mobilenet_on_real_photos(shared_data: Path, zoo: Zoo, tmp_path: Path, keras: Any) -> None:
    """DepthwiseConv2D with the ``groups`` that Keras 3 refuses; the answers are those of Keras on the same pixels."""
    from PIL import Image

    from runtime.model import Model

    path, output = shared_data / "weights" / "keras" / "mobilenet_v1_0.25_128.h5", tmp_path / "m.onnx"
    done = zoo("export", "mobilenet_v1", "--weights", path, "-o", output)
    assert done.code == 0, done.err
    pictures = sorted((shared_data / "photos").glob("*.jpg"))[:60]

    def pixels(picture: Path) -> Any:
        with Image.open(picture) as image:
            return (
                np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
            )

    batch = np.stack([pixels(picture) for picture in pictures])
    with pytest.raises(Exception, match="groups"):
        keras.models.load_model(path, compile=False)
    reference = rebuilt(keras, path)(batch, training=False).numpy()
    np.testing.assert_allclose(reference.sum(axis=1), 1, atol=1e-5)
    with Model(output, decode="exact") as model:
        assert model.rule.size == (128, 128)
        logits = np.concatenate([model.run(batch[i : i + 20].transpose(0, 3, 1, 2)) for i in range(0, 60, 20)])
        answers = list(model.predict_many(pictures))
    assert np.array_equal(logits.argmax(axis=1), reference.argmax(axis=1))
    assert [answer.index for answer in answers] == reference.argmax(axis=1).tolist()
    assert [answer.probability for answer in answers] == pytest.approx(reference.max(axis=1), abs=1e-4)
    np.testing.assert_allclose(softmax(logits), reference, atol=1e-4)
    assert logits.min() < -1


def rebuilt(keras: Any, path: Path) -> Any:
    """The same file by another road: today's architecture, its weights put in one by one, softmax and all."""
    keras.backend.clear_session()
    model = keras.applications.MobileNet((128, 128, 3), alpha=0.25, weights=None)
    with h5py.File(path) as file:
        for layer in model.layers:
            if layer.weights:
                group = file["model_weights"][layer.name]
                layer.set_weights([group[name][()] for name in group.attrs["weight_names"]])
    return model


@pytest.mark.slow
def test_keras_2_resnet8(shared_data: Path, tmp_path: Path, keras: Any) -> None:
    """A whole model of 2020, its own architecture, 10 classes, exported with a recipe made by hand."""
    from exporters.export import export
    from runtime.model import Model

    path = shared_data / "weights" / "keras" / "resnet8_cifar10.h5"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    rule = Preprocess(size=(32, 32), resize=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    recipe = replace(lenet(path), name="resnet8", preprocess=rule, labels=Labels(names=classes), samples="photos")
    subset = np.load(shared_data / "cifar10" / "cifar10_subset.npz")
    images, truth = subset["x_test"], subset["y_test"]
    export(recipe, "keras", tmp_path / "r.onnx")
    with Model(tmp_path / "r.onnx") as model:
        answers = list(model.predict_many(images, batch_size=100))
    assert np.mean([answer.index for answer in answers] == truth) == pytest.approx(0.877, abs=0.005)
    # Pixels go in as they are, so Keras needs no preprocessing at all.
    probabilities = keras.models.load_model(path, compile=False)(images.astype(np.float32), training=False).numpy()
    assert np.array_equal(probabilities.argmax(axis=1), [answer.index for answer in answers])
    assert [answer.probability for answer in answers] == pytest.approx(probabilities.max(axis=1), abs=1e-4)


# ---- the same bytes each time


EXPORT = "from zoo.cli import main; "


def fresh(tmp_path: Path, script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPORT + script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exports_in_fresh_processes_are_identical(tmp_path: Path) -> None:
    one = "assert main(['export', 'lenet5', '--source', 'keras', '-o', {!r}]) == 0; ".format
    options = "'--weights', 'none', '--input-size', '64x64', '-o', 'other.onnx'"
    other = f"assert main(['export', 'mobilenet_v1', {options}]) == 0; "
    fresh(tmp_path, one("a.onnx") + other)
    fresh(tmp_path, other.replace("other.onnx", "again.onnx") + one("b.onnx") + one("c.onnx"))
    contents = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in ("a", "b", "c", "other", "again")}
    assert len({contents[name] for name in "abc"}) == 1
    assert contents["other"] == contents["again"] != contents["a"]


# ---- the rows of the catalogue


def test_which_rows_keras_has_checksums_for(keras: Any) -> None:
    """MobileNet and MobileNetV2 come without one. If this fails, Keras has more: say so in ``keras_model``."""
    import inspect

    checked = {}
    for name, variant in [(spec.name, spec.sources["keras"]) for spec in MODELS if "keras" in spec.sources]:
        library, _, network = variant.builder.partition(":")
        if library == "keras":
            module = sys.modules[getattr(keras.applications, network).__module__]
            source = inspect.getsource(module)
            source += (
                inspect.getsource(sys.modules["keras.src.applications.resnet"]) if network.startswith("ResNet") else ""
            )
            checked[name] = "file_hash" in source
    assert {name for name, found in checked.items() if not found} == {"mobilenet_v1", "mobilenet_v2"}
