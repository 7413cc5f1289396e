"""Rules of Conv and ConvTranspose, for one to three axes in space.

Each expression is the fastest of those measured in onnxruntime: a convolution with the kernel turned round for stride
1; ConvTranspose, which shares the weights, for larger ones; and for strided depthwise convolutions zeros put between
the gradients first, because ConvTranspose goes through groups one by one. What is done to weights is folded when the
file is opened.
"""

from __future__ import annotations

import numpy as np

from runtime.gradients.builder import Builder, Tensor, extents
from runtime.gradients.elementwise import Grads, node_input, node_output
from runtime.gradients.graph import Node
from runtime.gradients.integers import weights
from runtime.gradients.windows import Windows, windows

MOST_SPREAD = 4  # stride up to which zeros between gradients cost less than ConvTranspose does


def conv(node: Node, b: Builder, g: Tensor) -> Grads:
    """y = x * w + bias: the gradient of x is g, convolved with w turned round."""
    x, weight, y = node_input(node, b), weights(node, 1, b), node_output(node, b)
    if node.wants(1):
        raise node.unsupported("its weights are computed")
    g = b.expand(g, y)
    bias = b.reshape(b.sum(g, _others(g)), (g.shape[1],)) if node.wants(2) else None
    if not node.wants(0):
        return [None, None, bias]
    group, wide = int(node.get("group", 1)), windows(node, x, y, extents(weight, 2))
    inside = all(low <= reach for low, reach in zip(wide.before, wide.reaches, strict=True))
    depthwise = group > 1 and group == x.shape[1]
    if inside and max(wide.strides) == 1:
        back = _turned_round(g, weight, wide, group, b)
    elif inside and depthwise and max(wide.strides) <= MOST_SPREAD and g.rank == 4 and b.opset >= 13:
        back = _turned_round(_spread(g, wide, b), weight, wide, group, b)
    else:
        back = _transposed(g, weight, wide, group, b)
    return [back, None, bias]


def conv_transpose(node: Node, b: Builder, g: Tensor) -> Grads:
    """The transpose of a convolution is the gradient of one, so its gradient is that convolution."""
    x, weight, y = node_input(node, b), weights(node, 1, b), node_output(node, b)
    if node.wants(1):
        raise node.unsupported("its weights are computed")
    g = b.expand(g, y)
    wide = windows(node, y, x, extents(weight, 2), transposed=True)
    # Convolutions take no negative pads: rows that no window reads are cut off.
    cut = b.pad(g, [0, 0, *(min(pad, 0) for pad in wide.before)], [0, 0, *(min(pad, 0) for pad in wide.after)])
    back = b.add(
        "Conv", cut, weight, shape=x.shape, group=node.get("group", 1), strides=wide.strides,
        dilations=wide.dilations, pads=[max(pad, 0) for pad in (*wide.before, *wide.after)],
    )  # fmt: skip
    return [back, None, b.reshape(b.sum(g, _others(g)), (g.shape[1],)) if node.wants(2) else None]


def _others(g: Tensor) -> list[int]:
    return [axis for axis in range(g.rank) if axis != 1]


def _turned_round(g: Tensor, weight: Tensor, wide: Windows, group: int, b: Builder) -> Tensor:
    """A convolution of stride 1 with the kernel turned round, inputs and outputs swapped in each group."""
    outputs, inputs, *kernel = extents(weight)
    apart = b.reshape(weight, (group, outputs // group, inputs, *kernel))
    turned = b.transpose(apart, [0, 2, 1, *range(3, apart.rank)])
    turned = b.reshape(turned, (group * inputs, outputs // group, *kernel))
    for axis, extent in enumerate(kernel, 2):
        if extent != 1:
            turned = b.gather(turned, np.arange(extent)[::-1], axis)
    before = [reach - pad for reach, pad in zip(wide.reaches, wide.before, strict=True)]
    after = [
        size + reach - extent - low
        for size, reach, extent, low in zip(wide.sizes, wide.reaches, extents(g, 2), before, strict=True)
    ]
    g = b.pad(g, [0] * g.rank, [0, 0, *(min(pad, 0) for pad in after)])
    pads = [*before, *(max(pad, 0) for pad in after)]
    shape = (g.shape[0], group * inputs, *wide.sizes)
    return b.add("Conv", g, turned, shape=shape, group=group, dilations=wide.dilations, pads=pads)


def _spread(g: Tensor, wide: Windows, b: Builder) -> Tensor:
    """Zeros between the gradients, as many as the stride asks for: repeated, then masked."""
    sizes = [count * stride for count, stride in zip(wide.counts, wide.strides, strict=True)]
    mask = np.ones(())
    for stride, size in zip(wide.strides, sizes, strict=True):
        mask = mask[..., None] * (np.arange(size) % stride == 0)
    return b.repeat(g, wide.strides) * b.constant(mask[None, None], g.dtype)


def _transposed(g: Tensor, weight: Tensor, wide: Windows, group: int, b: Builder) -> Tensor:
    """The transposed convolution, with the forward one's own weights."""
    unread = [max(-pad, 0) for pad in wide.after]  # rows that no window reached
    steps = map(max, wide.strides, wide.dilations)
    inside = all(rows < step for rows, step in zip(unread, steps, strict=True))  # what onnxruntime takes
    made = [size if inside else size - rows for size, rows in zip(wide.sizes, unread, strict=True)]
    back = b.add(
        "ConvTranspose", g, weight, shape=(g.shape[0], extents(weight)[1] * group, *made), group=group,
        strides=wide.strides, dilations=wide.dilations, pads=[*wide.before, *(max(pad, 0) for pad in wide.after)],
        output_padding=unread if inside else [0] * len(unread),
    )  # fmt: skip
    return back if inside else b.pad(back, [0] * back.rank, [0, 0, *unread])
