"""A Keras network as one flat graph: no models inside models, one picture size, any number of pictures.

What begins and what ends a network, and what its classifier takes in, are questions about a graph. A backbone inside
a Sequential inside a model hides the answers, so it is opened first: the layers stay the same objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from exporters.source import FloatArray

PIXELS_AT_ONCE = 400_000  # one picture of the largest network, eight of 224 x 224


def flat(model: Any, size: tuple[int, int] | None = None) -> Any:
    """The same network as one Functional model of the same layers, taking channels last; itself where it is that.

    size: (height, width) to fix the input to; None leaves it. The batch becomes free in either case.
    """
    import keras

    (given,) = model.inputs
    first = channels_first(model)
    halves = [layer for layer in model._flatten_layers() if layer.compute_dtype != "float32"]
    for layer in halves:  # trained in mixed precision: the same weights, and the file is of float32
        layer.dtype_policy = "float32"
    plain = type(model).__name__ == "Functional" and not first and not halves and not any(containers(model))
    if plain and size is None and given.shape[0] is None:
        return model
    height, width, channels = (*given.shape[2:], given.shape[1]) if first else given.shape[1:]
    inputs = keras.Input((*(size or (height, width)), channels), dtype=given.dtype, name=given.name)
    turned = keras.layers.Permute((3, 1, 2), name="channels_first")(inputs) if first else inputs
    return keras.Model(inputs, _through(model, turned, {}))


def run(model: Any, pictures: FloatArray) -> FloatArray:
    """What Keras itself computes. pictures: (N, height, width, channels), few at a time if they are large."""
    # Run eagerly, Keras keeps what every layer gives until the end: 16 GB for three pictures in EfficientNetB7.
    step = max(1, PIXELS_AT_ONCE // (pictures.shape[1] * pictures.shape[2]))
    parts = (pictures[start : start + step] for start in range(0, len(pictures), step))
    return np.concatenate([np.asarray(model(part, training=False), dtype=np.float32) for part in parts])


def channels_first(model: Any) -> bool:
    """Whether the network takes (N, channels, height, width), by the first of its layers that says."""
    layers = (layer for layer in model._flatten_layers() if hasattr(layer, "data_format"))
    return next((layer.data_format for layer in layers), None) == "channels_first"


def containers(model: Any) -> Iterable[Any]:
    """The models directly inside a model."""
    return (layer for layer in model.layers if _graph(layer) is not None)


def nodes(model: Any) -> list[Any]:
    """The calls of a flat model's layers and operations, each after those it takes from; no inputs among them."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth] if not node.is_input]


def has_kernel(operation: Any) -> bool:
    """Whether a layer multiplies by weights, as convolutions and Dense do, and does not only scale or shift."""
    if type(operation).__name__ in ("PReLU", "Normalization"):
        return False
    return any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))


def classifier_input(model: Any) -> tuple[Any, tuple[int, int]] | None:
    """What the last layer with a kernel takes in, a symbolic tensor of a flat model, and its axes in space if any.

    None where no layer has a kernel.
    """
    last = next((node for node in reversed(nodes(model)) if has_kernel(node.operation)), None)
    if last is None:
        return None
    first = getattr(last.operation, "data_format", None) == "channels_first"
    return last.input_tensors[0], (2, 3) if first else (1, 2)


def _graph(operation: Any) -> Any | None:
    """The Functional model that an operation is, or holds as Sequential does; None for layers."""
    inner = getattr(operation, "_functional", None) or operation
    return inner if hasattr(inner, "_run_through_graph") else None


def _through(model: Any, inputs: Any, taken: dict[str, Any]) -> Any:
    def opened(operation: Any) -> Any:
        if _graph(operation) is not None:
            return lambda x, *args, **options: _through(operation, x, taken)
        # Models inside models may hold layers of one name; a flat one may not.
        name, count = operation.name, 1
        while taken.setdefault(name, operation) is not operation:
            name, count = f"{operation.name}_{count}", count + 1
        operation.name = name
        return operation

    graph = _graph(model)
    assert graph is not None
    return graph._run_through_graph(inputs, operation_fn=opened)
