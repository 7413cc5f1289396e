"""Where the windows of a convolution or a pooling lie: strides, dilations and pads of any form made explicit."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.gradients.builder import Tensor, extents
from runtime.gradients.graph import Node


@dataclass(frozen=True, slots=True)
class Windows:
    """One entry per axis in space.

    sizes: extents that the windows move over. counts: windows. reaches: extent of a window less one, dilated.
    before, after: rows of padding, negative where rows are cut off; ``after`` is what the last window needs.
    """

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    @property
    def reaches(self) -> list[int]:
        return [(extent - 1) * dilation for extent, dilation in zip(self.kernel, self.dilations, strict=True)]


def windows(node: Node, x: Tensor, y: Tensor, kernel: tuple[int, ...], *, transposed: bool = False) -> Windows:
    """The windows over x that give y; the pads are worked out from auto_pad (and, transposed, from output_shape)."""
    sizes, counts = extents(x, 2), extents(y, 2)
    rank = len(sizes)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    explicit = list(node.get("pads", [0] * (2 * rank)))
    auto = node.get("auto_pad", "NOTSET")
    before = []
    for axis in range(rank):
        # All the padding that these windows use, or leave unused where it is negative.
        span = (counts[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = span - sizes[axis]
        if transposed:
            extra = list(node.get("output_padding", [0] * rank))[axis]
            if auto in ("SAME_UPPER", "SAME_LOWER") or "output_shape" in node.attributes:
                total += extra
                low = total // 2 if auto == "SAME_UPPER" else total - total // 2
            else:
                low = 0 if auto == "VALID" else explicit[axis]
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            low = max(total, 0) // 2 if auto == "SAME_UPPER" else (max(total, 0) + 1) // 2
        else:
            low = 0 if auto == "VALID" else explicit[axis]
        before.append(low)
    after = [
        (counts[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - sizes[axis] - before[axis]
        for axis in range(rank)
    ]
    return Windows(sizes, counts, kernel, strides, dilations, before, after)
