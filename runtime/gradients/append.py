"""A model with its gradients: the public door of this package."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.errors import InvalidInput, UnknownName
from runtime.gradients.builder import FLOATS, Builder, Tensor
from runtime.gradients.graph import Graph
from runtime.gradients.seeds import ByIndex, Seed, make_seed
from runtime.gradients.sweep import sweep

if TYPE_CHECKING:
    import onnx


def gradient_name(tensor: str) -> str:
    """The name of the output that holds the gradient with respect to a tensor."""
    return f"{tensor}::gradient"


def add_gradients(
    model: onnx.ModelProto,
    wrt: Sequence[str],
    *,
    of: str | None = None,
    seed: Seed | None = None,
    keep: Sequence[str] = (),
    plain: bool = True,
) -> onnx.ModelProto:
    """A new model that also computes d(sum(seed * of)) / d(tensor) for every tensor in ``wrt``.

    model: stays as it is; the result shares nothing with it. Its own inputs and outputs come first, in their order.
    wrt: names of tensors: the input, activations. of: a float tensor, by default the model's only output.
    seed: a class by index (the default), weights for the whole of ``of``, or a tensor of the graph; see ``seeds``.
    keep: tensors to give out as they are. plain: False leaves the model's own outputs out.

    The gradient of ``conv5`` is the output ``conv5::gradient``, of the same shape and type; where ``conv5`` holds
    integers it is a float32, per step of their grid.

    Raises UnknownName for a tensor that is not there, InvalidInput for a request that makes no sense, NoGradient
    where nothing differentiable leads to a tensor, UnsupportedOperator for an operator without a rule and
    InvalidArtifact where a shape has to be known and is not.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    if model.functions:
        model = inline_local_functions(model)
    graph = Graph(model)
    of = _only_output(graph) if of is None else of
    for name in (of, *wrt, *keep):
        _check_name(graph, name)
    if not wrt or len({*wrt}) != len(wrt):
        raise InvalidInput("wrt: give one or more tensors, each once")
    builder = Builder(graph)
    target = builder.tensor(of)
    if target.dtype not in FLOATS:
        raise InvalidInput(f"{of!r} holds no floats: choose another tensor to differentiate")
    weights, inputs, defaults = make_seed(seed or ByIndex(), target, builder)
    grads = sweep(graph, of, weights, wrt, builder)
    whole = {name: builder.expand(grad, _float(builder.tensor(name), grad)) for name, grad in grads.items()}

    made = onnx.ModelProto()
    made.CopyFrom(model)
    _renew(made)
    made.graph.input.extend(inputs)
    made.graph.initializer.extend(defaults)
    made.graph.node.extend(_named(builder, whole))
    own = list(made.graph.output) if plain else []
    del made.graph.output[:]
    made.graph.output.extend(own)
    given = {value.name for value in own}
    made.graph.output.extend(_value(builder.tensor(name)) for name in keep if name not in given)
    made.graph.output.extend(_value(tensor, gradient_name(name)) for name, tensor in whole.items())
    return made


def readable(model: onnx.ModelProto, tensor: str) -> str:
    """The name under which an activation can be read, and differentiated, without undoing integer kernels.

    In a QDQ file the float before QuantizeLinear exists only inside a kernel; what DequantizeLinear makes of the
    integers is the same activation.
    """
    graph = Graph(model)
    _check_name(graph, tensor)
    return graph.dequantized(tensor) or tensor


def _only_output(graph: Graph) -> str:
    if len(graph.outputs) != 1:
        raise InvalidInput(f"the model has {len(graph.outputs)} outputs: choose one of {', '.join(graph.outputs)}")
    return str(graph.outputs[0])


def _check_name(graph: Graph, name: str) -> None:
    if name not in graph:
        near = difflib.get_close_matches(name, [*graph.inputs, *graph.maker], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "the names are those of the graph's tensors"
        raise UnknownName(f"the model has no tensor {name!r}: {hint}")


def _float(tensor: Tensor, grad: Tensor) -> Tensor:
    """The tensor, as far as the shape of its gradient goes."""
    return Tensor(tensor.name, tensor.shape, grad.dtype, tensor.builder)


def _renew(model: Any) -> None:
    """Before IR version 4 every weight was an input; then it would now be one that can be overridden."""
    if model.ir_version >= 4:
        return
    model.ir_version = 4
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _named(builder: Builder, grads: dict[str, Tensor]) -> list[Any]:
    """The nodes that the gradients need, under the names of the outputs."""
    needed, kept = {tensor.name for tensor in grads.values()}, []
    for node in reversed(builder.nodes):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    made = {name for node in kept for name in node.output}
    names: dict[str, str] = {}
    for name, tensor in grads.items():
        if tensor.name in made and tensor.name not in names:
            names[tensor.name] = gradient_name(name)
        else:  # one gradient for two tensors, or the seed itself
            kept.append(_identity(names.get(tensor.name, tensor.name), gradient_name(name)))
    for node in kept:
        for entries in (node.input, node.output):
            entries[:] = [names.get(entry, entry) for entry in entries]
    return kept


def _identity(given: str, made: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [given], [made], name=made)


def _value(tensor: Tensor, name: str | None = None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name or tensor.name, tensor.dtype, list(tensor.shape))
