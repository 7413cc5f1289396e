"""What a row of the catalogue is. Plain values only: listing the zoo imports no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Preprocess

Framework = Literal["torch", "keras"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One framework's implementation of a network.

    builder: "torchvision:NAME", "timm:NAME", "keras:NAME" or "package.module:function".
    preprocess: how its weights were trained to see pictures; verified against the framework's own.
    parameters: number of weights of the network as built, counted by a test.
    license: of the published weights.
    hub: the framework's name for the published weights; None where there are none.
    bundled: file under zoo/bundled with weights of this project's own.
    published: the network's name in the framework's table under zoo/published, if it is there.
    """

    builder: str
    preprocess: Preprocess
    parameters: int
    license: str
    hub: str | None = None
    bundled: str | None = None
    published: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One network of the catalogue and every source it exists in; the first source is the default.

    labels: a label set under zoo/labels. samples: the pictures an export is verified with.
    """

    name: str
    sources: Mapping[Framework, Variant]
    paper: str
    aliases: tuple[str, ...] = ()
    task: Literal["classification"] = "classification"
    labels: str = "imagenet"
    samples: Literal["photos", "digits"] = "photos"

    def __post_init__(self) -> None:
        if not self.sources:
            raise InvalidInput(f"{self.name}: a row needs at least one source")
        if self.name != self.name.lower() or self.name in self.aliases:
            raise InvalidInput(f"{self.name}: names are lower case and no alias of themselves")

    def variant(self, framework: str | None = None) -> tuple[Framework, Variant]:
        """The source to build from; None is the default one. Raises UnknownName."""
        if framework is None:
            return next(iter(self.sources.items()))
        for name, variant in self.sources.items():
            if name == framework:
                return name, variant
        raise UnknownName(f"{self.name} has no {framework} source: it has {', '.join(self.sources)}")
