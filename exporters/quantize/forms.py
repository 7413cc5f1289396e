"""The forms of one network that are quantized: the same function, with channels that use their grids better."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from exporters.quantize.centre import centre
from exporters.quantize.equalise import equalise
from exporters.quantize.network import Network
from exporters.quantize.observe import Observed
from exporters.quantize.scheme import Style, candidates, one_grid
from exporters.quantize.way import Form

CAUTIONS = (0.1, 0.5, 1.0)
"""Those of ``equalise`` that are worth trying."""

_SMALL_MAP = 20 * 20  # places; where one more multiplication of HardSwish takes next to no time


def forms(proto: Any, seen: dict[str, Observed], style: Style, caution: float = CAUTIONS[0]) -> Iterator[Form]:
    """The network centred and equalised: as it is, and with HardSwish on small maps rescaled."""
    for rescaled in (False, True):
        network, own = Network(copy.deepcopy(proto)), copy.deepcopy(seen)
        network.apart |= {name for node in network.nodes for name in node.output if name} - own.keys()
        if rescaled and not ({node.op_type for node in network.nodes} & {"HardSwish"} & style.operators):
            return
        centre(network, own)
        shared = one_grid(network, own, candidates(network, style), style)
        equalise(network, own, rescale=lambda shape: rescaled and _small(shape), caution=caution, shared=shared)  # noqa: B023 - now
        yield Form(network, own, rescaled, caution)


def has_limits(network: Network) -> bool:
    """Whether activations end at some value, as those of ReLU6 do: then ``caution`` matters."""
    return any(limits is not None and np.isfinite(limits[1]) for limits in map(network.rectifies, network.nodes))


def _small(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] <= _SMALL_MAP
