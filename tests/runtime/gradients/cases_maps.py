"""Cases of what moves windows over a map, or makes it larger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.runtime.gradients.case import MAP, Array, case, ints

torch = pytest.importorskip("torch")
F = torch.nn.functional


def conv(x: torch.Tensor, w: torch.Tensor, *b: torch.Tensor, pads: tuple[int, ...] = (), **rest: Any) -> torch.Tensor:
    """torch's convolution, with ONNX's pads."""
    half = len(pads) // 2
    around = [pad for axis in reversed(range(half)) for pad in (pads[axis], pads[half + axis])]
    return (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3](F.pad(x, around), w, *b, **rest)


def same(x: torch.Tensor, w: torch.Tensor, stride: int, *, upper: bool) -> torch.Tensor:
    """auto_pad SAME: as many windows as the stride fits in."""
    pads = []
    for size, extent in zip(x.shape[2:], w.shape[2:], strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        pads.append((total // 2, total - total // 2) if upper else (total - total // 2, total // 2))
    low, high = zip(*pads, strict=True)
    return conv(x, w, pads=(*low, *high), stride=stride)


CONVOLUTIONS = [
    case("Conv", (MAP, "K C 3 3", "K"), conv, wrt=(0, 2)),
    case("Conv", (MAP, "K C 1 1"), conv, note="1x1"),
    case("Conv", (MAP, "K C 3 2"), lambda x, w: conv(x, w, pads=(1, 0, 2, 1)), pads=[1, 0, 2, 1], note="pads"),
    case("Conv", (MAP, "K C 3 3"), lambda x, w: conv(x, w, pads=(3, 4, 3, 4)), pads=[3, 4, 3, 4], note="wide pads"),
    case("Conv", (MAP, "K C 3 3"), lambda x, w: conv(x, w, pads=(1,) * 4, stride=2), pads=[1] * 4, strides=[2, 2],
         note="stride"),
    case("Conv", (MAP, "K C 3 3"), lambda x, w: conv(x, w, pads=(0, 0, 1, 1), stride=(2, 3)), pads=[0, 0, 1, 1],
         strides=[2, 3], note="strides"),
    case("Conv", (MAP, "K C 1 1"), lambda x, w: conv(x, w, stride=3), strides=[3, 3], note="1x1 stride"),
    case("Conv", (MAP, "K C 2 2"), lambda x, w: conv(x, w, pads=(2,) * 4, dilation=2), pads=[2] * 4, dilations=[2, 2],
         note="dilation"),
    case("Conv", (MAP, "K C 2 3"), lambda x, w: conv(x, w, pads=(2,) * 4, dilation=(3, 2), stride=2), pads=[2] * 4,
         dilations=[3, 2], strides=[2, 2], note="dilation stride"),
    case("Conv", ("N 4 H W", "6 2 3 3"), lambda x, w: conv(x, w, groups=2), group=2, note="groups"),
    case("Conv", ("N 4 H W", "6 2 3 3"), lambda x, w: conv(x, w, groups=2, stride=2), group=2, strides=[2, 2],
         note="groups stride"),
    case("Conv", ("N 3 H W", "3 1 3 3"), lambda x, w: conv(x, w, groups=3, pads=(1,) * 4), group=3, pads=[1] * 4,
         note="depthwise"),
    case("Conv", ("N 3 H W", "6 1 3 3"), lambda x, w: conv(x, w, groups=3, pads=(1,) * 4, stride=2), group=3,
         pads=[1] * 4, strides=[2, 2], note="depthwise stride"),
    case("Conv", ("N 3 H W", "3 1 3 3"), lambda x, w: conv(x, w, groups=3, pads=(0, 0, 1, 1), stride=2), group=3,
         pads=[0, 0, 1, 1], strides=[2, 2], note="depthwise Keras"),
    case("Conv", ("N 3 H W", "3 1 5 5"), lambda x, w: conv(x, w, groups=3, pads=(2,) * 4, stride=2), group=3,
         pads=[2] * 4, strides=[2, 2], opset=9, note="depthwise stride"),
    case("Conv", (MAP, "K C 3 3"), lambda x, w: same(x, w, 2, upper=True), auto_pad="SAME_UPPER", strides=[2, 2],
         note="same upper"),
    case("Conv", (MAP, "K C 4 4"), lambda x, w: same(x, w, 1, upper=False), auto_pad="SAME_LOWER", note="same lower"),
    case("Conv", (MAP, "K C 3 3"), lambda x, w: conv(x, w, stride=2), auto_pad="VALID", strides=[2, 2], note="valid"),
    case("Conv", ("N C W", "K C 3"), lambda x, w: conv(x, w, stride=2, pads=(1, 1)), strides=[2], pads=[1, 1],
         note="1-D"),
    case("Conv", ("N C D D D", "K C 3 2 2"), lambda x, w: conv(x, w, pads=(1,) * 6), pads=[1] * 6, note="3-D"),
    case("Conv", ("N C D D D", "K C 3 2 2"), lambda x, w: conv(x, w, stride=2), strides=[2] * 3, note="3-D stride"),
    case("ConvTranspose", ("N C 4 5", "C K 3 3", "K"), F.conv_transpose2d, wrt=(0, 2)),
    case("ConvTranspose", ("N C 4 5", "C K 3 3"), lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1,
         output_padding=1), strides=[2, 2], pads=[1] * 4, output_padding=[1, 1], note="stride"),
    case("ConvTranspose", ("N 4 4 5", "4 2 3 3"), lambda x, w: F.conv_transpose2d(x, w, dilation=2, groups=2),
         dilations=[2, 2], group=2, note="groups"),
    case("ConvTranspose", ("N C 4 5", "C K 3 3"), lambda x, w: F.conv_transpose2d(x, w, stride=2)[..., :8, :10],
         strides=[2, 2], auto_pad="SAME_UPPER", note="same upper"),
    case("ConvTranspose", ("N C 5", "C K 4"), lambda x, w: F.conv_transpose1d(x, w, stride=3), strides=[3], note="1-D"),
]  # fmt: skip


def padded_max(x: torch.Tensor, pads: tuple[int, int, int, int], kernel: int, stride: int) -> torch.Tensor:
    return F.max_pool2d(F.pad(x, pads, value=-np.inf), kernel, stride)


POOLINGS = [
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 2), kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 3, 2, 1), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
         note="overlapping"),
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 3, 1, 1), kernel_shape=[3, 3], pads=[1] * 4, note="stride 1"),
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), kernel_shape=[3, 3], strides=[2, 2],
         ceil_mode=1, note="ceil"),
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 2, 3), kernel_shape=[2, 2], strides=[3, 3], note="gaps"),
    case("MaxPool", MAP, lambda x: F.max_pool2d(x, 2, 2, dilation=3), kernel_shape=[2, 2], strides=[2, 2],
         dilations=[3, 3], note="dilation"),
    case("MaxPool", "N C 7 6", lambda x: padded_max(x, (0, 1, 1, 1), 3, 2), kernel_shape=[3, 3], strides=[2, 2],
         auto_pad="SAME_UPPER", note="same upper"),
    case("MaxPool", "N C 7 6", lambda x: padded_max(x, (1, 0, 1, 1), 3, 2), kernel_shape=[3, 3], strides=[2, 2],
         auto_pad="SAME_LOWER", opset=12, note="same lower", native=True),
    case("MaxPool", "N C W", lambda x: F.max_pool1d(x, 3, 2), kernel_shape=[3], strides=[2], note="1-D"),
    case("MaxPool", "N C D D D", lambda x: F.max_pool3d(x, 2), kernel_shape=[2] * 3, strides=[2] * 3, note="3-D"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 2), kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", "N C 8 6", lambda x: F.avg_pool2d(x, 2), kernel_shape=[2, 2], strides=[2, 2], note="tiles"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 3, 1, 1), kernel_shape=[3, 3], pads=[1] * 4,
         count_include_pad=1, note="stride 1"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), kernel_shape=[3, 3],
         pads=[1] * 4, note="stride 1, inside"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), kernel_shape=[3, 3],
         strides=[2, 2], pads=[1] * 4, note="stride 2"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), kernel_shape=[3, 3], strides=[2, 2],
         pads=[1] * 4, ceil_mode=1, count_include_pad=1, note="ceil"),
    case("AveragePool", MAP, lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
         kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1, note="ceil, inside"),
    case("AveragePool", "N C W", lambda x: F.avg_pool1d(x, 3, 2), kernel_shape=[3], strides=[2], note="1-D"),
    case("LpPool", MAP, lambda x: (x.square().unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))).sqrt(), kernel_shape=[2, 2],
         strides=[2, 2]),
    case("GlobalAveragePool", MAP, lambda x: x.mean((2, 3), keepdim=True)),
    case("GlobalMaxPool", MAP, lambda x: x.amax((2, 3), keepdim=True)),
]  # fmt: skip
EMPTY = np.zeros(0, np.float32)


def scales(*values: float) -> tuple[Array, Array]:
    return EMPTY, np.array(values, np.float32)


def interpolate(mode: str, **rest: Any) -> Callable[..., torch.Tensor]:
    return lambda x, *given: F.interpolate(x, mode=mode, **rest)


RESIZES = [
    case("Resize", (MAP, *scales(1, 1, 2, 3)), interpolate("nearest", scale_factor=(2, 3)), mode="nearest",
         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    case("Resize", (MAP, *scales(1, 1, 2, 1.5)), interpolate("bilinear", scale_factor=(2, 1.5)), mode="linear",
         note="linear"),
    case("Resize", ("2 3 5 6", EMPTY, EMPTY, ints(2, 3, 9, 4)), interpolate("bilinear", size=(9, 4),
         align_corners=True), mode="linear", coordinate_transformation_mode="align_corners", note="sizes"),
    case("Resize", (MAP, *scales(1, 1, 2, 2)), interpolate("bicubic", scale_factor=2), mode="cubic",
         cubic_coeff_a=-0.75, note="cubic"),
    case("Upsample", (MAP, np.array([1, 1, 2, 2], np.float32)), interpolate("nearest", scale_factor=2), opset=9),
    case("Upsample", MAP, interpolate("nearest", scale_factor=2), scales=[1.0, 1.0, 2.0, 2.0], opset=7),
]  # fmt: skip
