"""What exporters leave in a roundabout form, in the plain one.

Each function rewrites a model in place; the results are the same up to float rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporters.graph import (
    constant,
    initializer,
    input_at,
    like,
    operator,
    producer,
    reduction_axes,
    remove_dead,
    replace,
    supersede,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def batch_norm(model: ir.Model) -> None:
    """A BatchNormalization that no convolution took in is a Mul and an Add, per channel."""
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        if operator(node) != "BatchNormalization" or node.attributes.get_int("training_mode", 0) == 1:
            continue
        value, arrays = node.inputs[0], [constant(given) for given in node.inputs[1:]]
        if value is None or value.shape is None or any(output.uses() for output in node.outputs[1:]):
            continue
        if any(array is None or array.dtype != np.float32 for array in arrays):
            continue
        scale, bias, mean, variance = (np.asarray(array, np.float64) for array in arrays)
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        result = value
        for operation, array in (("Mul", factor), ("Add", bias - mean * factor)):
            vector = array.astype(np.float32).reshape(-1, *(1,) * (len(value.shape) - 2))
            operands = [result, initializer(graph, f"{node.outputs[0].name}_{operation.lower()}", vector)]
            name = node.name if operation == "Add" else _beside(node, "scale")
            new = ir.Node("", operation, operands, name=name, outputs=[like(node.outputs[0])])
            graph.insert_before(node, new)
            result = new.outputs[0]
        supersede(node.outputs[0], result)
        graph.remove(node, safe=True)


def _beside(node: ir.Node, what: str) -> str | None:
    """The name of a second node in the place of one: onnxruntime takes none twice, and many without."""
    return f"{node.name}.{what}" if node.name else None


def einsum(model: ir.Model) -> None:
    """An Einsum that is a MatMul of stacked matrices: "ghid,ghjd->ghij", "ghij,ghjd->ghid"."""
    import onnx_ir as ir

    for node in list(model.graph):
        if operator(node) != "Einsum" or len(node.inputs) != 2:
            continue
        terms, _, result = node.attributes["equation"].as_string().replace(" ", "").partition("->")
        left, _, right = terms.partition(",")
        turned = _stacked_product(left, right, result)
        if turned is None:
            continue
        first, second = node.inputs
        new: list[ir.Node] = []
        if turned:
            axes = [*range(len(right) - 2), len(right) - 1, len(right) - 2]
            perm = [ir.AttrInt64s("perm", axes)]
            new.append(ir.Node("", "Transpose", [second], perm, name=_beside(node, "turn")))
            second = new[0].outputs[0]
            assert node.inputs[1] is not None
            second.type, shape = node.inputs[1].type, node.inputs[1].shape
            second.shape = None if shape is None else ir.Shape([shape[axis] for axis in axes])
        new.append(ir.Node("", "MatMul", [first, second], name=node.name, outputs=[like(node.outputs[0])]))
        model.graph.insert_before(node, new)
        replace(node.outputs[0], new[-1].outputs[0])
        model.graph.remove(node, safe=True)


def strided_copy(model: ir.Model) -> None:
    """PyTorch's as_strided picks every element in its place: the value itself.

    It comes from the mean over a channels-last map (ConvNeXt, Swin), as a Gather of the flat value at computed places.
    """
    for node in list(model.graph):
        flat = producer(node.inputs[0], "Reshape") if operator(node) == "Gather" else None
        value = flat.inputs[0] if flat is not None else None
        if flat is None or value is None or value.shape is None or node.attributes.get_int("axis", 0) != 0:
            continue
        target, sizes = constant(flat.inputs[1]), [size for size in value.shape[1:] if isinstance(size, int)]
        if target is None or list(target) != [-1] or len(sizes) + 1 != len(value.shape):
            continue
        # The places are affine in the picture's number, so two batches tell.
        if all(_picks_in_order(node.inputs[1], (batch, *sizes), model.graph.inputs[0]) for batch in (2, 3)):
            replace(node.outputs[0], value)
    remove_dead(model.graph, *"Gather Reshape Add Mul Unsqueeze Range Squeeze Shape".split())


# ---- helpers


def _stacked_product(left: str, right: str, result: str) -> bool | None:
    """Whether the second operand of the product of stacked matrices has to be turned; None when it is none."""
    terms = (left, right, result)
    if any(len(term) < 2 or len(set(term)) < len(term) or not term.isalpha() for term in terms):
        return None
    if not left[:-2] == right[:-2] == result[:-2] or {left[-2], left[-1]} & set(left[:-2]):
        return None
    row, inner = left[-2], left[-1]
    for turned, one, other in ((False, right[-2], right[-1]), (True, right[-1], right[-2])):
        if one == inner and other not in (row, inner) and result[-2:] == row + other:
            return turned
    return None


def _picks_in_order(value: ir.Value | None, shape: tuple[int, ...], picture: ir.Value) -> bool:
    places = _evaluate(value, shape[0], picture)
    expected = np.arange(np.prod(shape)).reshape(shape)
    return places is not None and places.shape == shape and bool((places == expected).all())


def _evaluate(value: ir.Value | None, batch: int, picture: ir.Value) -> npt.NDArray[Any] | None:
    """Whole numbers computed from the batch size alone, for one batch size; None for anything else."""
    array = constant(value)
    node = value.producer() if value is not None else None
    if array is not None or node is None:
        return array
    if operator(node) == "Shape" and node.inputs[0] is picture and node.attributes.get_int("end", 99) == 1:
        return np.array([batch]) if node.attributes.get_int("start", 0) == 0 else None
    axes = reduction_axes(node) if operator(node) in ("Unsqueeze", "Squeeze") else None
    inputs = [_evaluate(given, batch, picture) for given in node.inputs[: 1 if axes is not None else None]]
    first, second, third = [*inputs, None, None][:3]
    if first is None:
        return None
    if operator(node) == "Unsqueeze" and axes is not None:
        return np.expand_dims(first, tuple(axes))
    if operator(node) == "Squeeze":
        return first.squeeze(None if axes is None else tuple(axes)) if axes or input_at(node, 1) is None else None
    if second is None:
        return None
    if operator(node) == "Range" and third is not None:
        return np.arange(int(first), int(second), int(third))
    result: npt.NDArray[Any]
    if operator(node) == "Add":
        result = first + second
    elif operator(node) == "Mul":
        result = first * second
    else:
        return None
    return result
