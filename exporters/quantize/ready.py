"""The float32 network in the form that the search takes: for any number of pictures, tidied, with one output.

What edgezoo exports is tidy already. A file from elsewhere may hold its weights in nodes, normalisations beside their
layers, HardSwish in five operators and dense layers in two, none of which would run on integers; and sizes that it
computes from its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.ahead import affine_ahead
from exporters.fusions import affine_maps, collapse_reshapes, flat_concat, fold_affine, hard_activations, matmul_to_gemm
from exporters.graph import constant, initializer, input_at, operator
from exporters.import_graph import fix_batch
from exporters.import_opset import raised
from exporters.import_read import default_opset, true_inputs
from exporters.leftovers import batch_norm
from exporters.optimizer import fold, optimize
from exporters.parity import relative_error
from exporters.passes import remove_unused
from exporters.pooling import global_pooling
from exporters.quantize.network import Array, untyped
from exporters.quantize.pictures import Pictures
from exporters.shapes import infer_shapes
from exporters.source import FloatArray
from runtime.engines import open_session
from runtime.errors import InvalidInput

if TYPE_CHECKING:
    import onnx_ir as ir

_PASSES = (
    fold, optimize, hard_activations, batch_norm, fold_affine, affine_ahead, affine_maps, matmul_to_gemm, flat_concat,
    global_pooling, collapse_reshapes,
)  # fmt: skip
"""Of ``exporters.passes`` those that leave inputs, outputs and the names of layers as they are."""

_OPSET = 14  # the first with HardSwish
_SOME = 3  # pictures, to tell what hangs on their number
_ALIKE = 1e-4  # of the largest output: as near as exports have to come
_NOTHING = 1e-6  # apart: where every score is next to 0, a sigmoid in float32 gives no more than a digit of it


def frozen_batch(proto: Any) -> int | None:
    """The number of pictures that a network takes; None for any."""
    (given,) = true_inputs(proto.graph)
    return given.type.tensor_type.shape.dim[0].dim_value or None


def ready(proto: Any, pictures: Pictures, where: object, *, foreign: bool, outputs: int | None = 1) -> Any:
    """A float32 onnx.ModelProto for any number of pictures of one size; ``proto`` itself where it is that already.

    foreign: not exported by edgezoo; with HardSwish in pieces it comes out at the first opset that has it.
    outputs: how many of them are left, None for all.
    Raises InvalidInput where the answers would be others: where they hang on the number of pictures.
    """
    import onnx
    import onnx_ir as ir

    batch = frozen_batch(proto)
    if batch is None and not foreign:
        return proto
    own = onnx.ModelProto()
    own.CopyFrom(_with_hard_swish(proto) if foreign else proto)  # the passes rename what they find in it
    model = ir.from_proto(own)
    some = next(pictures.batches(_SOME))
    some = np.resize(some, (_SOME, *some.shape[1:]))
    (entry,), names = model.graph.inputs, [item.name for item in proto.graph.output][:outputs]
    while len(model.graph.outputs) > len(names):
        model.graph.outputs.pop()
    remove_unused(model)
    _resize(model, entry, [batch or "batch", *some.shape[1:]])
    for step in _PASSES if foreign else ():
        step(model)
    if batch is not None:
        _resize(model, entry, [batch, *some.shape[1:]])
        _free(model.graph, batch)
    _resize(model, entry, ["batch", *some.shape[1:]])
    _settle(model, some)
    remove_unused(model)
    as_many = np.resize(some, (batch or _SOME, *some.shape[1:]))
    wanted = open_session(proto.SerializeToString()).run(names, {entry.name: as_many})
    for output, name, exact in zip(model.graph.outputs, names, wanted, strict=True):
        output.name, output.shape = name, ir.Shape(["batch", *exact.shape[1:]])
    made = ir.to_proto(model)
    for count in (1, _SOME):
        got = _run(made, names, some[:count])
        if got is None or not all(_alike(*pair, count) for pair in zip(got, wanted, strict=True)):
            runs = "1 picture" if batch == 1 else f"{batch or 'any number of'} pictures"
            free = "for any number, and without non-maximum suppression" if foreign else "with --batch dynamic"
            raise InvalidInput(f"{where}: for {runs}, and its answers hang on that: export it {free}")
    return made


def _with_hard_swish(proto: Any) -> Any:
    """The network at the opset that HardSwish needs, where it has any in pieces; itself where not, or if it must be."""
    import onnx_ir as ir

    newer = raised(proto, _OPSET)[0] if default_opset(proto) < _OPSET else proto
    if newer is proto:
        return proto
    model = ir.from_proto(newer)
    for step in (fold, hard_activations):
        step(model)
    found = any(operator(node) == "HardSwish" for node in model.graph)
    return raised(proto, _OPSET)[0] if found else proto


def frozen(proto: Any, batch: int | None) -> Any:
    """The network for that number of pictures again; itself for any."""
    import onnx

    if batch is None:
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    fix_batch(made.graph, batch)
    return made


def _alike(got: Array, wanted: Array, count: int) -> bool:
    """Whether these are answers to ``count`` pictures, and to those that both were asked about the same."""
    if not (got.ndim and wanted.ndim and len(got) == count):
        return False
    both = got[: len(wanted)], wanted[: len(got)]
    if both[0].shape != both[1].shape:
        return False
    return relative_error(*both) <= _ALIKE or bool(np.abs(both[0] - both[1]).max() <= _NOTHING)


def _run(proto: Any, outputs: Sequence[str], pixels: FloatArray) -> list[Array] | None:
    """What the network gives; None for what it cannot take."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

    session = open_session(proto.SerializeToString())
    try:
        return list(session.run(outputs, {session.get_inputs()[0].name: pixels}))
    except (Fail, InvalidArgument, RuntimeException):
        return None


