"""What a network's tensors hold on the calibration pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporters.quantize.network import Array, Network
from exporters.quantize.pictures import Pictures
from exporters.source import FloatArray
from runtime.engines import open_session

BATCH = 4
"""Pictures at a time: every tensor of the network is held at once."""

BEYOND = 1.8
"""Times what calibration saw: how far histograms go."""

_BINS = 4096


@dataclass(slots=True)
class Observed:
    """One tensor, over all calibration pictures.

    shape: of one picture's tensor, the 1 of the batch in front.
    lowest, highest, mean, power: per channel (axis 1); power is the mean of the square.
    histogram: counts of other pictures' values, see ``values``; None before ``count``.
    chosen: what ``grids`` made of it: which grid rounds it best, by what it was asked for.
    """

    shape: tuple[int, ...]
    lowest: Array
    highest: Array
    mean: Array
    power: Array
    histogram: Array | None = None
    chosen: dict[tuple[str, float], int] = field(default_factory=dict)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and highest value of the whole tensor."""
        return float(self.lowest.min()), float(self.highest.max())

    @property
    def span(self) -> tuple[float, float]:
        """The (lowest, highest) value of the histogram: BEYOND times the range, 0 within it."""
        low, high = self.range
        return BEYOND * min(low, 0.0), BEYOND * max(high, 0.0)

    @property
    def reach(self) -> Array:
        """The largest magnitude of each channel."""
        return np.maximum(np.abs(self.lowest), np.abs(self.highest))

    def values(self) -> Array:
        """The middle of each bin of the histogram; what lies beyond the outermost is counted in them."""
        low, high = self.span
        return low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS


Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def run(proto: Any, outputs: list[str], pictures: Pictures, *, batch: int = BATCH) -> Iterator[dict[str, FloatArray]]:
    """The tensors ``outputs`` of a model that gives them, batch after batch."""
    session = open_session(proto.SerializeToString())
    name = session.get_inputs()[0].name
    for pixels in pictures.batches(batch):
        # Asked for nothing onnxruntime gives everything.
        yield dict(zip(outputs, session.run(outputs, {name: pixels}), strict=True)) if outputs else {}


def observe(network: Network, pictures: Pictures, progress: Progress) -> dict[str, Observed]:
    """Ranges and powers of the input and of every map that a node makes of it; other tensors go ``apart``."""
    names = [name for node in network.nodes for name in node.output if name and name not in network.apart]
    seen: dict[str, Observed] = {}
    for done, values in enumerate(_passes(network, names, pictures)):
        progress("ranges", min((done + 1) * BATCH, len(pictures)), len(pictures))
        size = len(values[network.input])
        share = size / len(pictures)
        network.apart |= {name for name, value in values.items() if value.ndim < 2 or len(value) != size}
        for name, value in values.items():
            if name in network.apart:
                seen.pop(name, None)
                continue
            axes = tuple(axis for axis in range(value.ndim) if axis != 1)
            low, high = value.min(axes), value.max(axes)
            mean = value.mean(axes, dtype=np.float64) * share
            power = np.square(value, dtype=np.float32).mean(axes, dtype=np.float64) * share
            if name not in seen:
                seen[name] = Observed((1, *value.shape[1:]), low, high, mean, power)
                continue
            old = seen[name]
            old.lowest, old.highest = np.minimum(old.lowest, low), np.maximum(old.highest, high)
            old.mean, old.power = old.mean + mean, old.power + power
    return seen


def count(
    network: Network, seen: dict[str, Observed], names: list[str], pictures: Pictures, progress: Progress
) -> None:
    """Histograms of these tensors. pictures: others than the ranges were taken from, if there are enough."""
    for item in seen.values():
        item.histogram = None
        item.chosen.clear()
    for done, values in enumerate(_passes(network, names, pictures)):
        progress("histograms", min((done + 1) * BATCH, len(pictures)), len(pictures))
        for name in names:
            item = seen[name]
            low, high = item.span
            scaled = (values[name].ravel() - low) * ((_BINS - 1e-3) / max(high - low, 1e-12))
            bins = np.bincount(np.clip(scaled, 0, _BINS - 1).astype(np.int32), minlength=_BINS)
            item.histogram = bins if item.histogram is None else item.histogram + bins


def _passes(network: Network, names: list[str], pictures: Pictures) -> Iterator[dict[str, FloatArray]]:
    inner = [name for name in names if name != network.input]
    found = run(network.proto(extra_outputs=inner), inner, pictures)
    for pixels, values in zip(pictures.batches(BATCH), found, strict=True):
        yield values | {network.input: pixels}
