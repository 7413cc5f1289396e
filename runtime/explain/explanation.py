"""What an explanation is: a map over the picture, and what it is a map of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.errors import OutputNotWritable

if TYPE_CHECKING:
    from PIL import Image

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why a network answers as it does, place by place.

    map: (rows, columns) float32, as the method gives it: the activation's size for CAMs, the input's for others.
    method: a key of EXPLAINERS. layer: the tensor it was taken from, None where the input itself is explained.
    index, label: the class that is explained. score: its probability, 0 to 1.
    picture: (height, width, 3) uint8, what the network saw: resized and cropped.
    signed: whether values below 0 speak against the class; where False there are none.
    notes: what a reader of the map should know, a sentence each.
    """

    map: FloatMap
    method: str
    layer: str | None
    index: int
    label: str
    score: float
    picture: npt.NDArray[np.uint8]
    signed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Class and probability."""
        return f"{self.label} {self.score:.1%}"

    def full_size(self) -> FloatMap:
        """The map at the picture's size, by bilinear interpolation: (height, width)."""
        return resized(self.map, self.picture.shape[:2])

    def overlay(self, *, alpha: float = 0.55, titled: bool = True) -> Image.Image:
        """The map as colours over the picture. alpha: how much of the colours shows where the map is highest."""
        from runtime.explain.overlay import overlay

        return overlay(self, alpha=alpha, titled=titled)

    def save(self, path: str | os.PathLike[str]) -> None:
        """The overlay as a picture, or the map itself where the name ends in .npy. Raises OutputNotWritable."""
        try:
            if Path(path).suffix == ".npy":
                np.save(path, self.map)
            else:
                self.overlay().save(path)
        except (OSError, ValueError) as error:  # ValueError: Pillow knows no such ending
            raise OutputNotWritable(f"{os.fspath(path)}: cannot be written ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: without the picture."""
        kept = ("method", "layer", "index", "label", "score", "signed", "notes")
        return {name: getattr(self, name) for name in kept} | {"map": self.map.tolist()}


def resized(values: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Bilinear interpolation of (rows, columns) to (height, width), pixel centres on pixel centres."""
    from PIL import Image

    height, width = size[:2]
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
