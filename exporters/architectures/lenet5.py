"""LeNet-5 in PyTorch and in Keras, and the map from one's weights to the other's.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11):2278-2324, 1998.

Layers and sizes are those of the paper: 6 maps, pool, 16 maps, pool, 120, 84, one output per class;
its 32x32 input is the 28x28 picture with 2 pixels of padding around it. What differs is what the years since
have replaced, because it trains faster, scores higher and is what inference engines have kernels for: ReLU for the
scaled tanh, 2x2 max pooling for the trainable average, every map of the second convolution connected to all six
below it, and a linear layer giving logits for the radial basis functions.

One file of weights, with PyTorch's names and shapes, serves both frameworks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput, InvalidWeights

if TYPE_CHECKING:
    import keras
    import torch

_SIDE = 28
_MAPS = (16, 5, 5)  # what the last pooling gives, channels first: the order fc1's PyTorch columns are in
_SHAPES: dict[str, tuple[int, ...]] = {
    "conv1.weight": (6, 1, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
}


def build_torch(num_classes: int = 10) -> torch.nn.Module:
    """LeNet-5 with random weights: float32 (batch, 1, 28, 28) to logits (batch, num_classes).

    Raises InvalidInput when ``num_classes`` is below 1.
    """
    from torch import nn

    _check_classes(num_classes)
    layers: list[tuple[str, Any]] = [
        ("conv1", nn.Conv2d(1, 6, 5, padding=2)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(6, 16, 5)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(400, 120)),
        ("relu3", nn.ReLU()),
        ("fc2", nn.Linear(120, 84)),
        ("relu4", nn.ReLU()),
        ("fc3", nn.Linear(84, num_classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def build_keras(num_classes: int = 10, input_shape: tuple[int, int, int] = (_SIDE, _SIDE, 1)) -> keras.Model:
    """LeNet-5 with random weights: float32 (batch, 28, 28, 1) to logits (batch, num_classes).

    Raises InvalidInput when ``num_classes`` is below 1 or ``input_shape`` is not (28, 28, 1): fc1 fits no other.
    """
    import keras
    from keras import layers

    _check_classes(num_classes)
    if tuple(input_shape) != (_SIDE, _SIDE, 1):
        raise InvalidInput(f"LeNet-5: input_shape {tuple(input_shape)}: the network takes ({_SIDE}, {_SIDE}, 1) only")
    # Said here, so that a user's own keras.json cannot turn the layout around.
    last = "channels_last"
    inputs = keras.Input((_SIDE, _SIDE, 1), name="image")
    x = layers.Conv2D(6, 5, padding="same", activation="relu", data_format=last, name="conv1")(inputs)
    x = layers.MaxPooling2D(2, data_format=last, name="pool1")(x)
    x = layers.Conv2D(16, 5, padding="valid", activation="relu", data_format=last, name="conv2")(x)
    x = layers.MaxPooling2D(2, data_format=last, name="pool2")(x)
    x = layers.Flatten(data_format=last, name="flatten")(x)
    x = layers.Dense(120, activation="relu", name="fc1")(x)
    x = layers.Dense(84, activation="relu", name="fc2")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="fc3")(x), name="lenet5")


def keras_weights(state: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """PyTorch's state dict as values by Keras variable path: ``conv1/kernel``, ``conv1/bias``, ... ``fc3/bias``.

    Kernels go from (out, in, height, width) to (height, width, in, out), matrices from (out, in) to (in, out);
    fc1's inputs also go from channels-first to channels-last order, since Keras flattens (5, 5, 16).
    Raises InvalidWeights when a tensor is missing, is not LeNet-5's, or has another shape.
    """
    _check_state(state)
    values: dict[str, npt.NDArray[np.float32]] = {}
    for name, value in state.items():
        layer, kind = name.split(".")
        if kind == "bias":
            values[f"{layer}/bias"] = value
            continue
        if layer == "fc1":
            value = value.reshape(-1, *_MAPS).transpose(0, 2, 3, 1).reshape(len(value), -1)
        kernel = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        values[f"{layer}/kernel"] = np.ascontiguousarray(kernel)
    return values


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise InvalidInput(f"LeNet-5: num_classes {num_classes}: give 1 or more")


def _check_state(state: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """The number of classes is whatever fc3.bias says; all else is fixed."""
    classes = state["fc3.bias"].size if "fc3.bias" in state else 0
    expected = {**_SHAPES, "fc3.weight": (classes, 84), "fc3.bias": (classes,)}
    if odd := sorted(expected.keys() ^ state.keys()):
        raise InvalidWeights(f"LeNet-5: weights missing or unknown: {', '.join(odd)}: give LeNet-5's own state dict")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise InvalidWeights(
                f"LeNet-5: {name} has shape {state[name].shape}, expected {shape}: give LeNet-5's own state dict"
            )
