"""Weights from the frameworks' hubs arrive whole, once, and are those that were published."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import InvalidWeights
from tests.exporters.hub.support import Hub, Server, recipe
from zoo.labels import load as labels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_torchvision_weights_arrive(torchvision_hub: Hub, server: Server, torch_states: dict[str, Any]) -> None:
    check_torch(torchvision_hub, server, torch_states["squeezenet1_1"])
    assert server.asked == [f"GET {torchvision_hub.path}"]


def test_timm_weights_arrive(timm_hub: Hub, server: Server, torch_states: dict[str, Any]) -> None:
    check_torch(timm_hub, server, torch_states["mobilenetv1_100"])
    assert {f"HEAD {timm_hub.path}", f"GET {timm_hub.path}"} <= set(server.asked)


def check_torch(hub: Hub, server: Server, state: dict[str, Any]) -> None:
    import timm
    import torch
    import torchvision

    server.files[hub.path] = hub.data
    hub.point_to(server.url)
    source = hub.load()
    assert source.weights_sha256 == hub.expected
    network = (
        timm.create_model("mobilenetv1_100", pretrained=False)
        if "timm" in hub.name
        else torchvision.models.squeezenet1_1(weights=None)
    )
    network.load_state_dict(state)
    batch = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(batch)).numpy()
    assert np.array_equal(source.forward(batch), expected)
    # The second time nothing is asked.
    asked = len(server.asked)
    assert hub.load().weights_sha256 == hub.expected
    assert len(server.asked) == asked > 0


def test_keras_weights_arrive(keras_hub: Hub, server: Server, tmp_path: Path) -> None:
    import h5py

    server.files[keras_hub.path] = keras_hub.data
    keras_hub.point_to(server.url)
    source = keras_hub.load()
    # Keras publishes no SHA-256: the provenance is that of every parameter, name, shape, type and value.
    digest, arrays = hashlib.sha256(), {}
    path = tmp_path / "weights.h5"
    path.write_bytes(keras_hub.data)
    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            for name in file[layer].attrs["weight_names"]:
                arrays[name] = file[layer][name][()]
    assert sum(array.size for array in arrays.values()) == 4_253_864
    for name in sorted(arrays):
        digest.update(f"{name} float32 {arrays[name].shape}".encode() + arrays[name].tobytes())
    assert source.weights_sha256 == digest.hexdigest()
    assert server.asked == [f"GET {keras_hub.path}"]
    assert keras_hub.load().weights_sha256 == digest.hexdigest()
    assert len(server.asked) == 1


@pytest.mark.slow
def test_keras_weights_at_another_size(keras_hub: Hub, server: Server) -> None:
    from exporters.keras import load

    server.files[keras_hub.path] = keras_hub.data
    keras_hub.point_to(server.url)
    at_size = recipe("mobilenet_v1", "keras")
    at_size = replace(at_size, preprocess=at_size.preprocess.at_size(96, 64))
    source = load(at_size)
    assert source.preprocess.size == (96, 64)
    assert source.weights_sha256 == keras_hub.load().weights_sha256
    assert source.forward(np.zeros((1, 3, 96, 64), np.float32)).shape == (1, 1000)


def test_keras_weights_that_depend_on_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As VGG's first dense layer does."""
    from exporters.keras import _import_keras, load

    keras = _import_keras()

    def flat(*, input_shape: tuple[int, ...] = (8, 8, 3), weights: Any = None, classes: int = 1000, **_: Any) -> Any:
        inputs = keras.Input(input_shape)
        return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Flatten()(inputs)))

    flat.__module__ = "keras.src.applications.vgg16"
    monkeypatch.setattr(keras.applications, "Flat", flat, raising=False)
    want = replace(recipe("mobilenet_v1", "keras"), builder="keras:Flat")
    assert load(replace(want, preprocess=want.preprocess.at_size(8, 8))).weights_sha256
    with pytest.raises(InvalidWeights, match=r"do not fit pictures of \(12, 8\) .*leave --input-size out"):
        load(replace(want, preprocess=want.preprocess.at_size(12, 8)))


def test_imagenet_weights_and_other_labels(torchvision_hub: Hub, keras_hub: Hub, server: Server) -> None:
    from exporters.keras import load as load_keras
    from exporters.torch import load as load_torch

    server.files[torchvision_hub.path] = torchvision_hub.data
    torchvision_hub.point_to(server.url)
    few = labels("digits")
    with pytest.raises(InvalidWeights, match=r"squeezenet1_1 with 10 labels.*\[1000, 512, 1, 1\] instead of \[10, 512"):
        load_torch(replace(recipe("squeezenet1_1", "torch"), labels=few))
    with pytest.raises(InvalidWeights, match="1000 classes, the labels are 10"):
        load_keras(replace(recipe("mobilenet_v1", "keras"), labels=few))
