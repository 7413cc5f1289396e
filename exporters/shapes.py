"""Shape inference and the checker without the weights.

Both are C++ behind a serialised model, which protobuf limits to 2 GiB and which costs several copies of all weights.
Neither looks at a weight's values, only at its type and shape; small tensors, which may hold a shape, stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

_KEPT_BELOW = 1024  # bytes; a target of a Reshape has 8 per axis


def infer_shapes(model: ir.Model, *, strict: bool = False) -> None:
    """Give every value of the graph the type and shape that onnx infers, in place.

    With ``strict`` a contradiction raises onnx.shape_inference.InferenceError.
    """
    import onnx
    import onnx_ir as ir

    inferred = onnx.shape_inference.infer_shapes(weightless(model), strict_mode=strict, data_prop=True)
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph:
        for output in node.outputs:
            if (value := known.get(output.name or "")) is None:
                continue
            output.type = ir.serde.deserialize_type_proto_for_type(value.type)
            output.shape = ir.serde.deserialize_type_proto_for_shape(value.type)


def check(model: ir.Model) -> None:
    """Raise onnx.checker.ValidationError or InferenceError unless the model is valid ONNX."""
    import onnx

    onnx.checker.check_model(weightless(model), full_check=True)


def weightless(model: ir.Model) -> Any:
    """The model as an onnx.ModelProto whose larger initializers are inputs instead; the model stays as it is."""
    import onnx_ir as ir

    graph = model.graph
    heavy = [value for value in graph.initializers.values() if _bytes(value) >= _KEPT_BELOW]
    before = list(graph.inputs)
    everything = list(graph.initializers.values())
    for value in heavy:
        graph.initializers.pop(value.name)  # type: ignore[arg-type]  # an initializer has a name
    graph.inputs.extend(value for value in heavy if value not in before)
    try:
        return ir.to_proto(model)
    finally:
        graph.inputs[:] = before
        graph.initializers.clear()
        for value in everything:  # in their old order
            graph.register_initializer(value)


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0
