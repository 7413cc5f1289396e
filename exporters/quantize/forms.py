"""The forms of one network that are quantized: the same function, with channels that use their grids better."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from exporters.quantize.centre import centre
from exporters.quantize.equalise import equalise, worth_rescaling
from exporters.quantize.network import Network
from exporters.quantize.observe import Observed
from exporters.quantize.scheme import Style, behind, candidates, one_grid
from exporters.quantize.way import Form

CAUTIONS = (0.1, 0.5, 1.0)
"""Those of ``equalise`` that are worth trying."""


def forms(
    proto: Any, seen: dict[str, Observed], style: Style, caution: float = CAUTIONS[0], front: int = 0
) -> Iterator[Form]:
    """The network centred and equalised: as it is, and with the HardSwish rewritten where that is worth it.

    Of these those behind the ``front`` that stays in float.
    """
    for rewrite in (False, True):
        network, own = Network(copy.deepcopy(proto)), copy.deepcopy(seen)
        network.apart |= {name for node in network.nodes for name in node.output if name} - own.keys()
        centre(network, own)
        shared, rescale = one_grid(network, own, candidates(network, style), style), frozenset[str]()
        if rewrite:
            chosen = behind(network, front, style)
            among = {node.output[0] for node in network.nodes if node.op_type == "HardSwish"} & chosen
            rescale = worth_rescaling(network, own, among, caution, shared)
            if not rescale:
                return
        equalise(network, own, rescale=rescale, caution=caution, shared=shared)
        yield Form(network, own, rewrite, caution)


def has_limits(network: Network) -> bool:
    """Whether activations end at some value, as those of ReLU6 do: then ``caution`` matters."""
    return any(limits is not None and np.isfinite(limits[1]) for limits in map(network.rectifies, network.nodes))
