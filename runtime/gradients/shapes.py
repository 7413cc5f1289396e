"""Shapes and types of a model's tensors, without its weights: from onnx, and from onnxruntime where that knows more."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import InvalidArtifact

Dim = int | str | None  # an extent, the name of one known at run time, or unknown
Shape = tuple[Dim, ...]

SMALL = 1024  # bytes; a constant above it is a weight, whose values no shape depends on


def weightless(model: Any) -> Any:
    """A copy of the model whose larger weights are inputs: neither protobuf's limit nor a copy of them matters."""
    import onnx

    bare, kept = onnx.ModelProto(), [tensor for tensor in model.graph.initializer if _bytes(tensor) <= SMALL]
    bare.ir_version, graph = model.ir_version, model.graph
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = graph.name or "graph"
    bare.graph.node.extend(graph.node)
    bare.graph.input.extend(graph.input)
    bare.graph.output.extend(graph.output)
    bare.graph.initializer.extend(kept)
    bare.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in graph.initializer
        if _bytes(tensor) > SMALL and tensor.name not in {value.name for value in graph.input}
    )
    return bare


def _bytes(tensor: Any) -> int:
    return 4 * int(np.prod(tensor.dims, dtype=np.int64))


def infer(bare: Any, model: Any) -> dict[str, tuple[int, Shape | None]]:
    """What onnx infers of a weightless model; weights and inputs as they are declared."""
    import onnx

    for node in bare.graph.node:
        _stand_in(node)
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    found = {value.name: _read(value) for value in (*inferred.value_info, *inferred.output, *inferred.input)}
    found |= {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer}
    return {name: known for name, known in found.items() if known[0]}


def _stand_in(node: Any) -> None:
    """Put an operator of the same shapes in the place of one of 2018, of which nothing but its kernel is left."""
    from onnx import helper

    if node.op_type in ("Affine", "ImageScaler") and not node.domain:
        node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    if node.op_type == "Crop" and not node.domain:
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        left, top, right, bottom = settings["border"]
        ends = [-bottom or 2**31 - 1, -right or 2**31 - 1]
        if "scale" in settings:
            ends = [top + settings["scale"][0], left + settings["scale"][1]]
        node.CopyFrom(helper.make_node("Slice", node.input, node.output, starts=[top, left], ends=ends, axes=[2, 3]))


def _read(value: Any) -> tuple[int, Shape | None]:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return kind.elem_type, None
    dims = kind.shape.dim
    return kind.elem_type, tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)


def ask_onnxruntime(model: Any, names: list[str]) -> dict[str, tuple[int, Shape | None]]:
    """Types and shapes as onnxruntime knows them: of its own operators too, of which onnx knows nothing."""
    import onnx
    import onnxruntime

    bare = weightless(model)
    del bare.graph.output[:]
    bare.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidArtifact(f"onnxruntime cannot open the model: {str(error).splitlines()[0]}") from error
    types = {f"tensor({name})": number for name, number in TYPES.items()}
    # onnxruntime says [] of a scalar and of a shape it does not know: a scalar has been found by onnx already.
    return {
        value.name: (types.get(value.type, 0), tuple(value.shape) if value.shape else None)
        for value in session.get_outputs()
    }


TYPES = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip
