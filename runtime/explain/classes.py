"""The classes that an explanation is asked for: by index or label, with their probabilities."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.errors import UnknownName
from runtime.metadata import Task
from runtime.tasks.binary import sigmoid, two_sided
from runtime.tasks.classification import softmax

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classes:
    """names: None where the file carries none. outputs: scores per picture; one stands for two classes of a binary."""

    task: Task
    names: tuple[str, ...] | None
    outputs: int

    def __len__(self) -> int:
        return 2 if self.task == "binary" else self.outputs

    def label(self, index: int) -> str:
        """The class's name, or its number where there are no names."""
        return self.names[index] if self.names is not None else f"class {index}"

    def index(self, target: int | str) -> int:
        """The class of that index or label. Raises UnknownName."""
        if isinstance(target, str) and self.names is not None and target in self.names:
            return self.names.index(target)
        if isinstance(target, str) and target.removeprefix("-").isdecimal():
            target = int(target)
        if isinstance(target, int):
            if 0 <= target < len(self):
                return target
            raise UnknownName(f"no class {target}: they are 0 to {len(self) - 1}")
        raise UnknownName(f"no class {target!r}{self._near(target)}")

    def _near(self, target: str) -> str:
        names = self.names or ()
        near = [name for name in names if target.lower() in name.lower()][:3] or difflib.get_close_matches(
            target, names, n=3
        )
        return f": did you mean {' or '.join(map(repr, near))}?" if near else ": give a label of the file, or an index"

    def probabilities(self, scores: Floats) -> Floats:
        """(n, scores), before softmax or sigmoid, to (n, classes)."""
        if self.task == "binary":
            return two_sided(scores, logits=True)
        return sigmoid(scores) if self.task == "multilabel" else softmax(scores)

    def seed(self, indices: list[int]) -> Floats:
        """What picks each picture's class out of the scores: (n, scores)."""
        weights = np.zeros((len(indices), self.outputs), np.float32)
        for row, index in enumerate(indices):
            if self.task == "binary":
                weights[row, 0] = 1 if index == 1 else -1
            else:
                weights[row, index] = 1
        return weights
