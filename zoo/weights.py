"""Which weights a name stands for: the framework's hub, a bundled file, a user's file, or none.

Nothing is loaded here. What the hubs do, and how to stay off the network, is in ``exporters.hub``.
"""

from __future__ import annotations

from pathlib import Path

from exporters.source import Weights
from runtime.errors import WeightsUnavailable
from zoo.spec import Framework, ModelSpec, Variant

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
TORCH_SUFFIXES = (".pth", ".pt", ".pt2", ".th", ".bin", ".ckpt")
_BUNDLED = Path(__file__).parent / "bundled"


def framework_of(weights: str | None) -> Framework | None:
    """The framework a weights file belongs to by its suffix; None when it does not tell."""
    suffix = Path(weights or "").suffix.lower()
    if suffix in KERAS_SUFFIXES:
        return "keras"
    return "torch" if suffix in TORCH_SUFFIXES else None


def resolve(spec: ModelSpec, variant: Variant, weights: str | None, *, seed: int = 0) -> Weights:
    """What ``--weights`` means for this variant; None is "bundled" where there are such, else "imagenet".

    Raises WeightsUnavailable, naming what to give instead.
    """
    choice = weights or ("bundled" if variant.bundled else "imagenet")
    if choice == "none":
        return Weights(kind="none", seed=seed, hub=variant.hub)
    if choice == "bundled":
        if variant.bundled is None:
            raise WeightsUnavailable(f"{spec.name} has no bundled weights: use imagenet, none or a FILE")
        return Weights(kind="bundled", path=_BUNDLED / variant.bundled)
    if choice == "imagenet":
        if variant.hub is None:
            raise WeightsUnavailable(f"{spec.name} has no ImageNet weights: use bundled, none or a FILE")
        return Weights(kind="imagenet", hub=variant.hub)
    path = Path(choice)
    if path.is_dir():
        raise WeightsUnavailable(f"{choice}: is a folder: give the weights file itself")
    if not path.is_file():
        raise WeightsUnavailable(f"{choice}: no such weights file (or give imagenet, bundled or none)")
    return Weights(kind="file", path=path, hub=variant.hub)
