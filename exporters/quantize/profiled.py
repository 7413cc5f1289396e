"""The time of every layer in onnxruntime's profile, whatever it fused or added."""

from __future__ import annotations

import re
from collections import defaultdict

from exporters.quantize.network import Network
from exporters.source import FloatArray
from runtime.profile import node_times

_JOINS = frozenset("Relu Clip HardSwish HardSigmoid Sigmoid LeakyRelu PRelu Elu Gelu Mul Dropout Identity".split())
_ADDED = re.compile(r"(_nchwc)?(_token_\d+)?$")  # what onnxruntime appends to the names of nodes that it makes


def layers_of(network: Network) -> dict[str, str]:
    """The layer that each node belongs to, by their first outputs, in the order of the graph.

    A node that does something to one layer's result alone, as an activation does, belongs to that layer.
    """
    layers: dict[str, str] = {}
    for node in network.nodes:
        given = {layers.get(name, name) for name in network.computed(node)}
        joins = node.op_type in _JOINS and len(given) == 1 and given <= set(layers.values())
        layers[node.output[0]] = given.pop() if joins else node.output[0]
    return layers


def layer_times(network: Network, model: bytes | str, picture: FloatArray, *, device: str = "cpu") -> dict[str, float]:
    """Milliseconds of each layer of a model that was made of the network.

    What onnxruntime put between layers, conversions for example, counts to the layer that it is done for.
    """
    layers = layers_of(network)
    owner = layers | {node.name: layers[node.output[0]] for node in network.nodes if node.name}
    taken: dict[str, float] = defaultdict(float)
    pending = 0.0
    for time in node_times(model, picture, device=device):
        layer = owner.get(_ADDED.sub("", time.name).partition("::")[0])
        pending += time.milliseconds
        if layer is not None:
            taken[layer] += pending
            pending = 0.0
    return taken
