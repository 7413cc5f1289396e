"""The classifier's answer at every window of a larger picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Labels, Window
from runtime.tasks.binary import two_sided
from runtime.tasks.classification import softmax

if TYPE_CHECKING:
    import numpy.typing as npt

Box: TypeAlias = tuple[int, int, int, int]
"""(top, left, height, width), in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """What a network sees, and where.

    scores: (classes, rows, columns) float32, (1, rows, columns) for the one score of two labels.
    labels: of the classes. window: what one place looks at.
    size: (height, width) in pixels of the picture that was run, after any resizing: boxes are in these pixels.
    logits: whether the scores are logits; probabilities otherwise. trained: False for random weights.
    """

    scores: npt.NDArray[np.float32]
    labels: Labels
    window: Window
    size: tuple[int, int]
    logits: bool = True
    trained: bool = True

    def probabilities(self) -> npt.NDArray[np.float32]:
        """(labels, rows, columns), adding up to 1 at every place."""
        if len(self.scores) == 1 and len(self.labels.names) == 2:
            return two_sided(self.scores, logits=self.logits, axis=0)
        return np.moveaxis(softmax(np.moveaxis(self.scores, 0, -1)), -1, 0) if self.logits else self.scores

    def box_at(self, row: int, column: int) -> Box:
        """The window that one place of the map looks at. Raises InvalidInput for a place outside it."""
        _, rows, columns = self.scores.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise InvalidInput(f"no place ({row}, {column}) in a map of {rows} x {columns}")
        return (row * self.window.stride[0], column * self.window.stride[1], *self.window.size)

    def best(self, label: str | None = None) -> tuple[str, float, Box]:
        """The most probable class and where: (label, probability, box); of one ``label``, its most probable place.

        Raises UnknownName for a label that is not of this map.
        """
        probabilities = self.probabilities()
        if label is not None and label not in self.labels.names:
            raise UnknownName(f"no label {label!r} among the {len(self.labels.names)} of this model")
        classes = range(len(probabilities)) if label is None else [self.labels.names.index(label)]
        chosen = probabilities[classes]
        index, row, column = (int(i) for i in np.unravel_index(chosen.argmax(), chosen.shape))
        return self.labels.names[classes[index]], float(chosen[index, row, column]), self.box_at(row, column)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the most probable class of every place, row by row, and the best of all."""
        probabilities = self.probabilities()
        best, (label, probability, box) = probabilities.argmax(axis=0), self.best()
        return {
            "size": list(self.size),
            "window": {"size": list(self.window.size), "stride": list(self.window.stride)},
            "best": {"label": label, "probability": probability, "box": list(box)},
            "labels": [[self.labels.names[index] for index in row] for row in best.tolist()],
            "probabilities": probabilities.max(axis=0).tolist(),
            "trained": self.trained,
        }


def whole_windows(
    batch: npt.NDArray[np.float32], window: Window, *, name: str = "the picture"
) -> npt.NDArray[np.float32]:
    """Pictures (N, C, H, W) without the rows and columns beyond the last whole window.

    What is left gives (H - size) // stride + 1 places along each side. ``name`` is what an error calls the picture.
    Raises InvalidInput for pictures smaller than a window.
    """
    height, width = batch.shape[2:]
    if height < window.size[0] or width < window.size[1]:
        raise InvalidInput(
            f"{name}: {height} x {width} pixels (height x width), smaller than the model's window of "
            f"{window.size[0]} x {window.size[1]}: give a larger one, or say how long its shorter side is to be"
        )
    beyond = [(had - size) % step for had, size, step in zip((height, width), window.size, window.stride, strict=True)]
    return np.ascontiguousarray(batch[:, :, : height - beyond[0], : width - beyond[1]])
