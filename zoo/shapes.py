"""The shape of every value of an ONNX graph, from its weights' shapes alone: 2 GiB of weights weigh nothing here.

The shapes are those of onnx's own inference. Where it stops at an operator that ONNX does not define, a stand-in of
known behaviour takes the operator's place; what has none stays unknown, and so does all that depends on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidArtifact, InvalidInput
from runtime.onnxfile import check_file
from zoo.stand_ins import Shape, attributes, become, settle_pools, stand_in

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_SMALL = 1024
"""Numbers. A longer tensor is a weight; a shorter one may be a shape, whose values the inference must know."""

_PLAIN = (1, 6, 7, 9, 11)  # onnx.TensorProto: FLOAT, INT32, INT64, BOOL, DOUBLE

# What exporters work out shapes with. None of them makes more numbers than it takes, broadcasting apart.
_ARITHMETIC = frozenset(
    "Add Sub Mul Div Mod Neg Min Max Floor Ceil Cast Identity Concat Gather Slice Squeeze Unsqueeze Reshape ReduceProd "
    "Equal Greater Less Not And Or Where".split()
)


def read(path: str | os.PathLike[str]) -> ModelProto:
    """A model file; of weights beside it only the short ones, which may be shapes.

    Raises ArtifactNotFound or InvalidArtifact.
    """
    path = Path(path)
    check_file(path)
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_tensor

    try:
        proto = onnx.load_model(path, load_external_data=False)
        for tensor in _tensors(proto.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL and prod(tensor.dims) <= _SMALL:
                load_external_data_for_tensor(tensor, str(path.parent))
                tensor.data_location = onnx.TensorProto.DEFAULT
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArtifact(f"{path}: cannot be read ({reason}): export it again, or get a whole copy") from error
    return proto


def stored_bytes(path: str | os.PathLike[str], proto: ModelProto) -> int:
    """Bytes on disk: the file and every file its weights are in."""
    path = Path(path)
    entries = (entry for tensor in _tensors(proto.graph) for entry in tensor.external_data)
    files = {(path.parent / entry.value).resolve() for entry in entries if entry.key == "location"}
    return sum(file.stat().st_size for file in {path.resolve(), *files})


def free_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs a caller feeds: old files list the weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def shape_of(value: ValueInfoProto) -> list[int | None] | None:
    """The shape a value declares, None for a free axis; None where it declares none."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in dims]


def skeleton(proto: ModelProto) -> ModelProto:
    """The model without its weights' values, its local functions written out in place."""
    import onnx
    from onnx.inliner import inline_local_functions

    thin = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    _thin_graph(proto.graph, thin.graph)
    return inline_local_functions(thin) if thin.functions else thin


