"""The same arithmetic on integers, in forms that onnxruntime's CPU has fast kernels for.

- Its integer AveragePool takes twenty times what the float one does: 6.2 of the 15.5 ms of inception_v3. An average is
  a depthwise convolution as well, whose weights are all one: 0.3 ms.
- A convolution in groups is a loop over small products of matrices. Merged into fewer groups, with weights of 0
  between the old ones, it multiplies more and takes less: 32 groups of 8 channels 0.43 of the time in 8 groups.
- x * sigmoid(x) between integers is one kernel in float, if x is made float once: onnxruntime would do it twice, and
  not see that the two belong together. On integers it has two kernels; efficientnet_b0 takes 0.9 of their time.
- Some widths have no vectorised kernel: ``exporters.quantize.widen``.

(2 cores of an AMD EPYC, onnxruntime 1.31.1, 2026-11-22.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.graph import constant, initializer, only_reader, operator, producer, supersede
from exporters.quantize.emit import emit
from exporters.quantize.network import Array, Network
from exporters.quantize.scheme import Scheme
from exporters.quantize.widen import Shapes, widen

if TYPE_CHECKING:
    import onnx_ir as ir

_WIDE, _TOO_WIDE = 32, 128  # channels of a group: what they should be at least, and more than they should become


def written(network: Network, scheme: Scheme, mended: dict[str, Array] | None = None) -> Any:
    """The model as it will be in the file; see ``emit``."""
    proto = emit(network, scheme, mended).proto
    return suited(proto) if scheme.style.on_cpu else proto


def suited(proto: Any) -> Any:
    """A model in QDQ form, as ``emit`` writes it, in such forms; results stay as they were, within a step of a grid."""
    import onnx
    import onnx_ir as ir

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    model = ir.from_proto(proto)
    for node in list(model.graph):
        if operator(node) == "AveragePool":
            _as_convolution(model.graph, node, shapes)
        elif operator(node) == "Conv":
            _in_wider_groups(model.graph, node)
        elif operator(node) == "Sigmoid":
            _as_silu(model, node)
    widen(model.graph, shapes)
    used = {value for node in model.graph for value in node.inputs}
    for value in [value for value in model.graph.initializers.values() if value not in used]:
        del model.graph.initializers[value.name]
    return ir.to_proto(model)


def _in_wider_groups(graph: ir.Graph, node: ir.Node) -> None:
    import onnx_ir as ir

    stored, groups = producer(node.inputs[1], "DequantizeLinear"), node.attributes.get_int("group", 1)
    weights = constant(stored.inputs[0]) if stored is not None else None
    if weights is None or groups == 1 or weights.shape[:2] == (groups, 1):
        return
    outputs, inputs, *kernel = weights.shape
    wide = [inputs * count for count in range(1, groups + 1) if groups % count == 0 and inputs * count >= _WIDE]
    if not wide or not inputs < wide[0] <= _TOO_WIDE:
        return
    merged = groups * inputs // wide[0]
    apart = np.zeros((groups, outputs // groups, groups // merged, inputs, *kernel), weights.dtype)
    at = np.arange(groups)
    apart[at, :, at % (groups // merged)] = weights.reshape(groups, -1, inputs, *kernel)
    assert stored is not None
    wider = apart.reshape(outputs, wide[0], *kernel)
    stored.replace_input_with(0, initializer(graph, f"{node.name}::weight", wider))
    node.attributes["group"] = ir.AttrInt64("group", merged)


def _as_silu(model: ir.Model, node: ir.Node) -> None:
    import onnx_ir as ir

    given, mul = node.inputs[0], only_reader(node.outputs[0])
    if producer(given, "DequantizeLinear") is None or operator(mul) != "Mul":
        return
    assert mul is not None and given is not None
    if given not in mul.inputs:
        return
    silu = ir.node("QuickGelu", [given], {"alpha": 1.0}, domain="com.microsoft", name=mul.name)
    model.graph.insert_before(mul, silu)
    supersede(mul.outputs[0], silu.outputs[0])
    model.graph.remove([mul, node], safe=True)
    model.opset_imports["com.microsoft"] = 1


def _as_convolution(graph: ir.Graph, node: ir.Node, shapes: Shapes) -> None:
    """Sums of integers, divided by their number; the border, where fewer count, is scaled up again."""
    import onnx_ir as ir

    given, output, said = node.inputs[0], node.outputs[0], node.attributes
    up, down = producer(given, "DequantizeLinear"), only_reader(output)
    before, after = (shapes.get(value.name or "", ()) if value is not None else () for value in (given, output))
    if up is None or operator(down) != "QuantizeLinear" or len(before) != 4 or before[1] is None or not _is_plain(node):
        return
    kernel, channels, where = said.get_ints("kernel_shape"), before[1], node.name or str(output.name)
    pads, strides = said.get_ints("pads", [0] * 4), said.get_ints("strides", [1, 1])
    border = None
    if any(pads) and not said.get_int("count_include_pad", 0):
        if None in (*before[2:], *after[1:]):
            return
        axes = zip(before[2:], after[2:], kernel, strides, pads[:2], strict=True)
        border = np.prod(kernel) / np.outer(*(_counted(*(size or 0 for size in axis)) for axis in axes))
    share = np.full(channels, 1 / np.prod(kernel), np.float32)
    stored = np.ones((channels, 1, *kernel), np.int8), share, np.zeros(channels, np.int8)
    ones = _dequantized(graph, f"{where}::ones", *stored)
    how: dict[str, Any] = {"kernel_shape": kernel, "pads": pads, "strides": strides, "group": channels}
    made = [ones, ir.node("Conv", [given, ones.outputs[0]], how, name=where)]
    if border is not None and down is not None:
        made += _times(graph, made[-1], border[None, None], down)
    for one in made:
        one.outputs[0].name = f"{one.name}::result"
        shapes[one.outputs[0].name] = after  # those of constants are not asked for
    graph.insert_before(node, made)
    supersede(output, made[-1].outputs[0])
    graph.remove(node, safe=True)


def _times(graph: ir.Graph, node: ir.Node, factors: Array, grid: ir.Node) -> list[ir.Node]:
    """The nodes that multiply what a node gives with positive constants, on a QuantizeLinear's grid."""
    import onnx_ir as ir

    zero = constant(grid.inputs[2])
    assert zero is not None
    down = ir.node("QuantizeLinear", [node.outputs[0], *grid.inputs[1:]], name=f"{node.name}::sums")
    up = ir.node("DequantizeLinear", [down.outputs[0], *grid.inputs[1:]], name=f"{node.name}::read")
    stored = _dequantized(graph, f"{node.name}::border", *_on_grid(factors, zero.dtype))
    mended = ir.node("Mul", [up.outputs[0], stored.outputs[0]], name=f"{node.name}::mended")
    return [down, up, stored, mended]


