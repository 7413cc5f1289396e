"""SavedModel folders: networks that TensorFlow stored as a graph, without the layers that they were written in.

``model.save(folder)`` of Keras 2, ``model.export(folder)`` of Keras 3 and ``tf.saved_model.save`` write them. The
signature "serving_default" is the network. Its softmax or sigmoid comes off in the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.hub import first_line
from exporters.keras_convert import to_onnx
from exporters.keras_head import check_end, labels_of, refuse_probabilities, task_of
from exporters.keras_input import enter, usual_range
from exporters.keras_pictures import transform
from exporters.saved_model_ops import check
from exporters.source import FloatArray, Recipe, Source, package_version
from runtime.errors import EdgeZooError, InvalidInput, InvalidWeights

_ARITHMETIC = frozenset("Add AddV2 BiasAdd Div Mul RealDiv Sub".split())
_FRONT = _ARITHMETIC | frozenset(
    "Cast ConcatV2 ExpandDims Identity MirrorPad Neg Pack Pad PadV2 Reshape ResizeBicubic ResizeBilinear "
    "ResizeNearestNeighbor ReverseV2 Split SplitV Squeeze StridedSlice Transpose".split()
)
_ENDS = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_RESHAPING = frozenset(("Identity", "Reshape", "Squeeze"))


@dataclass(frozen=True, slots=True)
class _Network:
    """A graph of operators and constants. input, output: names of tensors. shape: (N, height, width, channels)."""

    graph: Any
    input: str
    output: str
    shape: tuple[int | None, ...]


def load(recipe: Recipe) -> Source:
    """A SavedModel folder as a source. TensorFlow must be imported already.

    Raises InvalidWeights where it is damaged, no classifier, or would do more than compute one (unless the recipe
    trusts it), and InvalidInput where the recipe leaves something open.
    """
    folder = recipe.weights.path
    assert folder is not None
    where = folder.name
    network = _read(folder, trust=recipe.trust)
    _, height, width, channels = network.shape
    assert channels is not None
    scales = recipe.preprocess is None and _scales_pixels(network, (height or 32, width or 32))
    entry = enter((height, width, channels), recipe, scales=scales, where=where)
    pictures, size = entry.samples(), entry.shape[1:]
    before = _function(network, [network.output], size)(pictures)[0]
    rows = before.reshape(2, -1)
    if before.ndim < 2 or max(before.shape[1:]) != rows.shape[1]:
        shape = (None, *before.shape[1:])
        raise InvalidWeights(f"{where}: not a classifier: its output is {shape}, not one row of scores per picture")
    end, network = _without_end(network)
    outputs = rows.shape[1]
    task = task_of(end, outputs, recipe, where=where)
    labels = labels_of(task, outputs, recipe, where=where)
    run = _function(network, [network.output], size)
    if end == "logits":
        if outputs > 1:
            refuse_probabilities(rows, where=where)
    else:
        check_end(end, run(pictures)[0].reshape(2, -1), rows, where=where)

    def forward(batch: FloatArray) -> FloatArray:
        return run(batch.transpose(0, 2, 3, 1))[0].reshape(len(batch), -1)

    def features(batch: FloatArray) -> FloatArray:
        raise InvalidInput(f"{where}: a SavedModel has no layers to stop at: features need a Keras or torch model")

    def convert(opset: int, batch: int | None) -> Any:
        import tensorflow as tf

        with tf.Graph().as_default() as graph:
            picture = tf.compat.v1.placeholder(tf.float32, (batch, *size, channels), name="input")
            (output,) = _imported(network, picture, [network.output])
            output = tf.reshape(output, (-1, outputs)) if before.ndim > 2 else output
        return _to_onnx(graph, picture, output, opset)

    return Source(
        framework="tensorflow",
        framework_version=package_version("tensorflow"),
        exporter=f"tf2onnx {package_version('tf2onnx')}",
        forward=forward,
        features=features,
        transform=transform(recipe, entry.rule),
        opsets=range(13, 19),
        convert=convert,
        layout="NHWC",
        preprocess=entry.rule,
        input_shape=entry.shape,
        task=task,
        labels=labels,
        weights_sha256=_sha256(folder),
        builder=f"file:{folder.name}",
    )


# ---- reading


def _read(folder: Path, *, trust: bool) -> _Network:
    """The signature's graph, its weights made constants. Raises InvalidWeights."""
    try:
        if not trust:
            check(_meta_graph(folder), where=str(folder))
        return _frozen(folder)
    except EdgeZooError:
        raise
    except Exception as error:
        raise InvalidWeights(f"{folder}: the SavedModel cannot be read ({first_line(error)})") from error


def _meta_graph(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].HasField("object_graph_def"):
        raise InvalidWeights(f"{folder}: a SavedModel of TensorFlow 1: load and save it with TensorFlow 2 first")
    return model.meta_graphs[0]