def infer(proto: ModelProto, *, batch: int, size: tuple[int, int] | None) -> tuple[dict[str, Shape], str | None]:
    """Value name -> shape, of every value whose shape is known; and why onnx refused the graph, if it did.

    proto: a `skeleton`, left as it is. batch: what a free first axis of an input becomes.
    size: (height, width) for the free ones of a picture.
    Raises InvalidInput for a size that the inputs do not take.
    """
    import onnx

    work = onnx.ModelProto()
    work.CopyFrom(proto)
    changed = _fix_inputs(work.graph, batch, size)
    stated = {} if changed else {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    del work.graph.value_info[:]
    for value in work.graph.output:
        value.ClearField("type")
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    for node in work.graph.node:
        stand_in(node, opset)
    try:
        shapes = _settle(work)
        while _believe(work.graph, shapes, stated):
            shapes = _settle(work)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return _known(work.graph), str(error).strip().splitlines()[0]
    return shapes, None


def _settle(work: ModelProto) -> dict[str, Shape]:
    """Infer, mend what onnx gets wrong or gives up on, and again until nothing changes."""
    import onnx

    values: dict[str, npt.NDArray[Any]] = {}
    while True:
        shapes = _known(onnx.shape_inference.infer_shapes(work, data_prop=True).graph)
        settled = settle_pools(work.graph, shapes)
        if not _fold(work, shapes, values) and not settled:
            return shapes


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs inside a node: the branches of an If, the body of a Loop."""
    return [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]


# ---- helpers


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor stored in a graph and in the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _thin_graph(graph: GraphProto, thin: GraphProto) -> None:
    """Copied piece by piece: nothing above 2 GiB can be copied, or handed to the inference, as a whole."""
    thin.name = graph.name
    for field in ("input", "output", "value_info", "sparse_initializer"):
        getattr(thin, field).extend(getattr(graph, field))
    for tensor in graph.initializer:
        _thin_tensor(tensor, thin.initializer.add())
    for node in graph.node:
        copy = thin.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        copy.input.extend(node.input)
        copy.output.extend(node.output)
        for attribute in node.attribute:
            slot = copy.attribute.add(name=attribute.name, type=attribute.type)
            if attribute.HasField("t"):
                _thin_tensor(attribute.t, slot.t)
            elif attribute.HasField("g"):
                _thin_graph(attribute.g, slot.g)
            elif attribute.graphs:
                for inner in attribute.graphs:
                    _thin_graph(inner, slot.graphs.add())
            else:
                slot.CopyFrom(attribute)


def _thin_tensor(tensor: TensorProto, thin: TensorProto) -> None:
    if prod(tensor.dims) <= _SMALL and tensor.data_location != tensor.EXTERNAL:
        thin.CopyFrom(tensor)
    else:
        thin.name, thin.data_type = tensor.name, tensor.data_type
        thin.dims.extend(tensor.dims)


def _fix_inputs(graph: GraphProto, batch: int, size: tuple[int, int] | None) -> bool:
    """Give the free axes of the inputs their lengths; whether there were any."""
    changed, taken = False, size is None
    for value in free_inputs(graph):
        shape = shape_of(value)
        if shape is None:
            continue
        wanted: dict[int, int] = {0: batch} if shape and shape[0] is None else {}
        if len(shape) == 4 and size is not None:
            # Channels are 1, 3 or 4; where they stand says what the other axes are.
            first = 1 if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else 2
            for axis, length in zip((first, first + 1), size, strict=True):
                if shape[axis] not in (None, length):
                    fixed = "x".join(str(shape[axis] or "any") for axis in (first, first + 1))
                    raise InvalidInput(f"input {value.name} is fixed to {fixed}: leave the input size out")
                wanted[axis] = length
            taken = True
        for axis, length in wanted.items():
            changed |= shape[axis] is None
            value.type.tensor_type.shape.dim[axis].dim_value = length
    if not taken:
        raise InvalidInput("no input is a picture of four axes: leave the input size out")
    return changed


def _believe(graph: GraphProto, shapes: dict[str, Shape], stated: dict[str, ValueInfoProto]) -> bool:
    """Take the file's word for what an operator makes that onnx does not know; of all else it may be wrong.

    stated: what the file says, taken out of as it is used. Whether there was any.
    """
    outputs, changed = {value.name: value for value in graph.output}, False
    for node in graph.node:
        if all(name in shapes for name in node.input if name):
            for name in [name for name in node.output if name not in shapes and name in stated]:
                value = stated.pop(name)
                if None not in (shape_of(value) or (None,)):
                    changed = True
                    (outputs[name] if name in outputs else graph.value_info.add()).CopyFrom(value)
    return changed


def _fold(proto: ModelProto, shapes: dict[str, Shape], values: dict[str, npt.NDArray[Any]]) -> bool:
    """Turn what is computed from shapes into constants, where onnx's own propagation of data gave up; whether any was.

    values: the short constants known so far, added to.
    """
    from onnx import numpy_helper

    graph, changed = proto.graph, False
    if all(name in shapes for node in graph.node for name in node.output[:1]):
        return False
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for name, tensor in constants.items():
        if name not in values and tensor.data_type in _PLAIN and prod(tensor.dims) <= _SMALL:
            with suppress(ValueError):  # without its data, which is in another file
                values[name] = numpy_helper.to_array(tensor)
    for node in graph.node:
        given = attributes(node)
        if node.domain not in ("", "ai.onnx") or any(name in values for name in node.output):
            continue
        if node.op_type == "Shape" and node.input[0] in shapes:
            part = slice(*(given[name].i if name in given else None for name in ("start", "end")))
            result: npt.NDArray[Any] = np.array(shapes[node.input[0]][part], np.int64)
        elif node.op_type in _ARITHMETIC and all(name in values for name in node.input if name):
            try:
                result = _evaluate(node, proto, {name: values[name] for name in node.input if name})
            except Exception:  # noqa: BLE001, S112 - whatever numpy says of a foreign graph: it stays unknown
                continue
        else:
            continue
        if np.size(result) <= _SMALL:
            changed = True
            values[node.output[0]] = np.asarray(result)
            become(node, "Constant", (), value=numpy_helper.from_array(values[node.output[0]]))
    return changed


def _evaluate(node: NodeProto, proto: ModelProto, feeds: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What one node makes of these inputs, by onnx's own reference implementation in the model's opset."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "one", inputs, [helper.make_empty_tensor_value_info(node.output[0])])
    (result,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=proto.opset_import)).run(None, feeds)
    return np.asarray(result)


def _known(graph: GraphProto) -> dict[str, Shape]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = shape_of(value)
        if shape is not None and None not in shape:
            shapes[value.name] = tuple(length for length in shape if length is not None)
    return shapes
