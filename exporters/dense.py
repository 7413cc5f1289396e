"""The way from the last map into the dense layers, without a transpose."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from exporters.graph import constant, initializer, only_reader, producer

if TYPE_CHECKING:
    import onnx_ir as ir


def absorb_transposes(model: ir.Model) -> None:
    """Flatten of a transposed map into a Gemm: flatten the map as it is and reorder the weights instead."""
    graph = model.graph
    for node in list(graph):
        flatten = producer(node.inputs[0], "Reshape", "Flatten") if node.op_type == "Gemm" else None
        transpose = producer(flatten.inputs[0], "Transpose") if flatten is not None else None
        if flatten is None or transpose is None or not _flattens(flatten):
            continue
        source, weights = transpose.inputs[0], constant(node.inputs[1])
        sizes = _picture_sizes(source)
        perm = list(transpose.attributes["perm"].as_ints()) if "perm" in transpose.attributes else []
        turned = node.attributes.get_int("transB", 0) == 1
        if (
            sizes is None
            or weights is None
            or perm[:1] != [0]
            or node.attributes.get_int("transA", 0) != 0
            or weights.shape[1 if turned else 0] != prod(sizes)
            or only_reader(flatten.outputs[0]) is not node
        ):
            continue
        # order[k]: where in the untransposed map the k-th transposed value lies.
        order = np.arange(prod(sizes)).reshape(sizes).transpose([axis - 1 for axis in perm[1:]]).reshape(-1)
        back = np.argsort(order)
        reordered = np.ascontiguousarray(weights[:, back] if turned else weights[back])
        flatten.replace_input_with(0, source)
        node.replace_input_with(1, initializer(graph, f"{node.outputs[0].name}_nchw", reordered))


def _flattens(node: ir.Node) -> bool:
    """Whether everything but the batch becomes one axis."""
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) == 1
    target = constant(node.inputs[1])
    # A 0 copies the axis in that place, which a Transpose may have moved there.
    return target is not None and len(target) == 2 and -1 in target and target[1] != 0


def _picture_sizes(value: ir.Value | None) -> list[int] | None:
    """The sizes of all axes but the batch, where they are all known."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    sizes = list(value.shape)[1:]
    return [size for size in sizes if isinstance(size, int)] if all(isinstance(s, int) for s in sizes) else None