def _is_plain(node: ir.Node) -> bool:
    """Whether a pooling says all of its arithmetic in what ``_as_convolution`` reads."""
    said = node.attributes
    padded = said.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    return padded and not said.get_int("ceil_mode", 0) and all(step == 1 for step in said.get_ints("dilations", []))


def _counted(before: int, after: int, kernel: int, stride: int, pad: int) -> Array:
    """How many places of a kernel lie within the map, along one axis."""
    starts = np.arange(after) * stride - pad
    return np.minimum(starts + kernel, before) - np.maximum(starts, 0)


def _on_grid(values: Array, kind: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Positive values as integers, on the grid where they are rounded least: (integers, scale, zero point)."""
    finest = int(np.iinfo(kind).max / values.max())
    steps = min(range(finest, 0, -1), key=lambda count: float(np.abs(values * count - np.round(values * count)).max()))
    return np.round(values * steps).astype(kind), np.array(1 / steps, np.float32), np.zeros((), kind)


def _dequantized(graph: ir.Graph, name: str, integers: Array, scale: Array, zero: Array) -> ir.Node:
    import onnx_ir as ir

    parts = {"integers": integers, "scale": scale, "zero": zero}
    stored = [initializer(graph, f"{name}::{part}", array) for part, array in parts.items()]
    return ir.node("DequantizeLinear", stored, {"axis": 0}, name=name)
