"""What the tests of the Keras modules share: recipes, networks, and the form of a refusal."""

from __future__ import annotations

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
