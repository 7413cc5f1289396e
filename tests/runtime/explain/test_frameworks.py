"""Explanations of real networks against the framework that they were exported from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from runtime.image import preprocess

LAYER = "features.18.2"


@pytest.fixture(scope="module")
def mobilenet(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """MobileNetV2 with real weights, as a file and in torch."""
    import torch
    import torchvision

    from zoo.cli import main

    weights = shared_data / "weights" / "mobilenet_v2_torchvision.pth"
    file = tmp_path_factory.mktemp("mobilenet") / "mobilenet_v2.onnx"
    assert main(["export", "mobilenet_v2", "--weights", str(weights), "-o", str(file)]) == 0
    network = torchvision.models.mobilenet_v2()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return file, network.eval()


def photos(shared_data: Path, count: int) -> list[Path]:
    return sorted((shared_data / "photos").glob("*.jpg"))[:count]


@pytest.mark.slow
def test_grad_cam_and_saliency_are_torch_s(mobilenet: tuple[Path, Any], shared_data: Path) -> None:
    """In float32 both sides round; a ReLU6 near its ends flips, which moves single pixels' gradients (1e-2 at most)."""
    import torch

    file, network = mobilenet
    with runtime.load(file) as model:
        assert any(layer.name == LAYER and layer.default for layer in model.layers())
        for photo in photos(shared_data, 3):
            pixels = torch.from_numpy(preprocess(photo, model.rule)).requires_grad_()
            activation = network.features(pixels)
            activation.retain_grad()
            scores = network.classifier(activation.mean((2, 3)))[0]
            index = int(scores.argmax())
            scores[index].backward()
            weights = activation.grad[0].mean((1, 2), keepdim=True)
            wanted = torch.relu((weights * activation[0]).sum(0)).detach().numpy()
            found = model.explain(photo)
            assert found.index == index
            assert np.abs(found.map - wanted).max() <= 1e-4 * wanted.max()
            slope = model.subject.derive(
                pixels.detach().numpy(), model.subject.classes.seed([index]), [model.input_name]
            ).gradients[model.input_name]
            same = np.sign(slope) == np.sign(pixels.grad.numpy())
            assert same.mean() >= 0.995


@pytest.mark.slow
def test_integrated_gradients_are_complete_on_a_real_network(mobilenet: tuple[Path, Any], shared_data: Path) -> None:
    (photo,) = photos(shared_data, 1)
    with runtime.load(mobilenet[0]) as model:
        found = model.explain(photo, "integrated-gradients")
        pixels = preprocess(photo, model.rule)
        black = preprocess(np.zeros((300, 300, 3), np.uint8), model.rule)
        scores = model.run(np.concatenate([pixels, black]))[:, found.index].astype(np.float64)
    assert found.map.sum(dtype=np.float64) == pytest.approx(scores[0] - scores[1], rel=0.01)
