"""Where a Keras network begins and ends: one picture in, one row of logits out, or a clear no.

Parity, int8 and gradients are measured on logits, and the runtime takes the softmax itself. So a softmax at the
end comes off, and that it came off exactly is checked with numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import InvalidWeights
from runtime.metadata import Preprocess

_TOLERANCE = 1e-4
"""Largest difference of probabilities: the same logits through two compilations of one softmax in float32."""


def fit(rule: Preprocess, model: Any, *, where: str) -> Preprocess:
    """The rule at the input size the network has; a free size takes the rule's.

    Raises InvalidWeights when the network does not take one picture of the rule's channels.
    """
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        raise InvalidWeights(f"{where}: the network states no input: begin it with keras.Input(shape) and save again")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(model.outputs) != 1 or len(shapes[0]) != 4:
        raise InvalidWeights(
            f"{where}: not a classifier of one picture: inputs {_list(shapes)}, "
            f"outputs {_list([tuple(tensor.shape) for tensor in model.outputs])}"
        )
    batch, height, width, channels = shapes[0]
    if channels != rule.channels:
        hint = " (channels-first networks are not supported)" if height == rule.channels else ""
        raise InvalidWeights(f"{where}: takes {channels} channels, the preprocessing gives {rule.channels}{hint}")
    if batch is not None:
        raise InvalidWeights(f"{where}: is frozen to batches of {batch}: give its keras.Input a shape without batch")
    if model.inputs[0].dtype != "float32":
        raise InvalidWeights(f"{where}: takes {model.inputs[0].dtype}, not float32")
    return rule.at_size(height or rule.size[0], width or rule.size[1])


def as_classifier(model: Any, rule: Preprocess, *, classes: int, where: str) -> Any:
    """The same network ending in ``classes`` logits.

    Raises InvalidWeights when it has another number of outputs, or ends in what is not logits and cannot be undone.
    """
    import keras

    shape = tuple(model.output_shape)
    if len(shape) != 2:
        raise InvalidWeights(f"{where}: not a classifier: its output is {shape}, not one row of scores per picture")
    if shape[1] != classes:
        raise InvalidWeights(f"{where}: the network has {shape[1]} outputs, the labels are {classes}")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *rule.size, rule.channels))
    pictures = ((pixels * rule.scale - np.array(rule.mean)) / np.array(rule.std)).astype(np.float32)
    before = np.asarray(model(pictures, training=False))
    tensor = _before_softmax(model.outputs[0], where)
    if tensor is None:
        if classes > 1 and (before >= 0).all() and np.allclose(before.sum(axis=1), 1, atol=_TOLERANCE):
            raise InvalidWeights(
                f"{where}: gives probabilities, not logits, and where its softmax is cannot be told: save it without"
            )
        return model
    logits = keras.Model(model.inputs[0], tensor)
    after = np.asarray(keras.ops.softmax(np.asarray(logits(pictures, training=False), dtype=np.float32)))
    if np.isfinite(before).all() and not np.abs(after - before).max() <= _TOLERANCE:
        raise InvalidWeights(f"{where}: taking off its softmax changes its answers: save it without one")
    return logits


def _before_softmax(output: Any, where: str) -> Any:
    """The tensor that goes into the softmax at the end, through what only reshapes it; None without a softmax."""
    import keras

    operation, node, _ = output._keras_history
    inputs = operation._inbound_nodes[node].input_tensors
    if len(inputs) != 1:
        return None
    if isinstance(operation, keras.Model):
        inner = _before_softmax(operation.outputs[0], where) if len(operation.outputs) == 1 else None
        return None if inner is None else keras.Model(operation.inputs[0], inner)(inputs[0])
    own = isinstance(operation, keras.layers.Layer) and bool(operation.weights)
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", type(operation).__name__).lower()
    if name.endswith("sigmoid"):
        raise InvalidWeights(f"{where}: ends in a sigmoid: only classes that exclude each other are supported")
    if name == "softmax":
        if not own:
            return inputs[0]
        operation.activation = keras.activations.linear
        return operation(inputs[0])
    if own or (name != "linear" and not isinstance(operation, _reshaping())):
        return None
    before = _before_softmax(inputs[0], where)
    return None if before is None else operation(before)


def _reshaping() -> tuple[type, ...]:
    from keras import layers

    return layers.Reshape, layers.Flatten, layers.Dropout, layers.Identity


def _list(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))
