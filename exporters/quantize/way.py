"""One way to quantize a network, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporters.quantize.grids import Ranges
from exporters.quantize.network import Array, Network
from exporters.quantize.observe import Observed

NEGLIGIBLE = 0.02
"""Error of the logits below which hardly an answer changes, and time alone counts."""

STORED = "weights alone as integers"
"""Name of the way of ``exporters.quantize.stored``."""


@dataclass(frozen=True, slots=True)
class Form:
    """A float network as it is quantized, and what its tensors hold.

    rescaled: whether HardSwish was. caution: with which it was equalised.
    """

    network: Network
    seen: dict[str, Observed]
    rescaled: bool = False
    caution: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way that was tried.

    name: in a few words. proto: what came of it, as in the file. error: of the logits, norm over norm, see ``split``.
    form: what was quantized; chosen: its nodes that run on integers, by their outputs.
    front: layers with weights that stay in float before the first integer one; spared: others that do, the result
    being sensitive to them, by their outputs. mended: ``corrections``.
    times: (float32, this) in milliseconds of one picture, the shortest of many; None where the target is not at hand.
    """

    name: str
    proto: Any
    float_nodes: int
    chosen: frozenset[str] = frozenset()
    error: float = 0.0
    form: Form | None = None
    ranges: Ranges = "whole"
    front: int = 0
    spared: frozenset[str] = frozenset()
    mended: dict[str, Array] | None = None
    times: tuple[float, float] | None = None

    @property
    def kernels(self) -> object:
        """The same for ways that run the same kernels."""
        return self.form is not None and self.form.rescaled, self.front, self.spared, bool(self.chosen)

    @property
    def ratio(self) -> float | None:
        """Its time over the float network's."""
        return self.times and self.times[1] / self.times[0]

    @property
    def cost(self) -> tuple[float, float, float]:
        """What the search makes small: error for the square of the time saved; without times, few layers in float.

        Squared, for speed is what integers are for: where little can be saved, half of it is not given for a third
        of the error. What is slower than the float network comes after all that is faster: it is of no use. Of
        ways that cost the same the one that errs least comes first: it is given away.
        """
        error = max(self.error, NEGLIGIBLE)
        if self.ratio is None:
            return len(self.spared), error, self.error
        paid = error / (1 - self.ratio) ** 2 if self.ratio < 1 else error * self.ratio
        return int(self.ratio >= 1), paid, self.error
