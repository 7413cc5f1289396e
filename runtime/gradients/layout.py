"""Rules of operators that move numbers without changing them.

What picks rows of an axis (Slice, Pad, Gather, Tile) is one list of indices per axis, -1 for a row of padding; its
transpose is the same for all of them.
"""

from __future__ import annotations

import numpy as np

from runtime.gradients.builder import INT64, Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Array, Node


def reshape(node: Node, b: Builder, g: Tensor) -> Grads:
    """Reshape, Flatten, Squeeze, Unsqueeze: the input's shape again."""
    x = node_input(node, b)
    return [b.reshape(b.expand(g, node_output(node, b)), x.shape, like=x)]


def transpose(node: Node, b: Builder, g: Tensor) -> Grads:
    order = node.get("perm", list(range(g.rank))[::-1])
    return [b.transpose(g, np.argsort(order).tolist())]


def expand(node: Node, b: Builder, g: Tensor) -> Grads:
    return [b.expand(g, node_output(node, b))]


def concat(node: Node, b: Builder, g: Tensor) -> Grads:
    y = node_output(node, b)
    axis = int(node.get("axis", 1)) % y.rank
    tensors = [node_input(node, b, index) for index in range(len(node.proto.input))]
    sizes = [extents(tensor, axes=[axis])[0] for tensor in tensors]
    if g.shape[axis] == 1 and sum(sizes) != 1:
        return [g] * len(sizes)  # the same for all
    if sum(map(node.wants, range(len(sizes)))) == 1:
        ends = np.cumsum(sizes)
        return [
            b.slice(g, [int(end - size)], [int(end)], [axis]) if node.wants(index) else None
            for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
        ]
    return b.split(g, sizes, axis)


def split(node: Node, b: Builder, *grads: Tensor | None) -> Grads:
    """Parts that nothing reads have a gradient of zeros."""
    x = node_input(node, b)
    axis = int(node.get("axis", 0)) % x.rank
    whole = []
    for index, name in enumerate(node.proto.output):
        part, grad = b.tensor(name), grads[index] if index < len(grads) else None
        zeros = b.constant(0, next(g.dtype for g in grads if g))
        whole.append(b.expand(zeros if grad is None else grad, part))
    return [b.concat(whole, axis)]


def slice_(node: Node, b: Builder, g: Tensor) -> Grads:
    x = node_input(node, b)
    starts, ends = node.setting("starts", 1), node.setting("ends", 2)
    axes = node.setting("axes", 3, list(range(len(starts))))
    steps = node.setting("steps", 4, [1] * len(starts))
    rows = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        extent = x.shape[axis % x.rank]
        if not isinstance(extent, int) and start == 0 and step == 1 and end >= 2**31 - 1:
            continue  # all of it, however much that is
        known = extents(x, axes=[axis % x.rank])[0]
        rows[axis % x.rank] = np.arange(known)[slice(start, end if step > 0 or end >= -known else None, step)]
    return [put_back(b.expand(g, node_output(node, b)), rows, x, b)]


