"""Cross-layer equalisation: every channel of a tensor is scaled to use the whole of the tensor's one grid.

Scaling a channel up where it is made and its weights down where it is read changes nothing in float (Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", 2019), and is a scale per channel inside
kernels that have one per tensor. It passes through what is homogeneous per channel: ReLU, pooling, sums,
concatenation, the gating of squeeze-and-excitation. Beyond the paper:

- ReLU6 is not homogeneous. A channel that never reaches the limit may still grow until it does, and no further: then
  the limit stays where the graph has it, and clips what the calibration pictures do not reach. On others a channel
  reaches farther, most of all one that few pictures reach at all: how far to go is the search's to find out. Of
  EfficientNet-Lite0 the logits' error is 0.146 where every channel grows as far as it can and 0.054 where none does;
  of mobilenet_v2 0.075 and 0.099 (66 photos, 2026-11-22).
- HardSwish is not either. Where ``rescale`` says so it is rewritten (``hard_swish``), which takes some time.
- How far to go is chosen per group of tensors, by the noise that rounding of activations and of weights leaves
  behind the layers that read it: all the way for depthwise readers, about half for dense ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporters.quantize import hard_swish
from exporters.quantize.network import Array, Network, attribute
from exporters.quantize.observe import Observed

_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SMALLEST = 1e-3  # a channel below this share of the tensor's range counts as that: it is noise
_WORTH_RESCALING = 0.02  # of the noise that rounding adds behind HardSwish: what rewriting one must take away
_HARD_SWISH_KNEE = 3.0  # beyond it HardSwish is 0 or x: the range its input must resolve in any case
_PASSES = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout")


@dataclass(slots=True)
class _Classes:
    """Channels of tensors that can only be scaled together: ``of[tensor]`` has the class of each of its channels."""

    of: dict[str, Array]
    frozen: Array  # (classes,) that cannot be scaled
    reach: Array  # (classes,) the largest share of its tensor's range that the channel takes up
    most: Array  # (classes,) the largest scale that a limit of the graph allows
    least: Array  # (classes,) the smallest


def equalise(
    network: Network,
    seen: dict[str, Observed],
    *,
    rescale: Collection[str] = (),
    caution: float = 0.0,
    shared: Mapping[str, str] | None = None,
) -> None:
    """Scale the network's weights, and ``seen`` with them; its outputs stay as they are but for clipped outliers.

    rescale: the HardSwish that are to let scales through, by their outputs.
    caution: 0 to 1, see ``_growth``; at 1 the outputs stay as they are.
    shared: which tensors will have one grid, {each: one of them}, see ``one_grid``.
    """
    classes = _classes(network, seen, rescale, caution, shared or {})
    scales = np.ones(len(classes.reach))
    for tensors in _groups(classes):
        if any(network.weighted(reader) for name in tensors for reader in network.readers(name)):
            _scale(network, seen, classes, tensors, scales)
    for node in network.nodes:
        if network.weighted(node):
            matrix = network.matrix(node)
            below = scales[classes.of[node.input[0]]].reshape(len(matrix), 1, -1, 1)
            above = scales[classes.of[node.output[0]]]
            network.set_matrix(node, matrix / below * above.reshape(*matrix.shape[:2], 1, 1))
            network.weights[node.input[2]] = (network.weights[node.input[2]] * above).astype(np.float32)
    for name, item in seen.items():
        by = scales[classes.of[name]]
        item.lowest, item.highest, item.mean = item.lowest * by, item.highest * by, item.mean * by
        item.power = item.power * by**2
    for node in [node for node in network.nodes if node.op_type == "HardSwish"]:
        by = scales[classes.of[node.input[0]]]
        if (by != 1).any():
            hard_swish.rescaled(network, node, by, seen)


def worth_rescaling(
    network: Network, seen: dict[str, Observed], among: Collection[str], caution: float, shared: Mapping[str, str]
) -> frozenset[str]:
    """Which HardSwish of those ``among`` to rewrite, by their outputs: those whose rewriting takes away much noise.

    6 of 18 in mobilenet_v3_small take away 0.89 of all that could be, 2 of 90 in PicoDet 0.80: error of the logits
    0.179 -> 0.127 and 0.45 -> 0.21 for 0.03 and 0.01 of the time; all of them 0.145 and 0.11 for 0.06 and 0.3.
    """
    classes = _classes(network, seen, among, caution, shared)
    scales, gains = np.ones(len(classes.reach)), dict[frozenset[str], tuple[float, float]]()
    for tensors in _groups(classes):
        if met := frozenset(among).intersection(tensors):
            before = _added_noise(network, seen, classes, tensors, scales)
            _scale(network, seen, classes, tensors, scales)
            gains[met] = before, before - _added_noise(network, seen, classes, tensors, scales)
    least = _WORTH_RESCALING * sum(before for before, _ in gains.values())
    return frozenset[str]().union(*(met for met, (_, gain) in gains.items() if gain > least))


# ---- which channels belong together


def _classes(
    network: Network,
    seen: dict[str, Observed],
    rescale: Collection[str],
    caution: float,
    shared: Mapping[str, str],
) -> _Classes:
    starts = np.cumsum([0, *(_channels(item) for item in seen.values())])
    ids = {
        name: np.arange(start, start + _channels(item))
        for (name, item), start in zip(seen.items(), starts, strict=False)
    }
    parents = np.arange(starts[-1])
    frozen: list[str] = [network.input, *network.outputs]
    limits: dict[str, float] = {}
    for node in network.nodes:
        joined = _joined(network, node, seen, rescale)
        if joined is None:
            frozen += [name for name in (*network.computed(node), *node.output) if name in ids]
            continue
        pairs, held = joined
        frozen += held
        if node.op_type == "Clip":
            limits[node.output[0]] = (network.rectifies(node) or (0, np.inf))[1]
        for name, target, start in pairs:
            _join(parents, ids[name], ids[target][start : start + len(ids[name])])
    roots = np.array([_root(parents, index) for index in range(len(parents))])
    of = {name: roots[index] for name, index in ids.items()}
    count = len(parents)
    classes = _Classes(of, np.zeros(count, bool), np.zeros(count), np.full(count, np.inf), np.zeros(count))
    for name in frozen:
        classes.frozen[of[name]] = True
    reached, widest = _reached(network, seen), defaultdict[str, float](float)
    for name, reach in reached.items():
        grid = shared.get(name, name)
        widest[grid] = max(widest[grid], float(reach.max()))
    for name, reach in reached.items():
        if len(reach) == len(of[name]):
            np.maximum.at(classes.reach, of[name], reach / max(widest[shared.get(name, name)], 1e-12))
        if name in limits:
            np.minimum.at(classes.most, of[name], _growth(reach / limits[name], caution))
            classes.least[of[name]] = 1
    return classes


def _reached(network: Network, seen: dict[str, Observed]) -> dict[str, Array]:
    """How far the channels of each tensor go that may be rounded."""
    found = {}
    for name, item in seen.items():
        readers = network.readers(name)
        if len(readers) == 1 and network.rectifies(readers[0]):
            continue  # never quantized: what the activation leaves of it is
        knee = _HARD_SWISH_KNEE if any(reader.op_type == "HardSwish" for reader in readers) else 0.0
        found[name] = np.maximum(item.reach, knee)
    return found


def _growth(reached: Array, caution: float) -> Array:
    """By how much channels may grow that reached these shares of a limit.

    Other pictures are taken to reach 1 / (1 - caution) times as far, and the share ``caution`` in any case.
    """
    farthest = np.maximum(reached / max(1 - caution, 1e-12), caution)
    return 1 / np.maximum(farthest, 1e-12)


def _joined(
    network: Network, node: Any, seen: dict[str, Observed], rescale: Collection[str]
) -> tuple[list[tuple[str, str, int]], list[str]] | None:
    """(tensor, tensor of at least its channels, first of them) that scale together through a node, and what is held.

    None where a node does not let scales through.
    """
    kind, output, terms = node.op_type, node.output[0], network.computed(node)
    if network.weighted(node):
        return [], []
    if network.apart.intersection((*terms, output)):
        return None
    limits = network.rectifies(node)
    straight = (
        kind in _PASSES
        or (limits is not None and limits[0] == 0)
        or (kind == "HardSwish" and output in rescale)
        or (kind in ("Reshape", "Flatten", "Slice") and seen[terms[0]].shape[:2] == seen[output].shape[:2])
    )
    if straight and len(terms) == 1:
        return [(terms[0], output, 0)], []
    start = _first_channel(network, node, seen[terms[0]].shape[1]) if kind == "Slice" and len(terms) == 1 else None
    if start is not None:
        return [(output, terms[0], start)], []
    if len(terms) != len([name for name in node.input if name]):
        return None
    shapes = [seen[name].shape for name in terms]
    if kind == "Add" and len(terms) == 2 and shapes[0] == shapes[1]:
        return [(name, output, 0) for name in terms], []
    if kind == "Mul" and len(terms) == 2 and shapes[0] != shapes[1] and seen[output].shape in shapes:
        through = terms[shapes.index(seen[output].shape)]
        return [(through, output, 0)], [name for name in terms if name != through]
    if kind == "Concat" and attribute(node, "axis", None) in (1, 1 - len(seen[output].shape)):
        starts = np.cumsum([0, *(shape[1] for shape in shapes)])
        return [(name, output, int(start)) for name, start in zip(terms, starts, strict=False)], []
    return None


def _first_channel(network: Network, node: Any, channels: int) -> int | None:
    """Of those that a Slice takes one after the other; None where it does something else."""
    first, _, axes, steps = (network.constant(node, index) for index in (1, 2, 3, 4))
    along = first is not None and axes is not None and axes.tolist() == [1]
    if first is None or not along or (steps is not None and steps.tolist() != [1]):
        return None
    return min(int(first[0]) % channels if first[0] < 0 else int(first[0]), channels)


def _channels(item: Observed) -> int:
    return len(item.lowest) if item.lowest.ndim else 1


def _root(parents: Array, index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = int(parents[index])
    return index


def _join(parents: Array, one: Array, other: Array) -> None:
    for first, second in zip(one, other, strict=True):
        low, high = sorted((_root(parents, int(first)), _root(parents, int(second))))
        parents[high] = low


def _groups(classes: _Classes) -> Iterable[list[str]]:
    """Tensors that share a channel that can be scaled, together with those that share one with them."""
    owners: dict[int, str] = {}
    leader: dict[str, str] = {}

    def first(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for name, of in classes.of.items():
        free = [int(one) for one in np.unique(of) if not classes.frozen[one]]
        if not free:
            continue
        leader[name] = name
        for one in free:
            leader[first(name)] = first(owners.setdefault(one, name))
    groups: dict[str, list[str]] = defaultdict(list)
    for name in leader:
        groups[first(name)].append(name)
    return groups.values()


# ---- how far to scale


def _scale(network: Network, seen: dict[str, Observed], classes: _Classes, tensors: list[str], scales: Array) -> None:
    ours = np.unique(np.concatenate([classes.of[name] for name in tensors]))
    ours = ours[~classes.frozen[ours]]
    reach = np.maximum(classes.reach[ours], _SMALLEST)
    best, lowest = scales[ours], np.inf
    for power in _POWERS:
        scales[ours] = np.maximum(np.minimum(reach**-power, classes.most[ours]), classes.least[ours])
        noise = _added_noise(network, seen, classes, tensors, scales)
        if noise < lowest:
            best, lowest = scales[ours].copy(), noise
    scales[ours] = best


def _added_noise(
    network: Network, seen: dict[str, Observed], classes: _Classes, tensors: Iterable[str], scales: Array
) -> float:
    """What rounding of these tensors, and of the weights of what reads them, adds to the power of what that gives."""
    return sum(
        _noise(network, seen, reader, scales[classes.of[name]]) for name in tensors for reader in network.readers(name)
    )


def _noise(network: Network, seen: dict[str, Observed], node: Any, scales: Array) -> float:
    """What rounding a node's input and its weights to 8 bits adds to its output, over the power of that."""
    if not network.weighted(node):
        return 0.0
    item, matrix = seen[node.input[0]], network.matrix(node)
    groups, _, inputs, positions = matrix.shape
    if groups * inputs != len(scales):
        return 0.0
    reach = float((item.reach * scales).max())
    step = reach / (255 if item.range[0] >= 0 else 127)
    scaled = matrix / scales.reshape(groups, 1, inputs, 1)
    by_input = step**2 / 12 * float(np.square(scaled).sum())
    steps = np.abs(scaled).max(axis=(2, 3)) / 127  # (groups, outputs)
    power = (item.power * scales**2).reshape(groups, inputs).sum(axis=1) * positions
    by_weights = float((np.square(steps).sum(axis=1) / 12 * power).sum())
    return (by_input + by_weights) / max(float(np.sum(seen[node.output[0]].power)), 1e-12)
