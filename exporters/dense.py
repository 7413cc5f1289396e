"""Dense layers: the way into them without a transpose, over the last axis without a reshape, their scale within."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import bypass, constant, initializer, only_reader, operator, producer, remove_dead
from exporters.transposes import perm_of

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


def over_last_axis(model: ir.Model) -> None:
    """Rows of the last axis cut out, multiplied with a matrix and put back: a MatMul does it as they lie."""
    import onnx_ir as ir

    for node in list(model.graph):
        product = producer(node.inputs[0], "MatMul") if operator(node) == "Reshape" else None
        rows = producer(product.inputs[0], "Reshape") if product is not None else None
        if product is None or rows is None or rows.inputs[0] is None or rows.inputs[1] is None:
            continue
        weights, target = constant(product.inputs[1]), constant(node.inputs[1])
        if weights is None or weights.ndim != 2 or target is None:
            continue
        source, axes = rows.inputs[0], rows.inputs[1].shape
        sizes = _picture_sizes(source)
        if (
            sizes is None
            or axes is None
            or list(axes) != [2]  # a matrix, whose last axis is the only one that can be multiplied
            or sizes[-1] != weights.shape[0]
            # The batch is what is left over.
            or list(target) not in ([-1, *sizes[:-1], weights.shape[1]], [0, *sizes[:-1], weights.shape[1]])
            or only_reader(product.outputs[0]) is not node
        ):
            continue
        product.replace_input_with(0, source)
        assert source.shape is not None
        product.outputs[0].shape = ir.Shape([*source.shape[:-1], weights.shape[1]])
        bypass(model.graph, node, product.outputs[0])
    remove_dead(model.graph, *"Reshape Concat Cast Unsqueeze ReduceProd Gather Squeeze Shape".split())


def fold_scale(model: ir.Model) -> None:
    """One factor per output of a dense layer, a layer's learned scale, goes into its weights and bias."""
    graph = model.graph
    for node in list(graph):
        if operator(node) != "Mul":
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            factors, axis = constant(other), -1
            if value is None or value.shape is None or factors is None or factors.size == 1:
                continue
            rank, dense = len(value.shape), value
            chain = [dense]
            if (perm := perm_of(dense)) is not None:
                axis = perm.index(rank - 1) - rank
                dense = producer(dense, "Transpose").inputs[0]  # type: ignore[union-attr, assignment]
                chain.append(dense)
            add = producer(dense, "Add")
            bias = next((b for b in map(constant, add.inputs) if b is not None), None) if add is not None else None
            if add is not None and bias is not None:
                dense = next((v for v in add.inputs if producer(v, "MatMul")), None)  # type: ignore[assignment]
                chain.append(dense)
            product = producer(dense, "MatMul")
            weights = constant(product.inputs[1]) if product is not None else None
            vector = _along(factors, axis, rank)
            if (
                product is None
                or weights is None
                or weights.ndim != 2
                or vector is None
                or len(vector) != weights.shape[1]
                or (bias is not None and bias.shape[-1:] != (len(vector),))
                or any(only_reader(link) is None for link in chain)
            ):
                continue
            product.replace_input_with(1, initializer(graph, f"{product.outputs[0].name}_scaled", weights * vector))
            if add is not None and bias is not None:
                index = next(i for i, v in enumerate(add.inputs) if v is not None and constant(v) is not None)
                add.replace_input_with(index, initializer(graph, f"{add.outputs[0].name}_scaled", bias * vector))
            bypass(graph, node, value)
            break


def _along(array: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any] | None:
    """A constant that differs along one axis only (counted from the end), as a vector; else None."""
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(-1) if len(shape) == rank and shape[axis] == array.size else None


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
