"""From a Keras network to ONNX: trace it with its weights as arguments, let tf2onnx translate the operators.

TensorFlow and tf2onnx see placeholders where the weights are, so neither copies, freezes or searches them, and the
2 GiB a TensorFlow graph may have do not matter; the weights join the ONNX graph at the end. tf2onnx's own
optimizers are left out: ``exporters.passes`` does what they do in a fraction of their time. Two things tf2onnx has
no answer for are settled here: functions compiled apart, as Keras' grouped convolutions are, and Erfc, which Keras'
exact GELU is made of and ONNX does not have.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from exporters.hub import first_line
from exporters.source import package_version
from runtime.errors import ExportFailed

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True, slots=True)
class Conversion:
    """A network on its way to ONNX.

    road: what converts it, for its provenance.
    """

    road: str
    model: Any
    shape: tuple[int, int, int]
    traced: Traced

    def convert(self, opset: int, batch: int | None) -> Any:
        """An onnx.ModelProto whose nodes are named for the network's layers, input NHWC, output logits.

        batch: pictures per run, None for any number. Raises ExportFailed.
        """
        from onnx import numpy_helper

        traced = _trace(self.model, batch, self.shape) if batch else self.traced
        names = [tensor.name for tensor in traced.graph.inputs]
        proto = to_onnx(
            traced.graph,
            {name: f"weight_{index}" if index else "input" for index, name in enumerate(names)},
            traced.graph.outputs[0].name,
            opset,
        )
        inputs = {value.name: value for value in proto.graph.input}
        del proto.graph.input[:]
        proto.graph.input.append(inputs.pop("input"))
        for index, weight in enumerate(traced.weights, start=1):
            if (name := f"weight_{index}") in inputs:
                proto.graph.initializer.append(numpy_helper.from_array(np.asarray(weight), name))
        _name_layers(proto, self.model)
        return proto


def prepare(model: Any, shape: tuple[int, int, int]) -> Conversion:
    """Trace a Keras model for pictures of ``shape`` (channels, height, width) and say how it will be converted.

    Raises ExportFailed.
    """
    traced = _trace(model, None, shape)
    return Conversion(road(traced.graph, inlined=traced.inlined), model, shape, traced)


def road(graph: Any, *, inlined: bool = False) -> str:
    """What converts a TensorFlow graph, for its provenance: tf2onnx, and what is done for it where it needs that."""
    steps = [f"tf2onnx {package_version('tf2onnx')}"]
    if inlined:
        steps.append("functions inlined")
    if any(operation.type == "Erfc" for operation in graph.get_operations()):
        steps.append("Erfc as 1 - Erf")
    return ", ".join(steps)


def to_onnx(graph: Any, inputs: dict[str, str], output: str, opset: int) -> Any:
    """A TensorFlow graph as an onnx.ModelProto, unoptimized.

    inputs: names of its tensors -> names of the ONNX inputs. output: the tensor that becomes the output.
    Raises ExportFailed.
    """
    import tf2onnx

    try:
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            opset=opset,
            custom_op_handlers={"Erfc": (_erfc, []), "Reshape": (_reshape, [])},
            input_names=list(inputs),
            output_names=[output],
            tensors_to_rename=inputs,
        )
        return converted.make_model("keras")
    except Exception as error:
        raise ExportFailed(f"tf2onnx failed: {first_line(error)}") from error


# ---- tracing


class Traced(NamedTuple):
    """A network as a TensorFlow graph of plain operators.

    weights: what the graph's inputs behind the picture always hold.
    inlined: whether it had functions compiled apart.
    """

    graph: Any
    weights: list[Any]
    inlined: bool


def _trace(model: Any, batch: int | None, shape: tuple[int, int, int]) -> Traced:
    import keras
    import tensorflow as tf

    variables = list(model.variables)

    def call(picture: Any, *values: Any) -> Any:
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
            return model(picture, training=False)

    channels, height, width = shape
    signature = [tf.TensorSpec((batch, height, width, channels), tf.float32, name="input")]
    signature += [tf.TensorSpec(variable.shape, variable.dtype, name="weight") for variable in variables]

    def traced(*, inline: bool) -> Traced:
        function = tf.function(call, autograph=False).get_concrete_function(*signature)
        # Tensors that are no variables, such as the mean of a Normalization layer, are captured.
        return Traced(function.graph, [*variables, *function.captured_inputs], inline)

    try:
        result = traced(inline=False)
        if any(operation.type in _CALLS for operation in result.graph.get_operations()):
            with _functions_inlined():
                result = traced(inline=True)
    except Exception as error:
        raise ExportFailed(f"TensorFlow cannot trace the network: {first_line(error)}") from error
    if any(weight.dtype in (tf.resource, tf.variant) for weight in result.weights[len(variables) :]):
        raise ExportFailed("the network reads state that is in none of its layers: keep it in a weight of a layer")
    return result


@contextlib.contextmanager
def _functions_inlined() -> Iterator[None]:
    """While a network is traced, a tf.function inside it is run as the Python it is, not called as a graph."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


# ---- operators, in tf2onnx's own terms


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Erfc(x) is 1 - Erf(x)."""
    from tf2onnx.utils import map_onnx_to_numpy_type

    output, source = node.output[0], node.input[0]
    shape, dtype = graph.get_shape(output), graph.get_dtype(output)
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}_one", np.array(1, map_onnx_to_numpy_type(dtype)))
    erf = graph.make_node("Erf", [source], shapes=[shape], dtypes=[dtype], name=f"{name}_erf")
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype], name=name)


def _reshape(graph: Any, node: Any, name: str, _: Any) -> None:
    """A Reshape to a computed shape, where TensorFlow knows what comes out, is one to a constant shape."""
    shape = graph.get_shape(node.output[0])
    if shape is not None and sum(size < 0 for size in shape) <= 1 and 0 not in shape:
        target = graph.make_const(f"{name}_target", np.array(shape, np.int64)).output[0]
    else:
        target = graph.insert_new_node_on_input(node, "Cast", node.input[1], to=7).output[0]  # int32 in TensorFlow
    graph.replace_input(node, node.input[1], target, 1)


# ---- names


def _name_layers(proto: Any, model: Any) -> None:
    """Name each node for its layer: "model_1/conv_1_1/op__12" is of layer "conv_1"; tracing appends a number."""
    layers = {layer.name for layer in model._flatten_layers() if not getattr(layer, "layers", None)}
    for node in proto.graph.node:
        candidates = (name for part in node.name.split("/") for name in (re.sub(r"_\d+$", "", part), part))
        node.name = next((name for name in candidates if name in layers), node.op_type.lower())