def _resize(model: ir.Model, entry: ir.Value, shape: list[int | str]) -> None:
    """Another input, and shapes worked out anew."""
    import onnx_ir as ir

    entry.shape = ir.Shape(shape)
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
    infer_shapes(model)


def _free(graph: ir.Graph, batch: int) -> None:
    """Reshapes for so many pictures are for as many as there are.

    Also where places and pictures lie on one axis, as onnx's converter puts them for Softmax of old opsets.
    """
    for node in graph:
        target = constant(node.inputs[1]) if operator(node) == "Reshape" else None
        given = node.inputs[0].shape if target is not None and node.inputs[0] is not None else None
        if target is None or not target.size or given is None or not len(given):
            continue
        merged = (target > 0).all() and target[0] % batch == 0 and given.is_static() and given[0] != target[0]
        if target[0] == given[0] == batch or merged:
            _retarget(graph, node, target)
    for node in graph:
        if operator(node) == "Resize":
            _rescale(graph, node, batch)


def _rescale(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """Let a Resize to given sizes, the number of pictures among them, multiply its input's."""
    sizes, given = constant(input_at(node, 3)), node.inputs[0].shape if node.inputs[0] is not None else None
    told = "axes" in node.attributes or node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
    if sizes is None or told or given is None or not given.is_static() or not sizes[0] == given[0] == batch:
        return
    before = np.array(given.numpy(), np.float32)
    scales = sizes.astype(np.float32) / before
    short = np.floor(before * scales) < sizes  # what onnxruntime would make of it
    scales[short] = np.nextafter(scales[short], np.float32(np.inf))
    node.replace_input_with(2, initializer(graph, f"{node.name}::scales", scales))
    node.replace_input_with(3, None)


def _settle(model: ir.Model, some: FloatArray) -> None:
    """Reshapes to what is computed from sizes: all but the number of pictures is known."""
    import onnx_ir as ir

    nodes = [node for node in model.graph if operator(node) == "Reshape" and constant(node.inputs[1]) is None]
    if not nodes:
        return
    proto, names = ir.to_proto(model), [str(node.inputs[1].name) for node in nodes if node.inputs[1] is not None]
    own = [item.name for item in proto.graph.output]
    proto.graph.output.extend(untyped(name) for name in dict.fromkeys(names) if name not in own)
    found = [_run(proto, names, some[:count]) for count in (1, _SOME)]
    for node, *targets in zip(nodes, *[each or [] for each in found], strict=False):
        if not all(target.size for target in targets) or (targets[0][1:] != targets[1][1:]).any():
            continue
        one, three = (int(target[0]) for target in targets)
        if three == _SOME * one > 0 and (one == 1 or -1 not in targets[0]):
            _retarget(model.graph, node, targets[0])


def _retarget(graph: ir.Graph, node: ir.Node, target: Array) -> None:
    """Let a Reshape keep the number of pictures as it comes."""
    kept = target.astype(np.int64)
    kept[0] = 0 if -1 in kept[1:] else -1
    if kept[0] == 0:
        node.attributes.pop("allowzero", None)
    node.replace_input_with(1, initializer(graph, f"{node.name}::shape", kept))
