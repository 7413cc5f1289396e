"""What makes an exported graph the one to deploy: pure steps from model to model.

Each pass is exact up to float rounding, and parity with the source framework is measured after
all of them. ``PASSES`` is the order; a row adds one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from exporters.ahead import affine_ahead
from exporters.dense import absorb_transposes, fold_scale, over_last_axis
from exporters.fusions import affine_maps, collapse_reshapes, flat_concat, fold_affine, hard_activations, matmul_to_gemm
from exporters.layout import to_channels_first
from exporters.leftovers import batch_norm, einsum, strided_copy
from exporters.optimizer import fold, optimize
from exporters.pooling import global_pooling, max_pool_padding
from exporters.shapes import check, infer_shapes
from exporters.transformers import gelu, layer_normalization
from runtime.errors import ExportFailed
from runtime.memory import give_back
from runtime.metadata import Layout

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYOUT = "edgezoo.layout"  # where `clean` leaves word of the input's layout for `channels_first`


def clean(proto: Any, *, opset: int, batch: int | None, layout: Layout | None = None) -> Any:
    """The deployable form of an exported model: NCHW input "input", output "logits", stable names.

    proto: an onnx.ModelProto, left as it is. batch: pictures per run, None for any number.
    layout: of the input as exported; None where one or three channels tell.
    Raises ExportFailed when the exporter changed the opset, when the graph is not one a classifier
    of one picture can have, or when the result is not valid ONNX.
    """
    import onnx
    import onnx_ir as ir

    written = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportFailed(f"the exporter wrote opset {written} instead of {opset}: choose --opset {written}")
    model = ir.from_proto(proto)
    _detach(model)
    if layout is not None and model.graph.inputs:
        model.graph.inputs[0].meta[_LAYOUT] = layout
    # With the shapes of the whole graph known the optimizer settles what an exporter computes from them.
    infer_shapes(model)
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
        infer_shapes(model, strict=True)
        check(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportFailed(f"the cleaned graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    cleaned = ir.to_proto(model)
    for value in model.graph.initializers.values():
        value.const_value = None  # onnxscript's matchers hold on to the last graph they saw: gigabytes, with weights
    give_back()
    return cleaned


def explain_layer(proto: Any) -> str | None:
    """The last convolutional map: name of the last 4-D tensor with an extent in space, before any pooling of it.

    Where maps lie channels-last or attention has four axes too (ConvNeXt, transformers) it is what the last
    GlobalAveragePool takes in, and None without one.

    proto: a cleaned onnx.ModelProto, shapes inferred.
    """
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.value_info
    }
    maps = {name for name, shape in shapes.items() if len(shape) == 4 and shape[2] * shape[3] > 1}
    if any(
        node.op_type in ("LayerNormalization", "MatMul", "Softmax") and len(shapes.get(node.output[0], ())) > 2
        for node in proto.graph.node
    ):
        pooled = [node.input[0] for node in proto.graph.node if node.op_type == "GlobalAveragePool"]
        return next((name for name in reversed(pooled) if name in maps), None)
    outputs = [
        node.output[0]
        for node in proto.graph.node
        if node.output[0] in maps
        and node.op_type not in ("Reshape", "Transpose", "MaxPool", "AveragePool", "Pad", "Dropout", "Identity")
    ]
    return outputs[-1] if outputs else None


# ---- the passes


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
    value = model.graph.inputs[0]
    shape = value.shape
    if shape is None or len(shape) != 4:
        return
    told = "NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"
    if value.meta.get(_LAYOUT, told) == "NHWC":
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
    _detach(model)  # tensors of a proto carry notes of their own
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
    fold,
    check_supported,
    strided_copy,
    einsum,
    over_last_axis,
    layer_normalization,
    gelu,
    channels_first,
    optimize,
    hard_activations,
    batch_norm,
    fold_affine,
    fold_scale,
    affine_ahead,
    affine_maps,
    matmul_to_gemm,
    flat_concat,
    absorb_transposes,
    global_pooling,
    max_pool_padding,
    collapse_reshapes,
    remove_unused,
    rename,
    strip,
)


# ---- helpers


def _detach(model: ir.Model) -> None:
    """Let the weights be read from the proto they lie in, uncopied, without their notes, and not renamed there."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.serde.TensorProtoTensor):
            value.const_value = ir.LazyTensor(
                partial(_itself, tensor), dtype=tensor.dtype, shape=tensor.shape, name=value.name
            )


def _itself(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor


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
