"""What makes an exported graph the one to deploy: pure steps from model to model.

Each pass is exact up to float rounding, and parity with the source framework is measured after
all of them. ``PASSES`` is the order; a row adds one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.layout import constant, initializer, reduction_axes, to_channels_first
from runtime.errors import ExportFailed

if TYPE_CHECKING:
    import onnx_ir as ir


def clean(proto: Any, *, opset: int, batch: int | None) -> Any:
    """The deployable form of an exported model: NCHW input "input", output "logits", stable names.

    Raises ExportFailed when the exporter changed the opset, or when the result is not valid ONNX.
    """
    import onnx
    import onnx_ir as ir

    model = ir.from_proto(proto)
    written = model.opset_imports.get("")
    if written != opset:
        raise ExportFailed(f"the exporter wrote opset {written} instead of {opset}: choose --opset {written}")
    for step in PASSES:
        step(model)
    _set_batch(model, batch)
    # Shapes of the intermediate values are worked out anew: some moved from NHWC to NCHW.
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    result = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
    try:
        onnx.checker.check_model(result, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportFailed(f"the cleaned graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return result


def explain_layer(proto: Any) -> str | None:
    """The last map before the classifier: name of the last 4-D tensor that still has an extent in space."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.value_info
    }
    maps = [
        node.output[0]
        for node in proto.graph.node
        if len(shape := shapes.get(node.output[0], [])) == 4 and shape[2] * shape[3] > 1
    ]
    return maps[-1] if maps else None


# ---- the passes


def optimize(model: ir.Model) -> None:
    """Fold constants and BatchNorm, drop dead nodes: onnxscript's optimizer and its rewrite rules."""
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model)


def channels_first(model: ir.Model) -> None:
    """An NHWC picture input becomes NCHW; the transposes inside disappear."""
    shape = model.graph.inputs[0].shape
    if shape is not None and len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        to_channels_first(model)


def hard_activations(model: ir.Model) -> None:
    """clip(x + 3, 0, 6) / 6 is HardSigmoid, x times that is HardSwish: Keras spells both out."""
    import onnx_ir as ir

    for node in list(model.graph):
        scale = _scalar(node.inputs[1]) if node.op_type in ("Mul", "Div") else None
        clip = _made_by(node.inputs[0], "Clip") if node.op_type in ("Mul", "Div") else None
        if (
            model.opset_imports[""] < 14
            or scale is None
            or clip is None
            or not np.isclose(scale if node.op_type == "Mul" else 1 / scale, 1 / 6)
        ):
            continue
        add = _made_by(clip.inputs[0], "Add")
        if add is None or (_scalar(add.inputs[1]), _scalar(clip.inputs[1]), _scalar(clip.inputs[2])) != (3, 0, 6):
            continue
        source, output = add.inputs[0], node.outputs[0]
        attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
        readers = [use.node for use in output.uses()]
        if len(readers) == 1 and readers[0].op_type == "Mul" and source in readers[0].inputs:
            last = readers[0]
            new = ir.Node("", "HardSwish", [source], name=node.name, outputs=[_like(last.outputs[0])])
        else:
            last = node
            new = ir.Node("", "HardSigmoid", [source], attributes, name=node.name, outputs=[_like(output)])
        model.graph.insert_after(last, new)
        ir.convenience.replace_all_uses_with(last.outputs[0], new.outputs[0], replace_graph_outputs=True)


def fold_affine(model: ir.Model) -> None:
    """A per-channel Mul or Add behind a Conv goes into its weights: the BatchNorm of depthwise layers."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type not in ("Mul", "Add"):
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            conv = value.producer() if value is not None else None
            weights = constant(conv.inputs[1]) if conv is not None and conv.op_type == "Conv" else None
            vector = _channel_vector(constant(other), weights)
            if value is None or conv is None or weights is None or vector is None or not _read_once(value):
                continue
            bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else np.zeros_like(vector)
            if bias is None:
                continue
            if node.op_type == "Mul":
                weights = weights * vector.reshape(-1, *(1,) * (weights.ndim - 1))
                bias = bias * vector
            else:
                bias = bias + vector
            _set_weights(model.graph, conv, weights, bias)
            ir.convenience.replace_all_uses_with(node.outputs[0], conv.outputs[0], replace_graph_outputs=True)
            model.graph.remove(node, safe=True)
            break


def matmul_to_gemm(model: ir.Model) -> None:
    """A dense layer is one Gemm: MatMul with constant weights, and the Add of its bias."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type != "MatMul":
            continue
        value, weights = node.inputs[0], constant(node.inputs[1])
        if value is None or value.shape is None or len(value.shape) != 2 or weights is None or weights.ndim != 2:
            continue
        inputs, last = [value, node.inputs[1]], node
        readers = [use.node for use in node.outputs[0].uses()]
        if len(readers) == 1 and readers[0].op_type == "Add":
            other = readers[0].inputs[1 - list(readers[0].inputs).index(node.outputs[0])]
            bias = constant(other)
            if other is not None and bias is not None and bias.shape in ((weights.shape[1],), (1, weights.shape[1])):
                inputs, last = [*inputs, initializer(model.graph, f"{other.name}_b", bias.reshape(-1))], readers[0]
        output = last.outputs[0]
        gemm = ir.Node("", "Gemm", inputs, name=node.name, outputs=[_like(output)])
        model.graph.insert_after(last, gemm)
        ir.convenience.replace_all_uses_with(output, gemm.outputs[0], replace_graph_outputs=True)
        model.graph.remove([last] if last is node else [last, node], safe=True)


