"""SavedModel folders: networks without layers, and programs that pretend to be networks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.export import export
from exporters.keras import load
from exporters.weights_file import kind_of
from runtime.errors import InvalidInput, InvalidWeights, UserError, WeightsUnavailable
from tests.exporters.keras_support import PHOTOS, RULE, file_recipe, run, scramble, softmax

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(keras: Any, *end: Any, shape: Any = (16, 12, 3), front: tuple[Any, ...] = ()) -> Any:
    layers = keras.layers
    keras.backend.clear_session()
    body = [
        layers.Conv2D(4, 3, activation="gelu", name="body"),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
    ]
    return scramble(keras.Sequential([keras.Input(shape), *front, *body, *(end or (layers.Dense(5),))]))


def exported(model: Any, folder: Path) -> Path:
    model.export(folder, verbose=False)
    return folder


ENDS: dict[str, tuple[Callable[[Any], list[Any]], str, int]] = {
    "logits": (lambda k: [k.layers.Dense(5)], "classification", 5),
    "softmax": (lambda k: [k.layers.Dense(5, activation="softmax")], "classification", 5),
    "softmax layer": (lambda k: [k.layers.Dense(5), k.layers.Softmax()], "classification", 5),
    "reshaped": (
        lambda k: [k.layers.Reshape((1, 1, 4)), k.layers.Conv2D(5, 1), k.layers.Softmax(), k.layers.Reshape((5,))],
        "classification", 5,
    ),
    "one place": (
        lambda k: [k.layers.Reshape((1, 1, 4)), k.layers.Conv2D(5, 1, activation="softmax")], "classification", 5,
    ),
    "sigmoid": (lambda k: [k.layers.Dense(1, activation="sigmoid")], "binary", 1),
    "sigmoids": (lambda k: [k.layers.Dense(5, activation="sigmoid")], "multilabel", 5),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_ends_come_off(end: str, keras: Any, tmp_path: Path) -> None:
    make, task, outputs = ENDS[end]
    model = network(keras, *make(keras))
    source = load(file_recipe(exported(model, tmp_path / "m")))
    logits = source.forward(PHOTOS / 255)
    expected = run(model, PHOTOS / 255).reshape(3, outputs)
    undo = {"classification": softmax, "binary": sigmoid, "multilabel": sigmoid}[source.task]
    assert (source.task, logits.shape) == (task, (3, outputs))
    np.testing.assert_allclose(logits if end == "logits" else undo(logits), expected, atol=1e-6)
    assert (source.builder, source.framework) == ("file:m", "tensorflow")
    with pytest.raises(InvalidInput, match="m: a SavedModel has no layers to stop at: features need a Keras or torch"):
        source.features(PHOTOS)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


def test_the_whole_road(keras: Any, tmp_path: Path) -> None:
    """The file answers as the network that was saved; its own scaling is part of it; names are of layers."""
    from runtime.model import Model

    front = (keras.layers.Rescaling(1 / 127.5, -1),)
    model = network(keras, keras.layers.Dense(5, activation="softmax"), shape=(None, None, 3), front=front)
    folder = exported(model, tmp_path / "m")
    with pytest.raises(InvalidInput, match="m: takes inputs of any size: give --input-size"):
        load(file_recipe(folder, preprocess=None))
    recipe = file_recipe(folder, preprocess=None, input_shape=(3, 16, 12))
    done = export(recipe, "keras", tmp_path / "m.onnx")
    assert done.metadata.preprocess == RULE
    assert done.metadata.provenance.weights_sha256 == load(recipe).weights_sha256
    with Model(tmp_path / "m.onnx") as artifact:
        np.testing.assert_allclose(softmax(artifact.run(PHOTOS)), run(model, PHOTOS), atol=1e-5)
    assert export(recipe, "keras", tmp_path / "f.onnx", batch=2).metadata.parity is not None


def test_no_word_on_preprocessing(keras: Any, tmp_path: Path) -> None:
    folder = exported(network(keras), tmp_path / "m")
    with pytest.raises(InvalidInput, match="m: nobody wrote down its preprocessing: give --preprocess"):
        load(file_recipe(folder, preprocess=None))


def test_no_pictures(keras: Any, tmp_path: Path) -> None:
    model = network(keras, shape=(16, 12, 4))
    source = load(file_recipe(exported(model, tmp_path / "m"), preprocess=None))
    arrays = np.random.default_rng(0).normal(size=(2, 4, 16, 12)).astype(np.float32)
    assert (source.preprocess, source.input_shape) == (None, (4, 16, 12))
    np.testing.assert_allclose(source.forward(arrays), run(model, arrays), rtol=1e-5)


# ---- modules of TensorFlow


def save(folder: Path, function: Callable[[Any], Any], *, shape: Any = (None, 16, 12, 3), **options: Any) -> Path:
    """A tf.Module with one function, its weights in a variable; options: dtype, name of the signature."""
    import tensorflow as tf

    class Network(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(np.random.default_rng(0).normal(size=(3, 5)), dtype=tf.float32)

        @tf.function(input_signature=[tf.TensorSpec(shape, options.get("dtype", tf.float32), name="x")])
        def serve(self, x: Any) -> Any:
            scores = tf.matmul(tf.reduce_mean(tf.cast(function(x), tf.float32), [1, 2]), self.weights)
            return (scores, scores) if options.get("twice") else scores

    module = Network()
    tf.saved_model.save(module, str(folder), signatures={options.get("name", "serving_default"): module.serve})
    return folder


def test_a_module(keras: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    folder = save(tmp_path / "m", lambda x: tf.nn.relu(x), name="classify")
    weights = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_allclose(load(file_recipe(folder)).forward(PHOTOS), PHOTOS.mean((2, 3)) @ weights, rtol=1e-4)


def written(x: Any, marker: Path) -> Any:
    import tensorflow as tf

    with tf.control_dependencies([tf.io.write_file(str(marker), "x")]):
        return tf.identity(x)


def through_python(x: Any, marker: Path) -> Any:
    import tensorflow as tf

    def leave(value: Any) -> Any:
        marker.touch()
        return value

    return tf.reshape(tf.numpy_function(leave, [x], tf.float32), tf.shape(x))


def within_a_function(x: Any, marker: Path) -> Any:
    import tensorflow as tf

    return tf.function(lambda value: written(value, marker))(x)


def within_a_branch(x: Any, marker: Path) -> Any:
    import tensorflow as tf

    return tf.cond(tf.reduce_sum(x) > -1, lambda: written(x, marker), lambda: x)


def read(x: Any, marker: Path) -> Any:
    import tensorflow as tf

    return x + tf.cast(tf.strings.length(tf.io.read_file(str(marker))), tf.float32)


PROGRAMS: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "write": (written, "its operator WriteFile"),
    "python": (through_python, "its operator PyFunc"),
    "function": (within_a_function, "its operator WriteFile"),
    "branch": (within_a_branch, "is not one of a network"),
    "read": (read, "its operator ReadFile"),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs_are_not_run(kind: str, keras: Any, tmp_path: Path) -> None:
    program, message = PROGRAMS[kind]
    marker = tmp_path / "executed"
    folder = save(tmp_path / "m", lambda x: program(x, marker))
    marker.unlink(missing_ok=True)
    with pytest.raises(InvalidWeights) as caught:
        load(file_recipe(folder))
    assert f"{folder}: refused, " in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).endswith("if you trust the file, add --trust")
    assert not marker.exists()
    if kind == "write":  # the bomb is a real one
        load(file_recipe(folder, trust=True)).forward(PHOTOS)
        assert marker.exists()


def test_tables_are_not_initialized(keras: Any, tmp_path: Path) -> None:
    """Loading alone would run their initializer, which opens a file."""
    import tensorflow as tf

    (tmp_path / "words.txt").write_text("a\nb\n")
    initializer = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )  # fmt: skip
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(initializer, -1)
    spec = tf.TensorSpec((None, 16, 12, 3), tf.float32)
    module.serve = tf.function(lambda x: tf.reduce_mean(x, [1, 2]), input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    with pytest.raises(InvalidWeights, match=r"refused, it holds an? (asset|resource).*: an image classifier has none"):
        load(file_recipe(tmp_path / "m"))


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "bytes": ({"dtype": "uint8"}, "takes uint8, not float32"),
    "rows": ({"shape": (None, 1, 1), "flat": True}, "not a classifier of one picture: inputs"),
    "frozen": ({"shape": (2, 16, 12, 3)}, "is frozen to batches of 2"),
    "two": ({"twice": True}, "not a classifier of one picture: inputs [(None, 16, 12, 3)], 2 outputs"),
}


@pytest.mark.parametrize("kind", ODD)
def test_other_signatures(kind: str, keras: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    options, message = ODD[kind]
    flat = options.get("flat")
    folder = save(tmp_path / "m", (lambda x: tf.tile(x[..., None], [1, 1, 1, 3])) if flat else tf.identity, **options)
    with pytest.raises(InvalidWeights) as caught:
        load(file_recipe(folder))
    assert message in str(caught.value)


def test_a_map_is_no_classifier(keras: Any, tmp_path: Path) -> None:
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((16, 12, 3)), keras.layers.Conv2D(5, 1)])
    with pytest.raises(InvalidWeights, match=r"m: not a classifier: its output is \(None, 16, 12, 5\), not one row"):
        load(file_recipe(exported(model, tmp_path / "m")))


def test_damaged_folders(keras: Any, tmp_path: Path) -> None:
    folder = exported(network(keras), tmp_path / "m")
    assert kind_of(folder) == "savedmodel"
    graph = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    refused(folder, "the SavedModel cannot be read")
    (folder / "saved_model.pb").write_bytes(b"")
    refused(folder, "a SavedModel of TensorFlow 1")
    (folder / "saved_model.pb").write_bytes(graph)
    shutil.rmtree(folder / "variables")
    refused(folder, "the SavedModel cannot be read")
    (folder / "saved_model.pb").unlink()
    with pytest.raises(
        WeightsUnavailable, match=r"is a folder without saved_model\.pb: give the weights file itself, or"
    ):
        kind_of(folder)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(file_recipe(folder))
    assert f"{folder}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)
