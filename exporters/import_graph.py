"""What an imported graph gets: one float32 input, scores as rows, the chosen output in front. In place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporters.import_read import is_external, nodes, tensors, true_inputs

FLOAT, FLOAT16 = 1, 10  # of onnx.TensorProto

RUNTIME_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})

# From the scores upwards, what changes their form or type and not what they are.
_TRANSPARENT = frozenset(
    "Identity Cast Reshape Flatten Squeeze Unsqueeze Dropout QuantizeLinear DequantizeLinear".split()
)


def load_external(proto: Any, folder: Any) -> int:
    """Read the tensors kept in other files; gives their number."""
    import onnx

    count = sum(is_external(tensor) for tensor in tensors(proto))
    if count:
        onnx.load_external_data_for_model(proto, str(folder))
    return count


def drop_weight_inputs(graph: Any) -> int:
    """Weights stop being inputs too, as they were before IR version 4; gives their number."""
    kept = {value.name for value in true_inputs(graph)}
    dropped = [index for index, value in enumerate(graph.input) if value.name not in kept]
    for index in reversed(dropped):
        del graph.input[index]
    return len(dropped)


def cast_input(proto: Any, to: int) -> str:
    """A float32 input and a Cast to what the graph takes; gives the new input's name.

    The tensor behind the Cast keeps its name: nodes of inner graphs may read it too.
    """
    import onnx

    (value,) = true_inputs(proto.graph)
    name = _unused(proto, f"{value.name}_float32")
    node = onnx.helper.make_node("Cast", [name], [value.name], name=name, to=to)
    value.name = name
    value.type.tensor_type.elem_type = FLOAT
    proto.graph.node.insert(0, node)
    return name


def reshape_output(proto: Any, shape: Sequence[int]) -> None:
    """The first output becomes rows (N, classes): a Reshape behind it; 0 in ``shape`` keeps an extent."""
    import numpy as np
    import onnx

    target = onnx.numpy_helper.from_array(np.array(shape, np.int64), _unused(proto, "edgezoo_rows"))
    proto.graph.initializer.append(target)
    _behind(proto, "Reshape", [target.name], suffix="rows", shape=shape)


def cast_output(proto: Any) -> None:
    """The first output becomes float32: a Cast behind it."""
    _behind(proto, "Cast", [], suffix="float32", to=FLOAT)


def output_first(graph: Any, name: str) -> None:
    """The named output comes first; the others follow in their order."""
    _assign(graph.output, sorted(graph.output, key=lambda value: value.name != name))


def name_domains(proto: Any) -> list[str]:
    """Domains of onnxruntime's own that nodes use and no opset is named for get the one version there is."""
    named = {entry.domain for entry in proto.opset_import} | {function.domain for function in proto.functions}
    missing = sorted({node.domain for node in nodes(proto)} & RUNTIME_DOMAINS - named)
    for domain in missing:
        proto.opset_import.add(domain=domain, version=1)
    return missing


def fix_batch(graph: Any, batch: int) -> None:
    """Freeze the first dimension of the input, and of the outputs whose first dimension has its name."""
    (value,) = true_inputs(graph)
    free = value.type.tensor_type.shape.dim[0].dim_param
    for entry in (value, *graph.output):
        dims = entry.type.tensor_type.shape.dim
        if len(dims) and (entry is value or (free and dims[0].dim_param == free)):
            dims[0].dim_value = batch


def name_free_dimensions(graph: Any) -> None:
    """-1, 0 or nothing, where an old converter meant "any", becomes a name."""
    (value,) = true_inputs(graph)
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.dim_value < 1 and not dim.dim_param:
            dim.dim_param = "batch" if axis == 0 else f"dim_{axis}"


def last_operator(graph: Any, output: str) -> str:
    """The operator that gives an output its values; "" where that is not one node of the graph itself."""
    makers = {name: node for node in graph.node for name in node.output if name}
    seen: set[str] = set()
    while (node := makers.get(output)) is not None and output not in seen:
        seen.add(output)
        if node.op_type not in _TRANSPARENT or not node.input:
            return str(node.op_type)
        output = node.input[0]
    return ""


def is_probability(operator: str) -> bool:
    """Whether an operator gives probabilities; LogSoftmax does not, its values do as logits."""
    return operator != "LogSoftmax" and ("Softmax" in operator or "Sigmoid" in operator)


def in_training(proto: Any) -> bool:
    """Whether a BatchNormalization takes its mean and variance from the batch that is run."""
    return any(
        attribute.name == "training_mode" and attribute.i
        for node in nodes(proto)
        if node.op_type == "BatchNormalization"
        for attribute in node.attribute
    )


def is_half(proto: Any) -> bool:
    """Whether any of it is held in float16."""
    values = (*proto.graph.input, *proto.graph.output)
    return any(tensor.data_type == FLOAT16 for tensor in tensors(proto)) or any(
        value.type.tensor_type.elem_type == FLOAT16 for value in values
    )


def is_quantized(proto: Any) -> bool:
    """Whether any of it computes in whole numbers."""
    return any(
        "Quantize" in node.op_type or "QLinear" in node.op_type or "Integer" in node.op_type for node in nodes(proto)
    )


# ---- helpers


def _behind(
    proto: Any, operator: str, more: list[str], *, suffix: str, shape: Sequence[int] = (), **attributes: Any
) -> None:
    import onnx

    value = proto.graph.output[0]
    name = _unused(proto, f"{value.name}_{suffix}")
    proto.graph.node.append(onnx.helper.make_node(operator, [value.name, *more], [name], name=name, **attributes))
    new = onnx.ValueInfoProto()
    new.CopyFrom(value)
    new.name = name
    new.type.tensor_type.elem_type = FLOAT  # a Cast sees to that; what is reshaped went through one, or was float32
    if operator == "Reshape":
        old = value.type.tensor_type.shape.dim
        new.type.tensor_type.ClearField("shape")
        for axis, extent in enumerate(shape):
            dim = new.type.tensor_type.shape.dim.add()
            if extent > 0:
                dim.dim_value = extent
            elif axis < len(old):
                dim.CopyFrom(old[axis])
    _assign(proto.graph.output, [new, *list(proto.graph.output)[1:]])


def _unused(proto: Any, name: str) -> str:
    graph = proto.graph
    taken = {value.name for values in (graph.input, graph.output, graph.initializer) for value in values}
    for node in nodes(proto):
        taken.update((*node.input, *node.output, node.name))
    while name in taken:
        name += "_"
    return name


def _assign(field: Any, values: Sequence[Any]) -> None:
    """A repeated field's new contents; copies first, since emptying the field empties what was in it."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
