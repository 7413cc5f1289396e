"""What ConvNeXt and transformers are made of, spelled out by Keras, as the operators engines have kernels for.

Each function rewrites a model in place and is exact up to float rounding.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from exporters.graph import (
    constant,
    initializer,
    like,
    only_reader,
    operator,
    producer,
    reduction_axes,
    remove_dead,
    replace,
)

if TYPE_CHECKING:
    import onnx_ir as ir


def layer_normalization(model: ir.Model) -> None:
    """x * inv + (beta - mean * inv), inv = gamma / sqrt(variance + epsilon), over the last axis: LayerNormalization.

    The operator is there from opset 17 on; below, what Keras spells out stays.
    """
    import onnx_ir as ir

    if model.opset_imports[""] < 17:
        return
    for node in list(model.graph):
        value = _normalized(node) if operator(node) == "Reciprocal" else None
        if value is None or value.shape is None or not isinstance(size := value.shape[-1], int):
            continue
        mean, epsilon = _statistics(node)
        inv, gamma = node.outputs[0], None
        if operator(reader := only_reader(inv)) == "Mul" and reader is not None:
            gamma = _row(_other(reader, inv), size)
            inv = reader.outputs[0] if gamma is not None else inv
        scaled, shifted = _products(inv, value, mean)
        if scaled is None or shifted is None:
            continue
        last, beta = only_reader(shifted), None
        if operator(last) == "Add" and last is not None:
            beta = _row(_other(last, shifted), size)
            if beta is not None:
                shifted = last.outputs[0]
                last = only_reader(shifted)
        if operator(last) != "Add" or last is None or _other(last, shifted) is not scaled:
            continue
        name, ones = last.outputs[0].name, np.ones(size, np.float32)
        inputs = [value, initializer(model.graph, f"{name}_gamma", ones if gamma is None else gamma)]
        if beta is not None:
            inputs.append(initializer(model.graph, f"{name}_beta", beta))
        attributes = [ir.AttrInt64("axis", -1), ir.AttrFloat32("epsilon", epsilon)]
        output = like(last.outputs[0])
        fused = ir.Node("", "LayerNormalization", inputs, attributes, name=node.name, outputs=[output])
        model.graph.insert_after(last, fused)
        replace(last.outputs[0], output)
    remove_dead(model.graph, "Add", "Mul", "Neg", "Reciprocal", "Sqrt", "ReduceMean", "Sub")


def gelu(model: ir.Model) -> None:
    """The exact GELU, however it is spelled out, in the one form that onnxruntime fuses: x * (1 + erf(x / √2)) / 2.

    Keras multiplies x / 2 with 1 - erf(-x / √2), PyTorch x with (1 + erf(x / √2)) / 2.
    """
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        if operator(node) != "Erf":
            continue
        value, last = _gelu(node)
        if value is None or last is None:
            continue
        root, unit, factor = (
            initializer(graph, f"{last.outputs[0].name}_{name}", np.array(number, np.float32))
            for name, number in (("sqrt2", sqrt(2)), ("one", 1.0), ("half", 0.5))
        )
        before, result = last, value
        for op, operands in (("Div", [root]), ("Erf", []), ("Add", [unit]), ("Mul", [value]), ("Mul", [factor])):
            new = ir.Node("", op, [result, *operands], name=node.name, outputs=[like(last.outputs[0])])
            graph.insert_after(before, new)
            before, result = new, new.outputs[0]
        replace(last.outputs[0], result)
    remove_dead(graph, "Mul", "Div", "Add", "Sub", "Erf", "Neg")


# ---- helpers


def _statistics(reciprocal: ir.Node) -> tuple[ir.Value | None, float]:
    """Of 1 / sqrt(mean((x - m)^2) + epsilon) the value m, and epsilon."""
    root = producer(reciprocal.inputs[0], "Sqrt")
    add = producer(root.inputs[0], "Add") if root is not None else None
    if add is None:
        return None, 0.0
    for variance, epsilon in (add.inputs, add.inputs[::-1]):
        reduced, number = producer(variance, "ReduceMean"), constant(epsilon)
        square = producer(reduced.inputs[0], "Mul") if reduced is not None else None
        if reduced is None or square is None or number is None or number.size != 1 or not _over_last_axis(reduced):
            continue
        centred = producer(square.inputs[0], "Sub") if square.inputs[0] is square.inputs[1] else None
        mean = centred.inputs[1] if centred is not None else None
        if producer(mean, "ReduceMean") is not None:
            return mean, float(number.reshape(()))
    return None, 0.0


def _normalized(reciprocal: ir.Node) -> ir.Value | None:
    """The value x whose mean and variance over the last axis the node is made of; None for any other node."""
    mean, _ = _statistics(reciprocal)
    averaged = producer(mean, "ReduceMean")
    if mean is None or averaged is None or not _over_last_axis(averaged):
        return None
    centred = next((use.node for use in mean.uses() if operator(use.node) == "Sub"), None)
    value = averaged.inputs[0]
    return value if centred is not None and centred.inputs[0] is value and centred.inputs[1] is mean else None


def _products(inv: ir.Value, value: ir.Value, mean: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """x * inv and -mean * inv, where these are the only readers of ``inv``."""
    readers = [use.node for use in inv.uses()]
    if len(readers) != 2 or inv.is_graph_output() or any(operator(reader) != "Mul" for reader in readers):
        return None, None
    scaled = next((r.outputs[0] for r in readers if _other(r, inv) is value), None)
    shifted = next(
        (r.outputs[0] for r in readers if (neg := producer(_other(r, inv), "Neg")) and neg.inputs[0] is mean), None
    )
    return scaled, shifted


def _over_last_axis(reduction: ir.Node) -> bool:
    value, axes = reduction.inputs[0], reduction_axes(reduction)
    rank = len(value.shape) if value is not None and value.shape is not None else 0
    last = axes is not None and len(axes) == 1 and rank > 0 and axes[0] % rank == rank - 1
    return last and reduction.attributes.get_int("keepdims", 1) == 1


def _row(value: ir.Value | None, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None:
    """A constant with one value for each of the last axis, as a vector; else None."""
    array = constant(value)
    if array is None or array.dtype != np.float32 or array.size != size or array.shape[-1:] != (size,):
        return None
    return array.reshape(-1)


def _gelu(erf: ir.Node) -> tuple[ir.Value | None, ir.Node | None]:
    """Of an Erf inside a GELU the x, and the node that gives the result; None for any other Erf."""
    value, sign = _over_sqrt2(erf.inputs[0])
    inner = only_reader(erf.outputs[0])
    if value is None or inner is None:
        return None, None
    # 1 + erf(x / sqrt(2)), or 1 - erf(-x / sqrt(2))
    if not _is_scalar(_other(inner, erf.outputs[0]), 1.0) or operator(inner) != ("Add" if sign > 0 else "Sub"):
        return None, None
    if operator(inner) == "Sub" and inner.inputs[1] is not erf.outputs[0]:
        return None, None
    left, last = {"x", "half"}, inner
    while left:
        product = only_reader(last.outputs[0])
        if product is None or operator(product) != "Mul":
            return None, None
        other = _other(product, last.outputs[0])
        halved = producer(other, "Mul")
        if other is value and "x" in left:
            left -= {"x"}
        elif _is_scalar(other, 0.5) and "half" in left:
            left -= {"half"}
        elif halved is not None and left == {"x", "half"} and _is_scalar(_other(halved, value), 0.5):
            left = set()
        else:
            return None, None
        last = product
    return value, last


def _over_sqrt2(value: ir.Value | None) -> tuple[ir.Value | None, int]:
    """x and its sign, where the value is x / sqrt(2) or -x / sqrt(2)."""
    product, quotient = producer(value, "Mul"), producer(value, "Div")
    source = None
    if quotient is not None and _is_scalar(quotient.inputs[1], sqrt(2)):
        source = quotient.inputs[0]
    elif product is not None:
        source = next((v for v in product.inputs if _is_scalar(_other(product, v), sqrt(0.5))), None)
    negation = producer(source, "Neg")
    return (source, 1) if negation is None else (negation.inputs[0], -1)


def _is_scalar(value: ir.Value | None, number: float) -> bool:
    """True for a float32 constant of one element that is ``number``, to within a rounding."""
    array = constant(value)
    if array is None or array.size != 1 or array.ndim > 1 or array.dtype != np.float32:
        return False
    return abs(float(array.reshape(())) / number - 1) < 1e-7


def _other(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The other operand of a node of two; None where ``value`` is neither or both."""
    first, second = node.inputs[0], node.inputs[1]
    if (first is value) == (second is value):
        return None
    return second if first is value else first
