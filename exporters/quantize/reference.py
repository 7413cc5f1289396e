"""What the float32 network gives, and how far another one's answers are from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.quantize.network import Array
from exporters.quantize.observe import run
from exporters.quantize.pictures import Pictures
from runtime.tasks.alike import Alike

_LEAST = {"Softmax": 1e-30, "Sigmoid": 1e-7}  # probabilities that float32 tells apart; of Sigmoid's also from 1
_SAME = 1e-12  # of an output's power: what does not change by more is the same for every picture


class Reference:
    """The answers to some pictures, batch after batch.

    outputs: the names of what counts: the first one of a network whose answers can be compared, else all.
    """

    def __init__(self, proto: Any, pictures: Pictures, alike: Alike | None) -> None:
        """proto: float32. alike: what counts for files of its task, None where nobody knows."""
        names = [item.name for item in proto.graph.output]
        self.outputs = names[:1] if alike else names
        self._pictures, self._alike = pictures, alike
        self._ending = ending(proto.graph.node, names[0]) if alike else ""
        self._told = [self._tell(values) for values in run(proto, self.outputs, pictures)]

    def distance(self, proto: Any) -> float:
        """How far a network is from this one: the root of ``square``."""
        return float(np.sqrt(self.square(run(proto, self.outputs, self._pictures))))

    def square(self, passes: Iterable[Mapping[str, Array]]) -> float:
        """Of what a network gives for the same batches: norm of the difference over the norm, squared; their mean."""
        apart = Apart(len(self.outputs), centred=self._alike is None)
        for wanted, values in zip(self._told, passes, strict=True):
            apart.add(wanted, self._tell(values))
        return float(np.mean(apart.squares()))

    def _tell(self, values: Mapping[str, Array]) -> list[Array]:
        if self._alike is None:
            return [values[name] for name in self.outputs]
        return [telling(values[name], self._ending, rivals=self._alike.exclusive) for name in self.outputs]


@dataclass(slots=True)
class _Sums:
    count: int = 0
    wrong: float = 0.0
    power: float = 0.0
    total: Array | float = 0.0


class Apart:
    """How far tensors are from others, over batches of pictures that come one after the other.

    centred: against what tells pictures apart, not against what all have in common: most boxes of a detector hold
        nothing on any picture, and hide what is wrong with those that do.
    """

    def __init__(self, count: int, *, centred: bool) -> None:
        self._centred = centred
        self._sums = [_Sums() for _ in range(count)]

    def add(self, wanted: Sequence[Array], got: Sequence[Array]) -> None:
        """The tensors (pictures, ...) of one batch."""
        for sums, one, other in zip(self._sums, wanted, got, strict=True):
            exact = one.astype(np.float64)
            sums.count += len(exact)
            sums.wrong += float(np.square(other - exact).sum())
            sums.power += float(np.square(exact).sum())
            if self._centred:
                sums.total = sums.total + exact.sum(axis=0)

    def squares(self) -> list[float]:
        """For each tensor the square of the difference over that of what is wanted; infinite where it is no number."""
        return [self._square(sums) for sums in self._sums]

    def _square(self, sums: _Sums) -> float:
        power = sums.power
        if self._centred:
            changing = power - float(np.square(sums.total).sum()) / max(sums.count, 1)
            power = changing if changing > _SAME * power else power
        square = sums.wrong / max(power, 1e-24)
        return square if np.isfinite(square) else np.inf


def ending(nodes: Iterable[Any], output: str) -> str:
    """The operator that makes probabilities of the logits behind these nodes; "" where their output is logits."""
    makers = {name: node for node in nodes for name in node.output}
    while (made := makers.get(output)) is not None and made.op_type in ("Identity", "Reshape", "Flatten", "Squeeze"):
        output = made.input[0]
    return made.op_type if made is not None and made.op_type in _LEAST else ""


def telling(scores: npt.NDArray[Any], ending: str = "", *, rivals: bool = True) -> Array:
    """What of (pictures, classes) tells classes apart: all but what a picture's logits have in common.

    squeezenet1_1's are 6.6 on average and 3.2 apart: against the whole of them an error looks less than half as large.
    ending: ``ending`` of the network; probabilities are what logits made of them, and hide what is wrong with these.
    rivals: whether classes exclude each other: where each stands for itself, all of its score tells.
    """
    exact = scores.astype(np.float64)
    if ending:
        exact = np.clip(exact, _LEAST[ending], 1 - _LEAST[ending])
        exact = np.log(exact) - (np.log1p(-exact) if ending == "Sigmoid" else 0.0)
    return exact - exact.mean(axis=1, keepdims=True) if rivals and exact.shape[1] > 1 else exact
