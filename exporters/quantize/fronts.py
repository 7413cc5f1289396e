"""What stays in float for the sake of time alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from exporters.quantize.journal import Journal
from exporters.quantize.kernels import written
from exporters.quantize.network import Array, Network
from exporters.quantize.observe import Observed
from exporters.quantize.scheme import Style, behind, gated, make_scheme

_FRONTS = (0, 1, 2, 3, 4, 5, 6, 8)  # layers with weights that may stay in float before the first integer one
_LONG_FRONTS = (0.2, 0.35, 0.5)  # likewise, of all the layers
_AGAIN = 3  # of them, the fastest, are timed once more: one of many is always the fastest by luck
_WORTH = 0.97  # of the time, to leave that many in float, or to round more than is needed

Ratios = Callable[[Sequence[Callable[[], bytes]]], list[float]]
"""The time of each model over the float network's."""


def fastest_front(
    network: Network, seen: dict[str, Observed], style: Style, ratios: Ratios, journal: Journal
) -> tuple[int, Style]:
    """How many layers in front stay in float, a good part of them only where that is worth it, and the style.

    That has x * sigmoid(x) on integers only where this is faster by as much.
    """
    layers = sum(network.weighted(node) for node in network.nodes)
    long = [front for share in _LONG_FRONTS if (front := int(share * layers)) > _FRONTS[-1]]
    tried = [front for front in (*_FRONTS, *long) if front == 0 or front <= layers - 2]

    def model(front: int, style: Style) -> bytes:
        scheme = make_scheme(network, seen, behind(network, front, style), "whole", style)
        made: bytes = written(network, scheme).SerializeToString()
        return made

    def measured(name: str, some: list[tuple[int, Style]]) -> Array:
        models = [partial(model, *one) for one in some]
        return journal.remember(name, lambda: {"ratios": np.array(ratios(models))})["ratios"]

    for name in ("ratios", "ratios again"):
        by_front = measured(f"{name} of fronts {tried}", [(front, style) for front in tried])
        order = np.argsort(by_front / np.where(np.isin(tried, long), _WORTH, 1), kind="stable")
        tried = [tried[place] for place in order[:_AGAIN]]
    front = tried[0]
    other = replace(style, silu=True)
    if style.on_cpu and gated(network) & behind(network, front, other):
        in_float, on_integers = measured(f"ratios of silu behind {front}", [(front, style), (front, other)])
        style = other if on_integers < _WORTH * in_float else style
    return front, style
