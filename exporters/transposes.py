"""Transposes in a graph: what they permute, and how an operand is had the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from exporters.graph import constant, initializer, like, producer

if TYPE_CHECKING:
    import onnx_ir as ir

Perm = tuple[int, ...]
"""Axis i of what a Transpose gives is axis perm[i] of what it takes."""


def perm_of(value: ir.Value | None) -> Perm | None:
    """The permutation of the Transpose that makes a value; None for other values."""
    node = producer(value, "Transpose")
    if node is None or node.inputs[0] is None:
        return None
    if "perm" in node.attributes:
        return tuple(node.attributes["perm"].as_ints())
    shape = node.inputs[0].shape  # without the attribute the axes are reversed
    return None if shape is None else tuple(reversed(range(len(shape))))


def source_of(value: ir.Value | None) -> ir.Value | None:
    """What the Transpose that makes a value takes; None for other values."""
    node = producer(value, "Transpose")
    return node.inputs[0] if node is not None else None


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes one."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def permuted(shape: ir.Shape | None, perm: Perm) -> ir.Shape | None:
    """The shape of what a Transpose gives."""
    import onnx_ir as ir

    return None if shape is None else ir.Shape([shape[axis] for axis in perm])


def order_kept(sizes: Sequence[object], perm: Perm) -> bool:
    """True when the permutation only moves axes of length 1, and so leaves the order in memory."""
    moving = [axis for axis in perm if sizes[axis] != 1]
    return moving == sorted(moving)


def transpose(value: ir.Value, perm: Perm) -> ir.Node:
    """A new node, in no graph yet."""
    import onnx_ir as ir

    output = like(value)
    output.shape = permuted(value.shape, perm)
    return ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", perm)], outputs=[output])


def can_undo(value: ir.Value | None, perm: Perm) -> bool:
    """True when ``undone`` can give the operand as it was before this Transpose."""
    array = constant(value)
    if array is not None:
        return array.ndim <= len(perm)
    if perm_of(value) is not None:
        return perm_of(value) == perm
    before = producer(value, "Reshape")
    return before is not None and permuted_target(before, inverse(perm)) is not None


def undone(graph: ir.Graph, value: ir.Value, perm: Perm) -> ir.Value:
    """The operand before the Transpose: through it, a constant laid out the other way, or another Reshape."""
    import onnx_ir as ir

    source, array, back = source_of(value), constant(value), inverse(perm)
    if array is not None:
        if array.size == 1:
            return value
        full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)  # as broadcasting sees it
        return initializer(graph, f"{value.name}_nchw", np.ascontiguousarray(full.transpose(back)))
    if source is not None:
        return source
    before = producer(value, "Reshape")
    target = permuted_target(before, back) if before is not None else None
    assert before is not None and target is not None
    inputs = [before.inputs[0], initializer(graph, f"{value.name}_shape", target)]
    output = like(value)
    output.shape = permuted(value.shape, back)
    attributes = list(before.attributes.values())
    graph.insert_after(before, ir.Node("", "Reshape", inputs, attributes, name=before.name, outputs=[output]))
    return output


def permuted_target(reshape: ir.Node, perm: Perm) -> npt.NDArray[np.int64] | None:
    """The target of a Reshape that also does the Transpose behind it; None when data would have to move."""
    target = constant(reshape.inputs[1])
    if target is None or len(target) != len(perm) or not order_kept(list(target), perm):
        return None
    # A 0 copies the axis of the same number.
    return None if any(target[axis] == 0 and perm[axis] != axis for axis in perm) else target[list(perm)]
