"""What a row of the catalogue is. Plain values only: listing the zoo imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporters.source import Samples, Scores
from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Preprocess

Framework = Literal["torch", "keras"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a network is, counted: each figure is held against the built network by a test or by the verification job.

    total: numbers in its weights, the running means and variances of normalisation layers included.
    trainable: those that training changes by gradients, which is what torchvision and most papers call parameters.
        Heads that only help training (GoogLeNet's and Inception v3's auxiliary classifiers) are in neither.
    depth: layers with weights of their own, as Keras Applications counts today: convolutions, dense and
        normalisation layers each, and a Keras SeparableConv2D once where PyTorch builds two layers.
    macs: multiply-accumulates of convolutions and matrix products for one picture more, at the row's input size.
    """

    total: int
    trainable: int
    depth: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One framework's implementation of a network.

    builder: "torchvision:NAME", "timm:NAME", "keras:NAME", "package.module:function", "path/file.py:function",
        or "file:NAME" where the weights file is a whole network.
    preprocess: how its weights were trained to see pictures; verified against the framework's own. None where
        the network says it itself.
    facts: None for what is no row of the catalogue.
    license: of the published weights, None where nothing is known.
    hub: the framework's name for the published weights; None where there are none.
    bundled: file under zoo/bundled with weights of this project's own.
    """

    builder: str
    preprocess: Preprocess | None
    facts: Facts | None = None
    license: str | None = None
    hub: str | None = None
    bundled: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One network and every source it exists in; the first source is the default.

    aliases: other names than spellings of its own: `zoo.models.find` takes ResNet-50 for resnet50 without them.
    task: what the scores are; None where the network tells.
    labels: a label set under zoo/labelsets; None where the network names its classes itself, or nobody does.
    samples: the pictures an export is verified with.
    """

    name: str
    sources: Mapping[Framework, Variant]
    paper: str | None
    aliases: tuple[str, ...] = ()
    task: Scores | None = "classification"
    labels: str | None = "imagenet"
    samples: Samples = "photos"

    def __post_init__(self) -> None:
        if not self.sources:
            raise InvalidInput(f"{self.name}: a row needs at least one source")
        if self.name in self.aliases:
            raise InvalidInput(f"{self.name}: a name is no alias of itself")

    def variant(self, framework: str | None = None) -> tuple[Framework, Variant]:
        """The source to build from; None is the default one. Raises UnknownName."""
        if framework is None:
            return next(iter(self.sources.items()))
        for name, variant in self.sources.items():
            if name == framework:
                return name, variant
        raise UnknownName(f"{self.name} has no {framework} source: it has {', '.join(self.sources)}")
