"""Rules of pooling.

A pooling is taken apart by the places of its window: place (i, j) of every window is one slice of the padded input,
and a gradient for that slice is put back where it came from. onnxruntime's own way, MaxPool's second output, would
make the forward pooling 20 to 30 times slower.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from runtime.gradients.builder import BOOL, FLOATS, INT64, Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Array, Node
from runtime.gradients.windows import Windows, windows

Place = tuple[int, ...]


def max_pool(node: Node, b: Builder, g: Tensor) -> Grads:
    """To the first maximum of each window; of integers, where equals are many, to all of them in equal parts."""
    x, y = node_input(node, b), b.exact(node.proto.output[0])
    wide, rest = windows(node, x, y, tuple(node.get("kernel_shape", ()))), b.expand(g, y)
    slices, parts = unfold(b.cast(x, g.dtype), wide, b), dict[Place, Tensor]()
    *places, last = slices
    if b.graph.is_dequantized(x.name) or x.dtype not in FLOATS:
        # The result may have a grid of its own, on which no maximum is found again.
        highest = b.add("Max", *slices.values())
        masks = {place: b.is_zero(highest - part) for place, part in slices.items()}
        share = rest / b.add_up(list(masks.values()))
        return [fold({place: share * mask for place, mask in masks.items()}, wide, b)]
    for place in places:
        parts[place] = rest * b.is_zero(y - slices[place])
        rest = rest - parts[place]  # what is given away is gone for the later places
    return [fold({**parts, last: rest}, wide, b)]


def average_pool(node: Node, b: Builder, g: Tensor) -> Grads:
    """Evenly over what each window counted."""
    x, y = node_input(node, b), node_output(node, b)
    wide = windows(node, x, y, tuple(node.get("kernel_shape", ())))
    share = b.expand(g, y) * b.constant(1 / _counted(node, wide), g.dtype)
    tiling = wide.kernel == tuple(wide.strides) and not any(wide.before) and set(wide.dilations) == {1}
    if tiling and not any(wide.after) and x.rank == 4 and b.opset >= 13:
        return [b.repeat(share, wide.strides)]
    if max(wide.strides) == 1 and set(wide.dilations) == {1}:
        return [_box(share, wide, b)]
    return [fold(dict.fromkeys(itertools.product(*map(range, wide.kernel)), share), wide, b)]


def _counted(node: Node, wide: Windows) -> Array:
    """How many numbers each window averaged, as (1, 1, *counts)."""
    padded = bool(node.get("count_include_pad", 0))
    # The pads as declared count, what ceil_mode adds behind them does not.
    auto = node.get("auto_pad", "NOTSET") != "NOTSET"
    declared = wide.after if auto else list(node.get("pads", [0] * (2 * len(wide.sizes))))[len(wide.sizes) :]
    counted = np.ones((1, 1))
    for axis, size in enumerate(wide.sizes):
        low, high = (wide.before[axis], size + max(declared[axis], 0)) if padded else (0, size)
        starts = np.arange(wide.counts[axis]) * wide.strides[axis] - wide.before[axis]
        rows = starts[:, None] + np.arange(wide.kernel[axis]) * wide.dilations[axis]
        counted = counted[..., None] * ((rows >= -low) & (rows < high)).sum(axis=1)
    return counted


def _box(share: Tensor, wide: Windows, b: Builder) -> Tensor:
    """Stride 1: each pixel collects from the windows around it, which is an average pooling again."""
    before = [reach - pad for reach, pad in zip(wide.reaches, wide.before, strict=True)]
    after = [reach - pad for reach, pad in zip(wide.reaches, wide.after, strict=True)]
    shape = (*share.shape[:2], *wide.sizes)
    means = b.add(
        "AveragePool", share, shape=shape, kernel_shape=wide.kernel, pads=[*before, *after], count_include_pad=1
    )  # fmt: skip
    return means * float(math.prod(wide.kernel))


def global_max_pool(node: Node, b: Builder, g: Tensor) -> Grads:
    """To the first maximum of each map."""
    x = node_input(node, b)
    size = math.prod(extents(x, 2))
    flat = b.reshape(x, (*x.shape[:2], size))
    first = b.add("ArgMax", flat, shape=(*x.shape[:2], 1), dtype=INT64, axis=2, keepdims=1)
    chosen = b.cast(b.add("Equal", b.constant(np.arange(size)), first, dtype=BOOL), g.dtype)
    return [b.reshape(b.reshape(g, (*x.shape[:2], 1)) * chosen, x.shape, like=x)]


def global_average_pool(node: Node, b: Builder, g: Tensor) -> Grads:
    """One number per map: it is broadcast where it is used."""
    return [g * (1 / math.prod(extents(node_input(node, b), 2)))]


def lp_pool(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = (sum |x|^p)^(1/p)."""
    x, y, p = node_input(node, b), node_output(node, b), int(node.get("p", 2))
    wide = windows(node, x, y, tuple(node.get("kernel_shape", ())))
    share = g / (y if p == 2 else b.add("Pow", y, float(p - 1)))
    spread = fold(dict.fromkeys(itertools.product(*map(range, wide.kernel)), share), wide, b)
    slope = x if p == 2 else (b.above(x) - b.below(x)) * b.add("Pow", b.add("Abs", x), float(p - 1))
    return [spread * slope]


