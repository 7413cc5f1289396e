"""What integers stand for, and where they stand at an end of their type's range."""

from __future__ import annotations

import numpy as np

from runtime.gradients.builder import BOOL, FLOAT, Builder, Tensor
from runtime.gradients.graph import Node


def along(scale: Tensor, rank: int, axis: int, b: Builder) -> Tensor:
    """One scale per entry of an axis, ready to be broadcast."""
    if scale.rank == 0 or scale.shape == (1,):
        return b.reshape(scale, ())
    return b.reshape(scale, (*scale.shape, *[1] * (rank - 1 - axis % rank)))


def real(x: Tensor, scale: Tensor | None, zero: Tensor | None, axis: int, b: Builder) -> Tensor:
    """(x - zero) scale."""
    values = b.cast(x, FLOAT)
    if zero is not None:
        values = values - along(b.cast(zero, FLOAT), x.rank, axis, b)
    return values * along(scale, x.rank, axis, b) if scale is not None else values


def weights(node: Node, index: int, b: Builder) -> Tensor:
    """An input as floats. Stored as integers it is not read from DequantizeLinear, which onnxruntime never folds."""
    name = node.proto.input[index]
    maker = b.graph.maker.get(name)
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in b.graph.initializers:
        return b.tensor(name)
    stored = Node(maker, b.graph, frozenset())
    if stored.get("block_size", 0):
        return b.tensor(name)
    x, scale, *zero = (b.tensor(entry) for entry in maker.input if entry)
    return real(x, scale, zero[0] if zero else None, int(stored.get("axis", 1)), b)


def inside(name: str, b: Builder, dtype: int) -> Tensor:
    """1 where an integer is not at an end of its type's range."""
    from onnx import helper

    x = b.tensor(name)
    info = np.iinfo(helper.tensor_dtype_to_np_dtype(x.dtype))
    if b.opset >= 13 and info.bits == 8:  # on bytes, which takes half the time
        low, high = (b.constant(bound, x.dtype) for bound in (info.min + 1, info.max - 1))
        return b.cast(b.add("Equal", b.add("Clip", x, low, high, shape=x.shape), x, dtype=BOOL), dtype)
    numbers = b.cast(x, dtype)
    return b.above(numbers, float(info.min)) * b.below(numbers, float(info.max))
