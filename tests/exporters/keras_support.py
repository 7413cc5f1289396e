"""What the tests of the Keras modules share: recipes, networks, and the form of a refusal."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.source import Recipe, Weights
from runtime.metadata import Labels, Preprocess
from zoo.labels import load as labels
from zoo.models import find

h5py = pytest.importorskip("h5py")

BUNDLED = Path(__file__).parents[2] / "zoo" / "bundled" / "lenet5.safetensors"
DIGITS = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
PHOTOS = np.random.default_rng(0).uniform(0, 255, size=(3, 3, 16, 12)).astype(np.float32)
RULE = Preprocess(size=(16, 12), resize=(16, 12), mean=(0.0,) * 3, std=(1.0,) * 3)
NAMES = Labels(names=("a", "b", "c", "d", "e"))
Zoo = Callable[..., Any]


def lenet(path: Path | None, **changes: Any) -> Recipe:
    _, variant = find("lenet5").variant("keras")
    weights = Weights(kind="file", path=path) if path else Weights(kind="none", seed=3)
    values = {"name": "lenet5", "builder": variant.builder, "preprocess": variant.preprocess, "samples": "digits"}
    return Recipe(**{**values, "labels": labels("digits"), "weights": weights, **changes})


def photos(path: Path, **changes: Any) -> Recipe:
    return replace(lenet(path), name="mine", preprocess=RULE, labels=NAMES, **changes)


def run(model: Any, batch: Any) -> Any:
    """What Keras itself answers, from pictures as the artifact takes them."""
    return model(batch.transpose(0, 2, 3, 1), training=False).numpy()


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def scramble(model: Any, seed: int = 1) -> Any:
    """Seeded values for every weight, those that begin as zeros and ones too."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 0.4, size=value.shape) for value in model.get_weights()])
    return model


def save_legacy(model: Any, path: Path) -> None:
    """Weights alone, as Keras 2 wrote them to .h5."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def refused(zoo: Zoo, path: Path, *argv: object, name: str = "lenet5") -> str:
    """The one line that ``zoo export`` ends with, having written nothing."""
    before = sorted(path.parent.rglob("*"))
    done = zoo("export", name, "--source", "keras", "--weights", path, "-o", path.parent / "out.onnx", *argv)
    assert done.code == 2
    assert done.err.startswith("zoo: error: ")
    assert done.err.count("\n") == 1
    assert sorted(path.parent.rglob("*")) == before
    return str(done.err)


def file_recipe(path: Path, **changes: Any) -> Recipe:
    """A whole network from a file that says no more than itself, for pictures as they are."""
    values = {"name": "mine", "builder": f"file:{path.name}", "preprocess": RULE, "labels": None}
    return Recipe(**{**values, "weights": Weights(kind="file", path=path), **changes})


def save_keras_2(
    path: Path, config: Any, groups: dict[str, list[tuple[str, Any]]], *, version: str | None = "2.4.0",
    backend: str = "tensorflow",
) -> None:  # fmt: skip
    """A whole model in the .h5 of Keras 2 (no version: Keras 1): its configuration, its weights by layer."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        if version:
            file.attrs["keras_version"], file.attrs["backend"] = version.encode(), backend.encode()
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [name.encode() for name in groups]
        for name, stored in groups.items():
            group = weights.create_group(name)
            group.attrs["weight_names"] = [full.encode() for full, _ in stored]
            for full, value in stored:
                group[full] = value


def save_keras_2_archive(path: Path, config: Any, places: dict[str, list[Any]]) -> None:
    """A whole model in the .keras of Keras 2.12 to 2.15: its weights by place."""
    weights = path.with_suffix(".tmp")
    with h5py.File(weights, "w") as file:
        for place, stored in places.items():
            for index, value in enumerate(stored):
                file[f"{place}/vars/{index}"] = value
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.13.1", "date_saved": "2023-09-01@10:00:00"}))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