def pad(node: Node, b: Builder, g: Tensor) -> Grads:
    x, mode = node_input(node, b), node.get("mode", "constant")
    pads = node.setting("pads", 1) or node.get("paddings", [])
    axes = node.setting("axes", 3, list(range(len(pads) // 2)))
    rows = {}
    for place, axis in enumerate(axes):
        low, high = pads[place], pads[place + len(axes)]
        if low or high:
            rows[axis % x.rank] = _padded(extents(x, axes=[axis % x.rank])[0], low, high, mode)
    return [put_back(b.expand(g, node_output(node, b)), rows, x, b)]


def _padded(extent: int, low: int, high: int, mode: str) -> Array:
    """The row of the input behind every row of the output."""
    rows = np.arange(extent)[max(-low, 0) : extent - max(-high, 0)]
    around = (max(low, 0), max(high, 0))
    if mode == "constant":
        return np.pad(rows, around, constant_values=-1)
    found: Array = np.pad(rows, around, mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])  # type: ignore[call-overload]
    return found


def crop(node: Node, b: Builder, g: Tensor) -> Grads:
    """The operator onnxruntime keeps for files of 2018: border = left, top, right, bottom; scale = height, width."""
    x = node_input(node, b)
    left, top, right, bottom = node.get("border", [0, 0, 0, 0])
    height, width = extents(x, 2)
    tall, wide = node.get("scale", [height - top - bottom, width - left - right])
    rows = {2: np.arange(top, top + tall), 3: np.arange(left, left + wide)}
    return [put_back(b.expand(g, node_output(node, b)), rows, x, b)]


def gather(node: Node, b: Builder, g: Tensor) -> Grads:
    x, indices = node_input(node, b), node.constant(1)
    axis = int(node.get("axis", 0)) % x.rank
    g = b.expand(g, node_output(node, b))
    if indices is None:
        return [_scattered(node, g, x, axis, b)]
    rows = np.where(indices < 0, indices + extents(x, axes=[axis])[0], indices).reshape(-1)
    flat = b.reshape(g, (*g.shape[:axis], len(rows), *g.shape[axis + indices.ndim :]))
    return [put_back(flat, {axis: rows}, x, b)]


def _scattered(node: Node, g: Tensor, x: Tensor, axis: int, b: Builder) -> Tensor:
    """By indices that are known at run time alone."""
    places = node_input(node, b, 1)
    rows, ones = (*x.shape[:axis], None, *x.shape[axis + 1 :]), (1,) * (x.rank - axis - 1)
    flat = b.add("Reshape", g, b.constant([*(0,) * axis, -1, *extents(x, axis + 1)]), shape=rows)
    column = b.add("Reshape", places, b.constant([-1, *ones]), shape=(None, *ones))
    shape = b.add("Shape", flat, shape=(x.rank,), dtype=INT64)
    return _add_at(node, flat, b.add("Expand", column, shape, shape=rows), x, axis, b)


def _add_at(node: Node, g: Tensor, places: Tensor, x: Tensor, axis: int, b: Builder) -> Tensor:
    if b.opset < 16:
        raise node.unsupported("its indices are computed while the model runs, which needs opset 16")
    zeros = b.expand(b.constant(0, g.dtype), x)
    return b.add("ScatterElements", zeros, places, g, shape=x.shape, axis=axis, reduction="add")


def gather_elements(node: Node, b: Builder, g: Tensor) -> Grads:
    x, axis = node_input(node, b), int(node.get("axis", 0))
    return [_add_at(node, b.expand(g, node_output(node, b)), node_input(node, b, 1), x, axis, b)]


def scatter_nd(node: Node, b: Builder, g: Tensor) -> Grads:
    """What is written over has no gradient; what is written takes it."""
    if node.get("reduction", "none") != "none":
        raise node.unsupported("it adds or multiplies")
    places, updates = node_input(node, b, 1), node_input(node, b, 2)
    g = b.expand(g, node_output(node, b))
    nothing = b.expand(b.constant(0, g.dtype), updates)
    left = b.add("ScatterND", g, places, nothing, shape=g.shape) if node.wants(0) else None
    return [left, None, b.add("GatherND", g, places, shape=updates.shape) if node.wants(2) else None]


def tile(node: Node, b: Builder, g: Tensor) -> Grads:
    x, repeats = node_input(node, b), node.setting("repeats", 1)
    g = b.expand(g, node_output(node, b))
    for axis, count in reversed(list(enumerate(repeats))):
        if count != 1:
            apart = b.reshape(g, (*g.shape[:axis], count, x.shape[axis], *g.shape[axis + 1 :]))
            g = b.reduce("ReduceSum", apart, [axis], keep=False)
    return [g]


def put_back(g: Tensor, rows: dict[int, Array], x: Tensor, b: Builder) -> Tensor:
    """Add every row of the gradient to the row of x that it came from, axis by axis."""
    for axis, taken in rows.items():
        g = _put_back(g, taken, extents(x, axes=[axis])[0], axis, b)
    return g


def _put_back(g: Tensor, rows: Array, extent: int, axis: int, b: Builder) -> Tensor:
    if np.array_equal(rows, np.arange(extent)):
        return g
    inner = rows[rows >= 0]
    if len(inner) and np.array_equal(inner, np.arange(inner[0], inner[0] + len(inner))):  # a stretch in one piece
        first = int(np.flatnonzero(rows >= 0)[0])
        g = b.slice(g, [first], [first + len(inner)], [axis])
        low, high = [0] * g.rank, [0] * g.rank
        low[axis], high[axis] = int(inner[0]), extent - int(inner[-1]) - 1
        return b.pad(g, low, high)
    # For each row of x, the first of its places in g, then the second and so on; none is a row of zeros at the end.
    places = [np.flatnonzero(rows == row) for row in range(extent)]
    after = [0] * g.rank
    after[axis] = 1
    levels = range(max(map(len, places), default=0))
    padded = b.pad(g, [0] * g.rank, after) if any(len(place) < len(levels) for place in places) else g
    terms = [
        b.gather(padded, np.array([place[level] if level < len(place) else len(rows) for place in places]), axis)
        for level in levels
    ]
    return b.add_up(terms) if terms else b.gather(padded, np.full(extent, len(rows)), axis)


def depth_to_space(node: Node, b: Builder, g: Tensor) -> Grads:
    x, size = node_input(node, b), int(node.get("blocksize", 1))
    g = b.expand(g, node_output(node, b))
    if node.get("mode", "DCR") == "DCR":
        return [b.add("SpaceToDepth", g, shape=x.shape, blocksize=size)]
    apart = (x.shape[0], extents(g, axes=[1])[0], *(part for extent in extents(x, 2) for part in (extent, size)))
    return [b.reshape(b.transpose(b.reshape(g, apart), [0, 1, 3, 5, 2, 4]), x.shape)]


def space_to_depth(node: Node, b: Builder, g: Tensor) -> Grads:
    x = node_input(node, b)
    g = b.expand(g, node_output(node, b))
    return [b.add("DepthToSpace", g, shape=x.shape, blocksize=int(node.get("blocksize", 1)))]
