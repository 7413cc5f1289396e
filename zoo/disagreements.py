"""Where a published figure is not what the network really has, and why. Nothing is hidden: `zoo show` prints it.

A test holds every published figure against the counted one: what is not listed here agrees, and what is listed
disagrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.published import lookup
from zoo.spec import Variant

Figure = Literal["parameters", "depth", "macs", "size"]

_AUXILIARY = "published with the auxiliary classifiers, which serve training alone and are not exported"
_HALF = "the published file stores 16-bit numbers"
_HDF5 = "the published HDF5 file spends some kilobytes on the name and header of each of its many small tensors"
_OTHER = "no count of this network gives it: 5.3 million numbers of 4 bytes are 20 MB, as the weights file is"
_GIGABYTES = "published as 1.31 GB, in 2^30 bytes, and set down as 1310 MB"
_BIASES = "published with the small networks behind the position biases, which see no picture and are folded away"

# builder -> figure -> the reason
REASONS: dict[str, dict[Figure, str]] = {
    "torchvision:googlenet": {"size": _AUXILIARY},
    "torchvision:inception_v3": {"parameters": _AUXILIARY, "size": _AUXILIARY},
    "torchvision:wide_resnet50_2": {"size": _HALF},
    "torchvision:wide_resnet101_2": {"size": _HALF},
    "torchvision:swin_v2_t": {"macs": _BIASES},
    "torchvision:swin_v2_s": {"macs": _BIASES},
    "torchvision:swin_v2_b": {"macs": _BIASES},
    "keras:EfficientNetB0": {"size": _OTHER},
    "keras:ConvNeXtXLarge": {"size": _GIGABYTES},
    "keras:DenseNet121": {"size": _HDF5},
    "keras:DenseNet169": {"size": _HDF5},
    "keras:DenseNet201": {"size": _HDF5},
    "keras:NASNetMobile": {"size": _HDF5},
    "keras:NASNetLarge": {"size": _HDF5},
    "keras:EfficientNetV2B0": {"size": _HDF5},
    "keras:EfficientNetV2B1": {"size": _HDF5},
    "keras:EfficientNetV2B2": {"size": _HDF5},
    "keras:EfficientNetV2B3": {"size": _HDF5},
    "keras:EfficientNetV2S": {"size": _HDF5},
    "keras:EfficientNetV2M": {"size": _HDF5},
    "keras:EfficientNetV2L": {"size": _HDF5},
}

# Figures that are often quoted for a network and belong to another.
MISTAKEN: dict[str, str] = {
    "inception_v4": "often quoted with 55.9 million parameters, which are Inception-ResNet v2's",
}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A figure that differs: counted here, published there (parameters; layers; 10^9 MACs; size in 2^20 bytes)."""

    figure: Figure
    counted: float
    published: float
    reason: str | None

    def __str__(self) -> str:
        counted, published = (
            f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" for value in (self.counted, self.published)
        )
        return f"{counted} counted, {published} published: {self.reason}"


def disagreements(variant: Variant) -> list[Disagreement]:
    """The published figures of a variant that are not the counted ones; None as a reason is a fault of this table."""
    published, facts = lookup(variant), variant.facts
    if published is None or facts is None:
        return []
    megabytes = facts.total * 4 / 2**20
    parameters = published.parameters or 0
    pairs: dict[Figure, tuple[float, float | None, float]] = {
        # A number of millions with one decimal may be rounded or cut off.
        "parameters": (
            facts.total if published.counts == "total" else facts.trainable,
            published.parameters,
            0.1e6 if parameters % 1e5 < 1 else 0,
        ),
        "depth": (facts.depth, published.depth, 0),
        "macs": (facts.macs / 1e9, published.gmacs, 0.0005),
        # Whole megabytes, some rounded up; files hold names, and PyTorch's counters of training steps, too.
        "size": (megabytes, published.size_mb, max(1.5, 0.01 * megabytes)),
    }
    reasons = REASONS.get(variant.builder, {})
    return [
        Disagreement(figure, counted, stated, reasons.get(figure))
        for figure, (counted, stated, tolerance) in pairs.items()
        if stated is not None and abs(counted - stated) > tolerance * (1 + 1e-9)
    ]