# ---- windows taken apart


def unfold(x: Tensor, wide: Windows, b: Builder) -> dict[Place, Tensor]:
    """What lies at each place of the window, for all windows: tensors of the pooled shape."""
    _, low, high = _blocks(wide)
    padded = b.pad(x, [0, 0, *low], [0, 0, *high], -math.inf)
    phases = _apart(padded, wide.strides, b)
    axes = list(range(2, x.rank))
    found = {}
    for place in itertools.product(*map(range, wide.kernel)):
        phase, starts = _where(place, wide)
        ends = [start + count for start, count in zip(starts, wide.counts, strict=True)]
        found[place] = b.slice(phases[phase], starts, ends, axes)
    return found


def fold(parts: dict[Place, Tensor], wide: Windows, b: Builder) -> Tensor:
    """The transpose of ``unfold``: what belongs to one pixel is added up."""
    blocks, low, high = _blocks(wide)
    sums: dict[Place, dict[Place, Tensor]] = {phase: {} for phase in itertools.product(*map(range, wide.strides))}
    for place, part in parts.items():
        phase, starts = _where(place, wide)
        ends = [extent - start - count for extent, start, count in zip(blocks, starts, wide.counts, strict=True)]
        sums[phase][place] = b.pad(part, [0, 0, *starts], [0, 0, *ends])
    nothing = next(iter(parts.values())) * 0.0
    for terms in sums.values():  # a stride longer than the window leaves pixels out
        terms.update({} if terms else {(): b.pad(nothing, [0] * nothing.rank, _rest(nothing, blocks))})
    phases = [b.add_up(list(terms.values())) for terms in sums.values()]
    whole = _together(phases, wide.strides, b)
    return b.pad(whole, [0, 0, *(-pad for pad in low)], [0, 0, *(-pad for pad in high)])


def _where(place: Place, wide: Windows) -> tuple[Place, list[int]]:
    """The phase of a place modulo the stride, and the first block it lies in."""
    rows = [index * dilation for index, dilation in zip(place, wide.dilations, strict=True)]
    phase = tuple(row % stride for row, stride in zip(rows, wide.strides, strict=True))
    return phase, [row // stride for row, stride in zip(rows, wide.strides, strict=True)]


def _rest(part: Tensor, blocks: list[int]) -> list[int]:
    return [0, 0, *(block - extent for block, extent in zip(blocks, extents(part, 2), strict=True))]


def _blocks(wide: Windows) -> tuple[list[int], list[int], list[int]]:
    """How many blocks of one stride the windows cover, and the pads that make the input just that."""
    blocks = [
        count + reach // stride for count, reach, stride in zip(wide.counts, wide.reaches, wide.strides, strict=True)
    ]
    high = [
        count * stride - size - low
        for count, stride, size, low in zip(blocks, wide.strides, wide.sizes, wide.before, strict=True)
    ]
    return blocks, list(wide.before), high


def _apart(x: Tensor, strides: list[int], b: Builder) -> dict[Place, Tensor]:
    """Every stride-th row, from each possible first one."""
    phases = list(itertools.product(*map(range, strides)))
    if len(phases) == 1:
        return {phases[0]: x}
    if _square(x, strides):  # ten times as fast as a Transpose
        (channels,), count = extents(x, axes=[1]), len(phases)
        space = [extent // strides[0] for extent in extents(x, 2)]
        blocks = b.add("SpaceToDepth", x, shape=(x.shape[0], channels * count, *space), blocksize=strides[0])
        return dict(zip(phases, b.split(blocks, [channels] * count, 1), strict=True))
    rank = len(strides)
    apart = [part for extent, stride in zip(extents(x, 2), strides, strict=True) for part in (extent // stride, stride)]
    order = [*range(3, 3 + 2 * rank, 2), 0, 1, *range(2, 2 + 2 * rank, 2)]
    first = b.transpose(b.reshape(x, (*x.shape[:2], *apart)), order)
    stacked = b.reshape(first, (len(phases), *first.shape[rank:]))
    parts = b.split(stacked, [1] * len(phases), 0)
    return {phase: b.reshape(part, part.shape[1:]) for phase, part in zip(phases, parts, strict=True)}


def _together(phases: list[Tensor], strides: list[int], b: Builder) -> Tensor:
    """The transpose of ``_apart``."""
    if len(phases) == 1:
        return phases[0]
    rank = len(strides)
    shape = phases[0].shape
    if _square(phases[0], strides):
        sizes = [extent * strides[0] for extent in extents(phases[0], 2)]
        return b.add("DepthToSpace", b.concat(phases, 1), shape=(*shape[:2], *sizes), blocksize=strides[0])
    stacked = b.concat([b.reshape(phase, (1, *shape)) for phase in phases], 0)
    apart = b.reshape(stacked, (*strides, *shape))
    order = [rank, rank + 1, *(axis for place in range(rank) for axis in (rank + 2 + place, place))]
    back = b.transpose(apart, order)
    sizes = [extent * stride for extent, stride in zip(extents(phases[0], 2), strides, strict=True)]
    return b.reshape(back, (*shape[:2], *sizes))


def _square(x: Tensor, strides: list[int]) -> bool:
    return x.rank == 4 and len(set(strides)) == 1
