"""The end of a Keras network: logits, or a clear no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.keras import load
from runtime.errors import InvalidWeights, UserError
from runtime.metadata import Labels
from tests.exporters.keras_support import (
    NAMES,
    PHOTOS,
    RULE,
    file_recipe,
    photos,
    run,
    scramble,
    softmax,
)

h5py = pytest.importorskip("h5py")
pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# ---- the end of the network: logits, or a clear no


def trunk(keras: Any) -> tuple[Any, Any]:
    keras.backend.clear_session()
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    return inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x)


def spatial(keras: Any) -> Any:
    """The old MobileNet: softmax on (1, 1, classes), then a reshape and a dropout that does nothing."""
    inputs, x = trunk(keras)
    x = keras.layers.Conv2D(5, 1)(keras.layers.Reshape((1, 1, 6))(x))
    x = keras.layers.Activation("softmax")(x)
    return keras.Model(inputs, keras.layers.Dropout(0.1)(keras.layers.Reshape((5,))(x)))


def headed(make: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        inputs, x = trunk(keras)
        return keras.Model(inputs, make(keras, x))

    return build


def sequential(*head: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        inputs, x = trunk(keras)
        inner = keras.Model(inputs, x)
        return keras.Sequential([keras.Input((16, 12, 3)), inner, *(layer(keras) for layer in head)])

    return build


HEADS: dict[str, Callable[[Any], Any]] = {
    "dense": headed(lambda k, x: k.layers.Dense(5, activation="softmax")(x)),
    "activation": headed(lambda k, x: k.layers.Activation("softmax")(k.layers.Dense(5)(x))),
    "layer": headed(lambda k, x: k.layers.Softmax()(k.layers.Dense(5)(x))),
    "operation": headed(lambda k, x: k.ops.softmax(k.layers.Dense(5)(x))),
    "linear after": headed(lambda k, x: k.layers.Activation("linear")(k.layers.Dense(5, activation="softmax")(x))),
    "sequential": sequential(lambda k: k.layers.Dense(5, activation="softmax")),
    "sequential layer": sequential(lambda k: k.layers.Dense(5), lambda k: k.layers.Softmax()),
    "nested": sequential(lambda k: k.Sequential([k.layers.Dense(5), k.layers.Softmax()])),
    "nested twice": sequential(lambda k: k.Sequential([k.Sequential([k.layers.Dense(5, activation="softmax")])])),
    "nested function": headed(lambda k, x: k.Sequential([k.layers.Dense(5, activation="softmax")])(x)),
    "spatial": spatial,
}  # fmt: skip


# Keras cannot read operations back from .h5.
CASES = [(kind, suffix) for kind in HEADS for suffix in (".keras", ".h5") if (kind, suffix) != ("operation", ".h5")]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_softmax_comes_off(kind: str, suffix: str, keras: Any, tmp_path: Path) -> None:
    model = scramble(HEADS[kind](keras), seed=4)
    values = model.get_weights()
    model.set_weights([value - 0.25 for value in values])
    path = tmp_path / f"m{suffix}"
    model.save(path)
    probabilities = run(model, PHOTOS)
    logits = load(photos(path)).forward(PHOTOS)
    assert not np.allclose(logits.sum(axis=1), 1)
    assert logits.min() < 0
    np.testing.assert_allclose(softmax(logits), probabilities, atol=1e-6)


@pytest.mark.parametrize("last", ["linear", "relu", "tanh", "log_softmax"])
def test_what_is_no_softmax_stays(last: str, keras: Any, tmp_path: Path) -> None:
    model = scramble(headed(lambda k, x: k.layers.Dense(5, activation=last)(x))(keras))
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load(photos(tmp_path / "m.keras")).forward(PHOTOS), run(model, PHOTOS), rtol=1e-6)


def shared_softmax(keras: Any) -> Any:
    """The last layer is used twice: what feeds its second use is what counts."""
    inputs, x = trunk(keras)
    last = keras.layers.Dense(5, activation="softmax")
    again = keras.layers.Dense(6)(last(x))
    return keras.Model(inputs, last(again))


def two_inputs(keras: Any) -> Any:
    inputs, x = trunk(keras)
    other = keras.Input((6,))
    return keras.Model([inputs, other], keras.layers.Dense(5)(x + other))


def two_outputs(keras: Any) -> Any:
    inputs, x = trunk(keras)
    return keras.Model(inputs, [keras.layers.Dense(5)(x), keras.layers.Dense(5, activation="softmax")(x)])


def of_shape(shape: tuple[int, ...], **options: Any) -> Callable[[Any], Any]:
    def build(keras: Any) -> Any:
        keras.backend.clear_session()
        inputs = keras.Input(shape, **options)
        return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))

    return build


def without_input(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(5)])


def normalised(keras: Any) -> Any:
    """Probabilities by another road than a softmax."""
    inputs, x = trunk(keras)
    x = keras.layers.Dense(5, activation="exponential")(x)
    return keras.Model(inputs, x / keras.ops.sum(x, axis=-1, keepdims=True))


def per_place(keras: Any) -> Any:
    """A softmax over each of two places, flattened: five classes in neither."""
    inputs, x = trunk(keras)
    x = keras.layers.Dense(8)(x)
    x = keras.layers.Softmax()(keras.layers.Reshape((2, 4))(x))
    return keras.Model(inputs, keras.layers.Flatten()(x))


ODD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "two inputs": (two_inputs, "not a classifier of one picture: inputs (None, 16, 12, 3), (None, 6)"),
    "two outputs": (two_outputs, "not a classifier of one picture: .*outputs (None, 5), (None, 5)"),
    "volume": (of_shape((8, 16, 12, 3)), "not a classifier of one picture: inputs (None, 8, 16, 12, 3)"),
    "sequence": (of_shape((16, 12)), "not a classifier of one picture: inputs (None, 16, 12)"),
    "channels first": (of_shape((3, 16, 12)), "takes 12 channels, the preprocessing gives 3 (channels-first"),
    "grey": (of_shape((16, 12, 1)), "takes 1 channels, the preprocessing gives 3"),
    "bytes": (of_shape((16, 12, 3), dtype="uint8"), "takes uint8, not float32"),
    "no input": (without_input, "the network states no input"),
    "map": (headed(lambda k, x: k.layers.Dense(5)(k.layers.Reshape((2, 3))(x))), "not a classifier: its output is"),
    "hard sigmoid": (headed(lambda k, x: k.ops.hard_sigmoid(k.layers.Dense(5)(x))), "ends in hardsigmoid, which no"),
    "always one": (headed(lambda k, x: k.layers.Dense(1, activation="softmax")(x)), "ends in a softmax of one output"),
    "segmentation": (
        lambda k: k.Sequential([k.Input((16, 12, 3)), k.layers.Conv2D(5, 1, activation="softmax")]),
        "not a classifier: its output is (None, 16, 12, 5)",
    ),
    "fewer": (headed(lambda k, x: k.layers.Dense(4)(x)), "the network has 4 outputs, the labels are 5"),
    "shared": (shared_softmax, "taking off its softmax changes its answers"),
    "normalised": (normalised, "gives probabilities, not logits"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_other_networks_get_a_clear_no(kind: str, keras: Any, tmp_path: Path) -> None:
    build, message = ODD[kind]
    (build(keras)).save(tmp_path / "m.keras")
    with pytest.raises(InvalidWeights) as caught:
        load(replace(photos(tmp_path / "m.keras"), preprocess=replace(RULE, mean=(1.0, 2.0, 3.0))))
    first, _, last = f"m.keras: {message}".partition(".*")
    assert str(caught.value).startswith(first)
    assert last in str(caught.value)


# ---- sigmoids, and what the scores are


def probabilities_of_each(keras: Any, outputs: int, kind: str) -> Any:
    inputs, x = trunk(keras)
    if kind == "dense":
        return keras.Model(inputs, keras.layers.Dense(outputs, activation="sigmoid")(x))
    if kind == "nested":
        inner = keras.Sequential([keras.layers.Dense(outputs), keras.layers.Activation("sigmoid")])
        return keras.Sequential([keras.Input((16, 12, 3)), keras.Model(inputs, x), inner])
    return keras.Model(inputs, keras.ops.sigmoid(keras.layers.Dense(outputs)(x)))


@pytest.mark.parametrize("kind", ["dense", "nested", "operation"])
@pytest.mark.parametrize("outputs", [1, 5])
def test_a_sigmoid_comes_off(kind: str, outputs: int, keras: Any, tmp_path: Path) -> None:
    model = scramble(probabilities_of_each(keras, outputs, kind), seed=4)
    model.set_weights([value - 0.25 for value in model.get_weights()])
    model.save(tmp_path / "m.keras")
    expected = run(model, PHOTOS / 255)
    source = load(file_recipe(tmp_path / "m.keras"))
    assert source.task == ("binary" if outputs == 1 else "multilabel")
    assert source.labels.names[:2] == (("no", "yes") if outputs == 1 else ("class 0", "class 1"))
    np.testing.assert_allclose(1 / (1 + np.exp(-source.forward(PHOTOS / 255))), expected, atol=1e-6)


TWO = Labels(names=("cat", "dog"))
TASKS: list[tuple[str, int, dict[str, Any], str]] = [
    # how it ends, its outputs, the recipe; its task, or what is said
    ("linear", 5, {}, "classification"),
    ("linear", 5, {"task": "multilabel"}, "multilabel"),
    ("linear", 1, {"labels": TWO}, "binary"),
    ("linear", 1, {"task": "binary"}, "binary"),
    ("linear", 1, {}, "has one output: name its two classes, negative and positive, with --labels"),
    ("linear", 5, {"task": "binary"}, "has 5 outputs: its task is classification, not binary"),
    ("linear", 1, {"task": "multilabel"}, "has 1 output: its task is binary, not multilabel"),
    ("linear", 1, {"task": "binary", "labels": NAMES}, "the network has one output for two classes, the labels are 5"),
    ("softmax", 2, {"labels": TWO}, "classification"),
    ("softmax", 2, {"task": "binary"}, "ends in a softmax of 2 outputs: its task is classification, not binary"),
    ("softmax", 5, {"task": "multilabel"}, "ends in a softmax of 5 outputs: its task is classification, not"),
    ("sigmoid", 5, {"task": "classification"}, "ends in a sigmoid of 5 outputs: its task is multilabel, not"),
    ("sigmoid", 1, {"labels": NAMES}, "the network has one output for two classes, the labels are 5"),
    ("sigmoid", 5, {"labels": TWO}, "the network has 5 outputs, the labels are 2"),
]


@pytest.mark.parametrize(("end", "outputs", "changes", "answer"), TASKS)
def test_tasks(end: str, outputs: int, changes: dict[str, Any], answer: str, keras: Any, tmp_path: Path) -> None:
    inputs, x = trunk(keras)
    keras.Model(inputs, keras.layers.Dense(outputs, activation=end)(x)).save(tmp_path / "m.keras")
    recipe = file_recipe(tmp_path / "m.keras", **changes)
    if " " not in answer:
        source = load(recipe)
        assert source.task == answer
        assert source.forward(PHOTOS).shape == (3, outputs)
        assert source.labels == changes.get("labels", source.labels)
        return
    with pytest.raises(UserError) as caught:
        load(recipe)
    assert f"m.keras: {answer}" in str(caught.value)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("end", ["pool", "conv"])
def test_a_map_of_one_place_is_a_row(end: str, free: bool, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inputs = keras.Input((None, None, 3) if free else (16, 12, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    if end == "pool":
        x = layers.Softmax()(layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(5, 1)(x)))
    else:
        x = layers.Conv2D(5, (14, 10), activation="softmax")(x)
    model = scramble(keras.Model(inputs, x))
    model.save(tmp_path / "m.keras")
    source = load(file_recipe(tmp_path / "m.keras"))
    expected = run(model, PHOTOS / 255)
    assert expected.shape == (3, 1, 1, 5)
    np.testing.assert_allclose(softmax(source.forward(PHOTOS / 255)), expected[:, 0, 0], atol=1e-6)


# ---- what was no softmax of a row


def test_softmax_over_places_is_not_mistaken(keras: Any, tmp_path: Path) -> None:
    per_place(keras).save(tmp_path / "m.keras")
    eight = Labels(names=tuple("abcdefgh"))
    with pytest.raises(InvalidWeights, match=r"m\.keras: taking off its softmax changes its answers"):
        load(replace(photos(tmp_path / "m.keras"), labels=eight))


def test_a_free_input_size_takes_the_rules(keras: Any, tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(inputs))).save(tmp_path / "m.keras")
    assert load(photos(tmp_path / "m.keras")).preprocess == RULE
    of_shape((20, 30, 3))(keras).save(tmp_path / "n.keras")
    rule = load(photos(tmp_path / "n.keras")).preprocess
    assert (rule.size, rule.resize) == ((20, 30), (20, 30))
