"""Centring: where nothing but sums follow a convolution, its channels may be shifted to lie around zero.

A tensor gets one scale and one zero point. A channel that reaches from -2 to 14 beside one from -14 to 2 makes it
span 28; shifted by constants they span 16, and no value is lost. The shift goes into the bias of the convolution
that makes the tensor, follows it through residual sums, and comes out of the bias of the convolutions that read it:
those without padding, for a border of zeros would not be shifted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.quantize.network import Array, Network, attribute
from exporters.quantize.observe import Observed


def centre(network: Network, seen: dict[str, Observed]) -> None:
    """Shift what can be shifted, the network's biases and ``seen`` with it; its outputs stay as they are."""
    tensors = _shiftable(network, seen)
    if not tensors:
        return
    shifts = _shifts(network, tensors, seen)
    for name, node in tensors.items():
        shift = shifts[name]
        if node.op_type == "Conv":
            network.weights[node.input[2]] = (network.weights[node.input[2]] + shift).astype(np.float32)
        for reader in network.readers(name):
            if reader.op_type == "Conv":
                sums = network.matrix(reader).sum(axis=3)  # (groups, outputs, inputs)
                moved = np.einsum("goi,gi->go", sums, shift.reshape(len(sums), -1)).ravel()
                network.weights[reader.input[2]] = (network.weights[reader.input[2]] - moved).astype(np.float32)
        item = seen[name]
        item.power = item.power + 2 * shift * item.mean + shift**2
        item.lowest, item.highest, item.mean = item.lowest + shift, item.highest + shift, item.mean + shift


def _shiftable(network: Network, seen: dict[str, Observed]) -> dict[str, Any]:
    """Tensors made by convolutions and sums of such, read by unpadded convolutions and sums of such alone."""
    found = {
        node.output[0]: node
        for node in network.nodes
        if node.op_type in ("Conv", "Add")
        and (network.weighted(node) if node.op_type == "Conv" else _plain_sum(node, seen))
        and node.output[0] not in network.outputs
    }
    while True:
        spoilt = [name for name, node in found.items() if not _stays(network, name, node, found)]
        if not spoilt:
            return found
        for name in spoilt:
            del found[name]


def _plain_sum(node: Any, seen: dict[str, Observed]) -> bool:
    shapes = {seen[name].shape if name in seen else None for name in (*node.input, *node.output)}
    return len(shapes) == 1 and None not in shapes


def _stays(network: Network, name: str, node: Any, found: dict[str, Any]) -> bool:
    if node.op_type == "Add" and not all(term in found for term in node.input):
        return False
    readers = network.readers(name)
    return bool(readers) and all(
        reader.output[0] in found if reader.op_type == "Add" else _unpadded(network, reader) for reader in readers
    )


def _unpadded(network: Network, node: Any) -> bool:
    plain = not any(attribute(node, "pads", [])) and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return node.op_type == "Conv" and network.weighted(node) and plain


def _shifts(network: Network, tensors: dict[str, Any], seen: dict[str, Observed]) -> dict[str, Array]:
    """Per tensor, the shift of each channel: as near to the middle of each as sums of the free ones allow.

    Free are the shifts of what convolutions make. In least squares, a tensor weighing the less the wider it is.
    """
    shifts: dict[str, Array] = {}
    for channels in {seen[name].shape[1] for name in tensors}:
        group = {name: node for name, node in tensors.items() if seen[name].shape[1] == channels}
        free = {
            name: index for index, name in enumerate(name for name, node in group.items() if node.op_type == "Conv")
        }
        parts: dict[str, Array] = {}  # which of the free shifts a tensor's is the sum of
        for name, node in group.items():  # in the order of the graph: the terms come first
            one = np.zeros(len(free))
            if node.op_type == "Conv":
                one[free[name]] = 1
            parts[name] = one if node.op_type == "Conv" else parts[node.input[0]] + parts[node.input[1]]
        middles = np.array([(seen[name].lowest + seen[name].highest) / 2 for name in group], dtype=np.float64)
        widths = np.array([max(float(np.max(seen[name].highest - seen[name].lowest)), 1e-6) for name in group])
        system = np.array([parts[name] for name in group])
        solved = np.linalg.lstsq(system / widths[:, None], -middles / widths[:, None], rcond=None)[0]
        shifts |= dict(zip(group, system @ solved, strict=True))
    return shifts
