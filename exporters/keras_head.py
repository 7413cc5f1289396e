"""Where a Keras network ends: one row of logits, and what they are logits of, or a clear no.

Parity, int8 and gradients are measured on logits, and the runtime takes the softmax or the sigmoid itself. So they
come off at the end, and that they came off exactly is checked with numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.keras_graph import flat, run
from exporters.keras_input import Entry
from exporters.source import FloatArray, Recipe, Scores, numbered_labels
from runtime.errors import InvalidInput, InvalidWeights
from runtime.metadata import Labels

_TOLERANCE = 1e-4
"""Largest difference of probabilities: the same logits through two compilations of one softmax in float32."""

_TASKS: dict[str, tuple[Scores, ...]] = {
    "softmax": ("classification",),
    "sigmoid": ("binary", "multilabel"),
    "logits": ("classification", "binary", "multilabel"),
}


def as_scores(model: Any, entry: Entry, recipe: Recipe, *, where: str) -> tuple[Any, Scores, Labels]:
    """A flat network ending in one row of logits, the task they are for, and the labels.

    Raises InvalidWeights when its outputs are no such row, number otherwise than the labels, or end in what is not
    logits and cannot be undone; InvalidInput when the recipe's task is another.
    """
    import keras

    model = _one_row(model, entry, where)
    outputs = model.output_shape[1]
    pictures = entry.samples()
    before = run(model, pictures)
    end, tensor = _before_end(model.outputs[0], where)
    task = task_of(end, outputs, recipe, where=where)
    labels = labels_of(task, outputs, recipe, where=where)
    if end == "logits":
        if outputs > 1:
            refuse_probabilities(before, where=where)
        return model, task, labels
    logits = keras.Model(model.inputs[0], tensor)
    check_end(end, run(logits, pictures), before, where=where)
    return logits, task, labels


def task_of(end: str, outputs: int, recipe: Recipe, *, where: str) -> Scores:
    """What a network with so many outputs behind a "softmax", a "sigmoid" or plain "logits" answers.

    Raises InvalidInput where the recipe says otherwise, InvalidWeights for a softmax of one.
    """
    if end == "softmax" and outputs == 1:
        raise InvalidWeights(f"{where}: ends in a softmax of one output, which is always 1")
    named = len(recipe.labels.names) if recipe.labels else None
    own: Scores = "classification"
    if outputs == 1:
        if end == "logits" and recipe.task is None and named != 2:
            raise InvalidInput(f"{where}: has one output: name its two classes, negative and positive, with --labels")
        own = "binary"
    elif end == "sigmoid":
        own = "multilabel"
    task = recipe.task or own
    if task not in _TASKS[end] or (task == "binary") != (outputs == 1):
        ends = f"ends in a {end} of {outputs}" if end != "logits" else f"has {outputs}"
        raise InvalidInput(f"{where}: {ends} output{'s' * (outputs > 1)}: its task is {own}, not {task}")
    return task


def labels_of(task: Scores, outputs: int, recipe: Recipe, *, where: str) -> Labels:
    """The recipe's labels, or names made up. Raises InvalidWeights when they are not as many as the classes."""
    labels = recipe.labels or numbered_labels(task, outputs)
    if len(labels.names) != (2 if task == "binary" else outputs):
        one = "one output for two classes" if task == "binary" else f"{outputs} outputs"
        raise InvalidWeights(f"{where}: the network has {one}, the labels are {len(labels.names)}")
    return labels


def check_end(end: str, logits: FloatArray, before: FloatArray, *, where: str) -> None:
    """Raises InvalidWeights unless the logits through the softmax or sigmoid are what the network gave before."""
    wide = logits.astype(np.float64)
    if end == "softmax":
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        after = powers / powers.sum(axis=1, keepdims=True)
    else:
        after = 0.5 * (1 + np.tanh(wide / 2))  # the sigmoid, which cannot overflow
    if before.shape != after.shape or (np.isfinite(before).all() and not np.abs(after - before).max() <= _TOLERANCE):
        raise InvalidWeights(f"{where}: taking off its {end} changes its answers: save it without one")


def refuse_probabilities(given: FloatArray, *, where: str) -> None:
    """Raises InvalidWeights when rows sum to one as probabilities do."""
    if (given >= 0).all() and np.allclose(given.sum(axis=1), 1, atol=_TOLERANCE):
        raise InvalidWeights(
            f"{where}: gives probabilities, not logits, and where its softmax is cannot be told: save it without"
        )


def _one_row(model: Any, entry: Entry, where: str) -> Any:
    """The network giving (N, outputs); a map of one place is one row."""
    import keras

    shape = tuple(model.output_shape)
    if len(shape) == 4 and None in shape[1:]:
        model = flat(model, entry.shape[1:])
        shape = tuple(model.output_shape)
    if len(shape) > 2 and None not in shape[1:] and max(shape[1:]) == np.prod(shape[1:]):
        model = keras.Model(model.inputs[0], keras.layers.Flatten()(model.outputs[0]))
        shape = tuple(model.output_shape)
    if len(shape) != 2 or shape[1] is None:
        raise InvalidWeights(f"{where}: not a classifier: its output is {shape}, not one row of scores per picture")
    return model


def _before_end(output: Any, where: str) -> tuple[str, Any]:
    """How the network ends, and the tensor before that, past what only reshapes it."""
    import keras

    operation, node, _ = output._keras_history
    inputs = operation._inbound_nodes[node].input_tensors
    if len(inputs) != 1:
        return "logits", output
    own = isinstance(operation, keras.layers.Layer) and bool(operation.weights)
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", type(operation).__name__).lower()
    if name in ("softmax", "sigmoid"):
        if not own:
            return name, inputs[0]
        operation.activation = keras.activations.linear
        return name, operation(inputs[0])
    if name.endswith("sigmoid"):
        raise InvalidWeights(f"{where}: ends in {name}, which no task undoes: save it with a plain sigmoid")
    if own or (name != "linear" and not isinstance(operation, _reshaping())):
        return "logits", output
    end, before = _before_end(inputs[0], where)
    return (end, output) if end == "logits" else (end, operation(before))


def _reshaping() -> tuple[type, ...]:
    from keras import layers

    return layers.Reshape, layers.Flatten, layers.Dropout, layers.Identity
