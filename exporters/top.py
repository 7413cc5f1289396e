"""Another top on a classifier: none, for its features; or one that answers at every window of a larger picture.

Both are functions from cleaned model to cleaned model (see ``exporters.passes``); the weights below stay as they
are. How each operator goes over to larger pictures is in ``exporters.equivariance``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.equivariance import RULES, Place, Walk, become, refuse, sizes
from exporters.graph import bypass, constant, initializer, only_reader, operator
from runtime.errors import ExportFailed, InvalidInput

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Convolutional:
    """A classifier made to slide over pictures larger than its input.

    proto: (N, C, height, width), both free -> "logits" (N, outputs, rows, columns).
    size, stride: (height, width) in pixels: of the window one place looks at, and from one place to the next.
    padding: the layers that pad, or pool beyond the border: what they do at the border of the picture they would do
        at the border of a window cut out.
    heads: the last maps before the whole window is looked at, as (name, (rows, columns) at the native size). Both the
        classifier and ``proto`` have them.
    """

    proto: Any
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[str, ...]
    heads: tuple[tuple[str, tuple[int, int]], ...]


def embedding(proto: Any) -> Any:
    """The network without its top: input -> "features" (N, dimensions).

    That is what the last layer with weights takes in, averaged over height and width where it is a map.
    proto: a cleaned onnx.ModelProto, left as it is. Raises InvalidInput where no one layer is the last, and where
    nothing is left below it.
    """
    import onnx_ir as ir

    model = ir.from_proto(proto)
    (output,) = model.graph.outputs
    value = _last_layer(output).inputs[0]
    assert value is not None and value.shape is not None
    if value.is_graph_input():
        raise InvalidInput("features: the network has a single layer with weights, and nothing below it")
    name = value.producer().name  # type: ignore[union-attr]
    nodes = []
    if len(value.shape) == 4 and tuple(value.shape[2:]) != (1, 1):
        nodes.append(ir.Node("", "GlobalAveragePool", [value], name=f"{name}.mean", outputs=[ir.Value(name="mean")]))
    if len(value.shape) != 2:
        flat, axis = ir.Value(name="flat"), [ir.AttrInt64("axis", 1)]
        source = nodes[-1].outputs[0] if nodes else value
        nodes.append(ir.Node("", "Flatten", [source], axis, name=f"{name}.flatten", outputs=[flat]))
    last = nodes[-1].outputs[0] if nodes else value
    dimensions = 1
    for size in value.shape[1:2] if len(value.shape) == 4 else value.shape[1:]:
        if not isinstance(size, int):
            raise ExportFailed(f"features: {value.name} has no known size")
        dimensions *= size
    model.graph.extend(nodes)
    model.graph.outputs[0] = last
    output.name = f"{output.name}_"  # it goes away with its node
    last.name, last.type, last.shape = "features", output.type, ir.Shape([output.shape[0], dimensions])
    return _finished(model, keep=True)


def fully_convolutional(proto: Any) -> Convolutional:
    """The classifier as a network whose every output place is its answer at one window.

    The way into the dense layers becomes a convolution, pooling over the whole map becomes pooling over as much as the
    map has at the native size.
    proto: a cleaned onnx.ModelProto, left as it is. Raises InvalidInput naming the layer, where one does not look the
    same way at every place of a picture.
    """
    import onnx_ir as ir

    model = ir.from_proto(proto)
    graph = model.graph
    (picture,), (output,) = graph.inputs, graph.outputs
    assert picture.shape is not None and output.shape is not None
    batch, channels, height, width = picture.shape
    assert isinstance(height, int) and isinstance(width, int)
    _as_gather(model)
    walk = Walk(graph, {picture: Place((height, width), (1, 1))})
    for node in list(graph):
        if not any(value in walk.places for value in node.inputs if value is not None):
            continue  # a constant; who reads it sees to it
        rule = RULES.get(operator(node))
        if rule is None:
            raise refuse(node, "no rule says that it looks the same way at every place of a picture")
        place = rule(node, walk)
        for value in node.outputs:
            walk.places[value] = place
    end = walk.places[output]
    if end.extent != (1, 1) or not walk.heads:
        raise InvalidInput("fully convolutional: nothing in the network looks at the whole map: it gives a map already")
    for node in list(graph):
        source = node.inputs[0] if operator(node) == "Identity" else None
        # A head that is the output itself keeps its name, for the comparison.
        if source is not None and not (source in walk.heads and node.outputs[0].is_graph_output()):
            bypass(graph, node, source)
    (output,) = graph.outputs
    output.name = "logits"
    picture.shape = ir.Shape([batch, channels, "height", "width"])
    output.shape = ir.Shape([batch, _outputs(proto), "rows", "columns"])
    heads = tuple((str(value.name), extent) for value, extent in walk.heads.items())
    return Convolutional(_finished(model), (height, width), end.stride, tuple(walk.padding), heads)


# ---- helpers


def _as_gather(model: ir.Model) -> None:
    """ShuffleNet's channel shuffle, spelled out as Reshape, Transpose, Reshape of known height and width."""
    import onnx_ir as ir

    for first in list(model.graph):
        turn = only_reader(first.outputs[0]) if operator(first) == "Reshape" else None
        last = only_reader(turn.outputs[0]) if turn is not None and operator(turn) == "Transpose" else None
        if turn is None or last is None or operator(last) != "Reshape" or first.inputs[0] is None:
            continue
        before, split, after = (sizes(v) for v in (first.inputs[0], first.outputs[0], last.outputs[0]))
        perm = list(turn.attributes["perm"].as_ints()) if "perm" in turn.attributes else []
        if len(before) != 3 or len(split) != 4 or split[2:] != before[1:] or after != before or perm != [0, 2, 1, 3, 4]:
            continue
        order = np.arange(before[0]).reshape(split[:2]).T.reshape(-1)
        indices = initializer(model.graph, f"{last.name}.order", order)
        become(last, "Gather", [first.inputs[0], indices], [ir.AttrInt64("axis", 1)])
        model.graph.remove([turn, first], safe=True)


def _last_layer(output: ir.Value) -> ir.Node:
    """The one Conv, Gemm or MatMul with weights that every way to the output comes through last."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Value] = set()
    pending = [output]
    while pending:
        value = pending.pop()
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if operator(node) in ("Conv", "Gemm", "MatMul") and constant(node.inputs[1]) is not None:
            found[node] = None
        else:
            pending.extend(source for source in node.inputs if source is not None)
    if len(found) != 1:
        names = ", ".join(str(node.name) for node in found) or "none"
        raise InvalidInput(f"features: not one layer with weights is the last, but {len(found)} ({names})")
    return next(iter(found))


def _outputs(proto: Any) -> int:
    return int(proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def _finished(model: ir.Model, *, keep: bool = False) -> Any:
    """As an onnx.ModelProto without what nothing needs, shapes inferred (anew unless ``keep``), checked."""
    import onnx
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    common.RemoveUnusedNodesPass()(model)
    for node in model.graph:
        for value in node.outputs:
            if not keep and not value.is_graph_output():
                value.shape = None
    try:
        result = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportFailed(f"the network with another top is not valid ONNX: {str(error).splitlines()[0]}") from error
    return result