def _frozen(folder: Path) -> _Network:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(str(folder))
    signatures = dict(getattr(loaded, "signatures", {}))
    if "serving_default" not in signatures and len(signatures) != 1:
        found = ", ".join(sorted(signatures)) or "none"
        raise InvalidWeights(f"{folder}: no signature serving_default to run (found: {found}): save it with one")
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    inputs = list(signature.structured_input_signature[1].values())
    outputs = list(signature.structured_outputs.values())
    shapes = [None if spec.shape.rank is None else tuple(spec.shape) for spec in inputs]
    if len(inputs) != 1 or len(outputs) != 1 or shapes[0] is None or len(shapes[0]) != 4 or shapes[0][3] is None:
        raise InvalidWeights(f"{folder}: not a classifier of one picture: inputs {shapes}, {len(outputs)} outputs")
    if inputs[0].dtype != tf.float32:
        raise InvalidWeights(f"{folder}: takes {inputs[0].dtype.name}, not float32")
    if shapes[0][0] is not None:
        raise InvalidWeights(f"{folder}: is frozen to batches of {shapes[0][0]}: save it with a free batch")
    frozen = convert_variables_to_constants_v2(signature)
    graph = frozen.graph.as_graph_def()
    return _Network(graph, frozen.inputs[0].name, frozen.outputs[0].name, shapes[0])


# ---- the graph


def _without_end(network: _Network) -> tuple[str, _Network]:
    """How the network ends, and the network without that, past what only reshapes it."""
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.CopyFrom(network.graph)
    nodes = {node.name: node for node in graph.node}
    node = nodes[_node(network.output)]
    while node.op in _RESHAPING:
        node = nodes[_node(node.input[0])]
    end = _ENDS.get(node.op, "logits")
    if end != "logits":
        node.op = "Identity"  # which has the same attribute, T
    return end, _Network(graph, network.input, network.output, network.shape)


def _scales_pixels(network: _Network, size: tuple[int, int]) -> bool:
    """Whether arithmetic with constants, before any layer with weights, takes pixels 0..255."""
    front, states, ends = {_node(network.input)}, False, set[str]()
    constant = {node.name for node in network.graph.node if node.op == "Const"}
    waiting = [node for node in network.graph.node if node.op not in ("Const", "Placeholder")]
    behind = set[str]()
    while waiting:
        later = []
        for node in waiting:
            inputs = [_node(name) for name in node.input]
            if any(name not in front | behind | constant for name in inputs):
                later.append(node)
            elif not set(inputs) & (front | behind):
                constant.add(node.name)  # worked out of constants alone
            elif node.op in _FRONT and not set(inputs) & behind:
                front.add(node.name)
                states = states or node.op in _ARITHMETIC
            else:
                behind.add(node.name)
                ends.update(name for name in node.input if _node(name) in front)
        if len(later) == len(waiting):
            return False
        waiting = later
    if not states or not ends:
        return False
    grey = np.stack([np.full((*size, network.shape[3] or 1), value, np.float32) for value in (0, 255)])
    return usual_range(_function(network, sorted(ends), size)(grey))


def _function(network: _Network, outputs: list[str], size: tuple[int, ...]) -> Callable[[FloatArray], list[FloatArray]]:
    """The network up to tensors of it, as a function of (N, height, width, channels)."""
    import tensorflow as tf

    spec = tf.TensorSpec((None, *size, network.shape[3]), tf.float32)
    run = tf.compat.v1.wrap_function(lambda picture: _imported(network, picture, outputs), [spec])
    return lambda batch: [np.asarray(value, np.float32) for value in run(tf.constant(batch, tf.float32))]


def _imported(network: _Network, picture: Any, outputs: list[str]) -> list[Any]:
    """The graph's tensors in the graph that is being made, its input replaced."""
    import tensorflow as tf

    tensors: list[Any] = tf.graph_util.import_graph_def(
        network.graph, {network.input: picture}, [_tensor(name) for name in outputs], name="net"
    )
    return tensors


def _to_onnx(graph: Any, picture: Any, output: Any, opset: int) -> Any:
    proto = to_onnx(graph, {picture.name: "input"}, output.name, opset)
    for node in proto.graph.node:  # "net/model/conv1/Conv2D__12": the layer is before the operator
        *scopes, _ = [part for part in node.name.split("/") if not part.endswith("PartitionedCall")]
        node.name = scopes[-1] if len(scopes) > 1 else node.op_type.lower()
    return proto


def _node(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _sha256(folder: Path) -> str:
    """SHA-256 over the names and the bytes of the graph and its variables."""
    digest = hashlib.sha256()
    for path in [folder / "saved_model.pb", *sorted((folder / "variables").glob("*"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
