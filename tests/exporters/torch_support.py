"""What the tests of PyTorch networks share: tiny networks, recipes for them, and their own answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.source import Recipe, Source, Weights
from exporters.torch import load
from runtime.metadata import Labels, Preprocess

torch = pytest.importorskip("torch")
nn = torch.nn

RULE = Preprocess(size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)
BATCH = np.random.default_rng(1).standard_normal((3, 3, 16, 16)).astype(np.float32)


class Tiny(nn.Module):
    """Two convolutions, a pooling and a linear layer; ``end`` is what its scores go through at last."""

    def __init__(self, num_classes: int = 4, end: nn.Module | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, 2), nn.Sigmoid())
        self.head = nn.Linear(5, num_classes)
        self.end = end or nn.Identity()

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Before the end."""
        return self.head(self.features(batch).mean((2, 3)))

    def forward(self, batch: torch.Tensor) -> Any:
        return self.end(self.logits(batch))


def seeded(model: nn.Module, seed: int = 5) -> nn.Module:
    """The network in evaluation mode, with weights large enough that softmax is not flat."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model.eval()


def answer(model: Any, batch: np.ndarray[Any, Any] = BATCH) -> np.ndarray[Any, Any]:
    """What a function or network of torch's gives."""
    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(batch)).numpy())


def recipe(builder: str, path: Path | None = None, **changes: Any) -> Recipe:
    """Of a network that nobody knows anything about but how it sees pictures."""
    weights = Weights(kind="file", path=path) if path else Weights(kind="none")
    values = {"name": "mine", "builder": builder, "preprocess": RULE, "labels": None, "weights": weights}
    return Recipe(**{**values, **changes})


def named(count: int) -> Labels:
    """That many labels."""
    return Labels(tuple(f"label {index}" for index in range(count)))


_made: list[Callable[[], Any]] = []


def build() -> Any:
    """What the function last given to ``loaded`` makes."""
    return _made[-1]()


def loaded(make: Callable[[], Any], **changes: Any) -> Source:
    """The source of a network of the user's own, built by ``make``."""
    _made.append(make)
    return load(recipe(f"{__name__}:build", **changes))


NETWORK = Tiny()
