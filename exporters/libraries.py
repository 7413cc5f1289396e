"""What the libraries say of their networks: preprocessing, classes, labels, weights, licence. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from runtime.errors import UnknownName
from runtime.metadata import Labels, Preprocess

LIBRARIES: dict[str, str] = {
    "torchvision": "exporters.torch_library:describe_torchvision",
    "timm": "exporters.torch_library:describe_timm",
    "keras": "exporters.keras_library:describe_keras",
}
"""The part of a builder before its colon, and the function that describes the network named behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryModel:
    """A network of a library with the weights it publishes by default.

    preprocess: how those weights were trained to see pictures, at their own input size.
    labels: names and WordNet ids where the library ships them; None for ``label_set``, or for nameless classes.
    label_set: "imagenet" for the 1000 classes of ImageNet in their usual order.
    hub: the library's name for the weights; None where none are published in a form that can be fetched.
    license: of the weights; None where the library states none.
    paper: as the library states it.
    fixed_size: whether the network takes its own input size alone.
    """

    framework: Literal["torch", "keras"]
    preprocess: Preprocess
    classes: int
    labels: Labels | None
    label_set: Literal["imagenet"] | None
    hub: str | None
    license: str | None
    paper: str | None
    fixed_size: bool


def describe(builder: str, *, hub: str | None = None) -> LibraryModel:
    """What the library says of "torchvision:NAME", "timm:NAME", "timm:NAME.TAG" or "keras:NAME".

    hub: other weights of torchvision than its default ones ("IMAGENET1K_V1").
    Raises UnknownName for a name the library does not have, with the nearest it has, and for weights it does not
    have; InvalidInput for a network that is no classifier of pictures or whose preprocessing has no exact form here;
    MissingDependency where the library is not installed.
    """
    library, _, name = builder.partition(":")
    if library not in LIBRARIES or not name:
        raise UnknownName(f"builder {builder!r}: give LIBRARY:NAME with one of {', '.join(LIBRARIES)}")
    module, _, function = LIBRARIES[library].partition(":")
    found: LibraryModel = getattr(import_module(module), function)(name, hub)
    return found
