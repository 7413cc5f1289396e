"""Untrained Keras networks that answer as trained ones do, for the reasons that ``exporters.torch_untrained`` gives."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from exporters.source import GAIN, LEAST_POWER, UNSETTLED, FloatArray


def enliven(model: Any, pictures: FloatArray, seed: int) -> None:
    """Change ``model`` in place. pictures: (N, height, width, channels) of its input, a few suffice."""
    import keras

    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = variable.numpy()
        if value.size > 1 and np.issubdtype(value.dtype, np.floating) and (value == value.flat[0]).all():
            variable.assign(value + UNSETTLED * random.random(value.shape, dtype=np.float32))
    original = keras.layers.BatchNormalization.call

    def scaled(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        _scale(layer, np.asarray(inputs))
        return original(layer, inputs, *args, **kwargs)

    with mock.patch.object(keras.layers.BatchNormalization, "call", scaled):
        model(pictures, training=False)


def _scale(layer: Any, given: FloatArray) -> None:
    """The power of what comes in, per channel, becomes the variance; the mean keeps its size relative to it."""
    channels = layer.axis % given.ndim
    power = np.square(given).mean(axis=tuple(axis for axis in range(given.ndim) if axis != channels))
    power = np.maximum(power, LEAST_POWER * power.mean())
    layer.moving_variance.assign(power / GAIN**2)
    layer.moving_mean.assign(layer.moving_mean.numpy() * np.sqrt(power))
