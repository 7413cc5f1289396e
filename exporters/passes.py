"""What makes an exported graph the one to deploy: pure steps from model to model.

Each pass is exact up to float rounding, and parity with the source framework is measured after
all of them. ``PASSES`` is the order; a row adds one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exporters.dense import absorb_transposes
from exporters.fusions import collapse_reshapes, fold_affine, hard_activations, matmul_to_gemm
from exporters.layout import to_channels_first
from exporters.pooling import global_pooling, max_pool_padding
from runtime.errors import ExportFailed

if TYPE_CHECKING:
    import onnx_ir as ir


def clean(proto: Any, *, opset: int, batch: int | None) -> Any:
    """The deployable form of an exported model: NCHW input "input", output "logits", stable names.

    proto: an onnx.ModelProto, left as it is. batch: pictures per run, None for any number.
    Raises ExportFailed when the exporter changed the opset, when the graph is not one a classifier
    of one picture can have, or when the result is not valid ONNX.
    """
    import onnx
    import onnx_ir as ir

    written = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportFailed(f"the exporter wrote opset {written} instead of {opset}: choose --opset {written}")
    # With the shapes of the whole graph known the optimizer settles what an exporter computes from them.
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    for index, node in enumerate(model.graph):  # unique, or the optimizer would number them; `rename` takes this off
        node.name = f"{node.name or node.op_type.lower()}#{index}"
    for step in PASSES:
        step(model)
    _set_batch(model, batch)
    # Shapes of the intermediate values are worked out anew: some moved from NHWC to NCHW.
    for node in model.graph:
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    try:
        result = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportFailed(f"the cleaned graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    return result


def explain_layer(proto: Any) -> str | None:
    """The last convolutional map: name of the last 4-D tensor with an extent in space, before any pooling of it.

    proto: a cleaned onnx.ModelProto, shapes inferred.
    """
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.value_info
    }
    maps = [
        node.output[0]
        for node in proto.graph.node
        if len(shape := shapes.get(node.output[0], [])) == 4
        and shape[2] * shape[3] > 1
        and node.op_type not in ("Reshape", "Transpose", "MaxPool", "AveragePool", "Pad", "Dropout", "Identity")
    ]
    return maps[-1] if maps else None


# ---- the passes


def optimize(model: ir.Model) -> None:
    """Fold constants and BatchNorm, drop dead nodes: onnxscript's optimizer and its rewrite rules."""
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model)


def check_supported(model: ir.Model) -> None:
    """Refuse what the passes, the quantizer and the gradients have no answer for.

    That is: control flow, operators ONNX does not define, several inputs or outputs, and an
    output that no operator computes. Raises ExportFailed naming it.
    """
    import onnx
    import onnx_ir as ir

    opset = model.opset_imports[""]
    for node in model.graph:
        where = f"{node.op_type} (layer {_layer(node)})"
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            raise ExportFailed(f"{where}: networks with control flow are not supported")
        if node.domain or not onnx.defs.has(node.op_type, opset, ""):
            raise ExportFailed(f"{where}: the exporter left an operator that ONNX opset {opset} does not have")
    for kind, values in (("input", model.graph.inputs), ("output", model.graph.outputs)):
        if len(values) != 1 or values[0].shape is None:
            names = ", ".join(str(value.name) for value in values)
            raise ExportFailed(f"one {kind} of known shape is needed, the exporter wrote {len(values)}: {names}")
    if model.graph.outputs[0].producer() is None:
        raise ExportFailed("no operator computes the output: the network is empty")


def channels_first(model: ir.Model) -> None:
    """An NHWC picture input becomes NCHW; the transposes inside disappear."""
    shape = model.graph.inputs[0].shape
    if shape is not None and len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        to_channels_first(model)


def remove_unused(model: ir.Model) -> None:
    """Nodes and weights that no output depends on."""
    import onnx_ir.passes.common as common

    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)


def strip(model: ir.Model) -> None:
    """No stack traces, no source paths, no names of the machine that exported."""
    import onnx_ir as ir

    graph = model.graph
    for value in graph.initializers.values():  # tensors of a proto carry notes of their own that cannot be cleared
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype, name=value.name)
    outputs = [output for node in graph for output in node.outputs]
    attributes = [attribute for node in graph for attribute in node.attributes.values()]
    for item in (model, graph, *graph, *graph.inputs, *graph.initializers.values(), *outputs, *attributes):
        item.doc_string = None
        if not isinstance(item, ir.Attr):
            item.metadata_props.clear()
    model.producer_name, model.producer_version, model.domain, model.model_version = "edgezoo", None, None, None
    graph.name = "edgezoo"
    for domain in [name for name in model.opset_imports if name]:  # check_supported left no other operators
        del model.opset_imports[domain]


def rename(model: ir.Model) -> None:
    """Tensors are named for the layer that makes them, weights for the layer that uses them.

    A layer name is the node name the framework module set; what has none is named for its
    operator. Of several nodes of a layer the last bears its plain name, so that "features.18" is
    what the layer gives, and those before it their operator too: "features.18.conv". The result
    depends on the graph alone, not on counters of the exporter's process.
    """
    graph = model.graph
    (graph_output,) = graph.outputs
    taken = {"input", "logits"}
    graph.inputs[0].name = "input"
    nameless = set(graph.initializers.values())
    graph.initializers.clear()
    layers = [_layer(node) for node in graph]
    last = {layer: index for index, layer in enumerate(layers)}
    for position, (node, layer) in enumerate(zip(graph, layers, strict=True)):
        operator = node.op_type.lower()
        node.name = _unique(layer if last[layer] == position or layer == operator else f"{layer}.{operator}", taken)
        for index, output in enumerate(node.outputs):
            if output is graph_output:
                output.name = "logits"
            elif output.name:  # an optional output that is left out has none, and must not get one
                output.name = node.name if index == 0 else _unique(f"{node.name}.{index}", taken)
        for index, value in enumerate(node.inputs):
            if value is not None and value in nameless:
                role = {1: "weight", 2: "bias"}.get(index) if node.op_type in ("Conv", "Gemm") else None
                value.name = _unique(f"{node.name}.{role or f'const{index}'}", taken)
                graph.register_initializer(value)
                nameless.remove(value)


PASSES: tuple[Callable[[Any], None], ...] = (
    optimize,
    check_supported,
    channels_first,
    optimize,  # once more: with the transposes gone, more patterns meet
    hard_activations,
    fold_affine,
    matmul_to_gemm,
    absorb_transposes,
    global_pooling,
    max_pool_padding,
    collapse_reshapes,
    remove_unused,
    rename,
    strip,
)


# ---- helpers


def _set_batch(model: ir.Model, batch: int | None) -> None:
    import onnx_ir as ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([batch or "batch", *value.shape[1:]])


def _layer(node: ir.Node) -> str:
    """The layer a node was named for, in characters that are safe everywhere; its operator if it has none."""
    given = (node.name or "").partition("#")[0]
    if re.fullmatch(rf"node_{node.op_type}_\d+", given):  # onnx_ir's own
        given = ""
    return re.sub(r"[^\w.\-]+", "_", given, flags=re.ASCII).strip("_") or node.op_type.lower()


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
