from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporters.keras_untrained import enliven
from exporters.source import GAIN

pytest.importorskip("tensorflow")


@pytest.fixture
def model(keras: Any) -> Any:
    """Convolution and normalisation a dozen times over, from Keras' default initialisation; one block is nested."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((16, 16, 3))
    for _ in range(11):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    block = keras.Sequential([keras.Input((16, 16, 16)), layers.Conv2D(8, 3), layers.BatchNormalization()])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(block(x))))


def pictures() -> Any:
    random = np.random.default_rng(0)
    contrast = np.linspace(0.1, 2, 8).reshape(8, 1, 1, 1)
    return (contrast * random.standard_normal((8, 16, 16, 3)) + np.linspace(-1, 1, 8).reshape(8, 1, 1, 1)).astype("f4")


def test_pictures_matter_and_rounding_does_not(model: Any) -> None:
    given = pictures()
    enliven(model, given, seed=0)
    answers = np.asarray(model(given, training=False))
    assert np.abs(answers - answers[:1]).max() > 0.05 * np.abs(answers).max()
    nudge = 1 + 1e-5 * np.random.default_rng(1).standard_normal(given.shape).astype("f4")
    nudged = np.asarray(model(given * nudge, training=False))
    assert np.abs(nudged - answers).max() < 1e-3 * np.abs(answers).max()


def test_normalisations_get_the_power_of_their_input(model: Any, keras: Any) -> None:
    given = pictures()
    convolution, normalisation = model.layers[1:3]
    power = np.square(np.asarray(convolution(given))).mean((0, 1, 2))
    enliven(model, given, seed=0)
    expected = np.maximum(power, 0.1 * power.mean()) / GAIN**2
    np.testing.assert_allclose(normalisation.moving_variance.numpy(), expected, rtol=1e-5)
    assert keras.layers.BatchNormalization.call.__name__ == "call"  # the class is as it was


def test_nothing_is_left_at_one_value(model: Any) -> None:
    enliven(model, pictures(), seed=0)
    values = {variable.path: variable.numpy() for variable in model.weights}
    assert [path for path, value in values.items() if value.size > 1 and np.ptp(value) == 0] == []