def global_pooling(model: ir.Model) -> None:
    """A mean over both spatial axes is a GlobalAveragePool, which also has an integer kernel."""
    import onnx_ir as ir

    for node in list(model.graph):
        value = node.inputs[0] if node.inputs else None
        if node.op_type != "ReduceMean" or value is None or value.shape is None or len(value.shape) != 4:
            continue
        axes = reduction_axes(node)
        if axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
            continue
        shape = ir.Shape([value.shape[0], value.shape[1], 1, 1])
        pooled = ir.Node(
            "", "GlobalAveragePool", [value], name=node.name, outputs=[ir.Value(shape=shape, type=value.type)]
        )
        new = [pooled]
        if not node.attributes.get_int("keepdims", 1):
            axis = [ir.AttrInt64("axis", 1)]
            flat = _like(node.outputs[0])
            new.append(ir.Node("", "Flatten", [pooled.outputs[0]], axis, name="flatten", outputs=[flat]))
        model.graph.insert_before(node, new)
        ir.convenience.replace_all_uses_with(node.outputs[0], new[-1].outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def collapse_reshapes(model: ir.Model) -> None:
    """Of two reshapes in a row only the last counts; one that changes nothing is dropped."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type != "Reshape":
            continue
        target = constant(node.inputs[1])
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if target is None or 0 in target[1:] or list(target).count(-1) > 1:
            continue
        if before is not None and before.op_type in ("Reshape", "Flatten") and target[0] == -1:
            node.replace_input_with(0, before.inputs[0])
        value = node.inputs[0]
        if value is None or value.shape is None or len(value.shape) != len(target) or target[0] not in (-1, 0):
            continue
        if list(value.shape)[1:] == list(target)[1:]:
            ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
            model.graph.remove(node, safe=True)


def remove_unused(model: ir.Model) -> None:
    """Nodes and weights that no output depends on."""
    import onnx_ir.passes.common as common

    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)


def strip(model: ir.Model) -> None:
    """No stack traces, no source paths, no names of the machine that exported."""
    import onnx_ir.passes.common as common

    common.ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version, model.domain, model.doc_string = "edgezoo", None, None, None
    model.graph.name = "edgezoo"
    for domain in [name for name in model.opset_imports if name and name not in {node.domain for node in model.graph}]:
        del model.opset_imports[domain]


def rename(model: ir.Model) -> None:
    """Tensors are named for the layer that makes them, weights for the layer that uses them.

    A layer name is the node name the framework module set; what has none is named for its
    operator. The result depends on the graph alone, not on counters of the exporter's process.
    """
    graph = model.graph
    outputs = dict(zip(graph.outputs, ("logits",), strict=False))
    taken = {"input", *outputs.values()}
    graph.inputs[0].name = "input"
    initializers = list(graph.initializers.values())
    graph.initializers.clear()
    for node in graph:
        layer = re.sub(r"[^\w.\-]+", "_", node.name or node.op_type.lower()).strip("_")
        node.name = _unique(layer, taken)
        for index, output in enumerate(node.outputs):
            output.name = outputs.get(output) or (node.name if index == 0 else f"{node.name}.{index}")
        for index, value in enumerate(node.inputs):
            if value is not None and value in initializers:
                role = {1: "weight", 2: "bias"}.get(index) if node.op_type in ("Conv", "Gemm") else None
                value.name = _unique(f"{node.name}.{role or f'const{index}'}", taken)
                graph.register_initializer(value)
                initializers.remove(value)


PASSES: tuple[Callable[[Any], None], ...] = (
    optimize,
    channels_first,
    optimize,  # once more: with the transposes gone, more patterns meet
    hard_activations,
    fold_affine,
    matmul_to_gemm,
    global_pooling,
    collapse_reshapes,
    remove_unused,
    rename,
    strip,
)


# ---- helpers


def _channel_vector(array: Any, weights: Any) -> Any:
    """An array that holds one value per output channel, or one for all, as a vector; else None."""
    if array is None or weights is None or array.dtype != weights.dtype:
        return None
    channels = weights.shape[0]
    shape = (1,) * (4 - array.ndim) + array.shape
    if weights.ndim != 4 or array.ndim > 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The producer of a value, if it is that operator and nothing else reads the value."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and _read_once(node.outputs[0]) else None


def _like(value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    return ir.Value(name=None, shape=value.shape, type=value.type)


def _read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _set_weights(graph: ir.Graph, conv: ir.Node, weights: Any, bias: Any) -> None:
    inputs = [
        conv.inputs[0],
        *(initializer(graph, f"{conv.outputs[0].name}_{i}", a) for i, a in enumerate((weights, bias))),
    ]
    conv.resize_inputs(3)
    for index, value in enumerate(inputs):
        conv.replace_input_with(index, value)


def _set_batch(model: ir.Model, batch: int | None) -> None:
    import onnx_ir as ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([batch or "batch", *value.shape[1:]])


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
