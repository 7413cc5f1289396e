from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporters.source import GAIN, Weights
from exporters.torch import load
from exporters.torch_untrained import enliven
from tests.exporters.torch_support import RULE, recipe

torch = pytest.importorskip("torch")
nn = torch.nn


def deep(layers: int = 12) -> Any:
    """Convolution and normalisation a dozen times over, with the default initialisation: an answer that fades."""
    blocks: list[Any] = []
    for index in range(layers):
        blocks += [nn.Conv2d(3 if index == 0 else 16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


def pictures(seed: int = 0) -> Any:
    """Of different brightness and contrast, as photos are."""
    generator = torch.Generator().manual_seed(seed)
    contrast = torch.linspace(0.1, 2, 8).reshape(8, 1, 1, 1)
    return contrast * torch.randn((8, 3, 16, 16), generator=generator) + torch.linspace(-1, 1, 8).reshape(8, 1, 1, 1)


def spread(answers: Any) -> float:
    """How much the answers to different pictures differ, relative to the largest."""
    return float((answers - answers[:1]).abs().max() / answers.abs().max())


def test_pictures_matter_and_rounding_does_not() -> None:
    torch.manual_seed(0)
    model, given = deep(), pictures()
    with torch.inference_mode():
        before = spread(model(given))
        enliven(model, given, seed=0)
        after = model(given)
        nudged = model(given * (1 + 1e-5 * torch.randn(given.shape)))
    assert before < 0.02
    assert spread(after) > 0.05
    assert spread(model(pictures(1)).detach()) > 0.05  # others than those it was scaled with
    assert float((nudged - after).abs().max() / after.abs().max()) < 1e-3


def test_normalisations_get_the_power_of_their_input() -> None:
    torch.manual_seed(0)
    model, given = deep(1), pictures()
    with torch.inference_mode():
        power = model[0](given).square().mean((0, 2, 3))
    enliven(model, given, seed=0)
    expected = power.clamp_min(0.1 * power.mean()) / GAIN**2
    torch.testing.assert_close(model[1].running_var, expected)
    means = model[1].running_mean / expected.sqrt()
    assert bool((means >= 0).all())
    assert bool((means < 0.3).all())


def test_nothing_is_left_at_one_value() -> None:
    model = deep()
    enliven(model, pictures(), seed=0)
    state = {name: value for name, value in model.state_dict().items() if value.numel() > 1}
    assert [name for name, value in state.items() if bool((value == value.flatten()[0]).all())] == []
    assert not model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_one_network(seed: int) -> None:
    import zoo.labels

    labels = zoo.labels.load("imagenet")
    first, second = (
        load(
            recipe(
                "torchvision:squeezenet1_1",
                preprocess=RULE.at_size(32, 32),
                labels=labels,
                weights=Weights(kind="none", seed=value),
            )
        )
        for value in (0, seed)
    )
    batch = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(first.forward(batch), second.forward(batch)) == (seed == 0)
