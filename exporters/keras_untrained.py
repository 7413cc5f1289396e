"""Untrained Keras networks that answer as trained ones do, for the reasons that ``exporters.torch_untrained`` gives."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from exporters.source import GAIN, LEAST_POWER, UNSETTLED, FloatArray


def enliven(model: Any, pictures: FloatArray, seed: int) -> None:
    """Change ``model`` in place. pictures: (N, height, width, channels) of its input, a few suffice."""
    import keras
    import tensorflow as tf

    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = variable.numpy()
        if value.size > 1 and np.issubdtype(value.dtype, np.floating) and (value == value.flat[0]).all():
            variable.assign(value + UNSETTLED * random.random(value.shape, dtype=np.float32))
    original = keras.layers.BatchNormalization.call

    def scaled(layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        _scale(layer, inputs)
        return original(layer, inputs, *args, **kwargs)

    @tf.function  # type: ignore[untyped-decorator]  # run eagerly, Keras keeps what every layer gives until the end
    def run(batch: Any) -> None:
        model(batch, training=False)

    with mock.patch.object(keras.layers.BatchNormalization, "call", scaled):
        run(tf.constant(pictures))


def _scale(layer: Any, given: Any) -> None:
    """The power of what comes in, per channel, becomes the variance; the mean keeps its size relative to it."""
    from keras import ops

    channels = layer.axis % given.ndim
    power = ops.mean(ops.square(given), axis=[axis for axis in range(given.ndim) if axis != channels])
    power = ops.maximum(power, LEAST_POWER * ops.mean(power))
    layer.moving_variance.assign(power / GAIN**2)
    layer.moving_mean.assign(layer.moving_mean * ops.sqrt(power))
