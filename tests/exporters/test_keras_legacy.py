"""Files of Keras 1 and 2, written by hand: what Keras 3 reads wrongly or not at all.

The oracle is the network of today, its weights put in one by one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.keras import load
from runtime.errors import InvalidWeights
from tests.exporters.keras_support import PHOTOS, file_recipe, run, save_keras_2, save_keras_2_archive, softmax

h5py = pytest.importorskip("h5py")
pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

INPUT = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 16, 12, 3], "dtype": "float32",
    "sparse": False, "ragged": False, "name": "image"}, "name": "image", "inbound_nodes": []}  # fmt: skip
Entry = dict[str, Any]


def layer(kind: str, name: str, source: Any = None, **config: Any) -> Entry:
    entry = {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}
    if source is None:
        return entry
    nodes = [[[source, 0, 0, {}]]] if isinstance(source, str) else source
    return {**entry, "name": name, "inbound_nodes": nodes}


def conv(name: str, source: Any = None, filters: int = 4, size: int = 3, **config: Any) -> Entry:
    return layer("Conv2D", name, source, **{
        "filters": filters, "kernel_size": [size, size], "strides": [1, 1], "padding": "valid",
        "data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": "linear", "use_bias": True,
        "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}}, "kernel_regularizer": None,
        **config,
    })  # fmt: skip


def dense(name: str, source: Any = None, units: int = 5, **config: Any) -> Entry:
    return layer("Dense", name, source, **{"units": units, "activation": "linear", "use_bias": True, **config})


def functional(*layers: Entry, name: str = "model", kind: str = "Functional") -> Entry:
    values = {"name": name, "layers": [INPUT, *layers], "input_layers": [["image", 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]]}  # fmt: skip
    return {"class_name": kind, "config": values}


def sequential(*layers: Entry, name: str = "sequential", listed: bool = False) -> Entry:
    return {"class_name": "Sequential", "config": list(layers) if listed else {"name": name, "layers": list(layers)}}


def values(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.1, 0.4, shape).astype(np.float32) for shape in shapes]


def stored(name: str, roles: str, *shapes: tuple[int, ...], seed: int = 0) -> list[tuple[str, Any]]:
    given = values(*shapes, seed=seed)
    return [(f"{name}/{role}:0", value) for role, value in zip(roles.split(), given, strict=True)]


def probabilities(path: Path) -> Any:
    return softmax(load(file_recipe(path)).forward(PHOTOS / 255))


# ---- layers that changed


def today(keras: Any, *layers: Any, weights: list[Any]) -> Any:
    model = keras.Sequential([keras.Input((16, 12, 3)), *layers])
    model.set_weights(weights)
    for normalization in model.layers:
        getattr(normalization, "finalize_state", lambda: None)()
    return run(model, PHOTOS / 255)


ONE: dict[str, tuple[Entry, list[tuple[str, tuple[int, ...]]], Callable[[Any], Any]]] = {
    # a layer between the input and an average; its weights; the layer of today
    "depthwise": (
        layer("DepthwiseConv2D", "x", kernel_size=[3, 3], strides=[2, 2], padding="same", depth_multiplier=1, groups=1,
            depthwise_initializer={"class_name": "GlorotUniform", "config": {}}, depthwise_regularizer=None),
        [("depthwise_kernel", (3, 3, 3, 1)), ("bias", (3,))],
        lambda k: k.layers.DepthwiseConv2D(3, strides=2, padding="same"),
    ),
    "separable": (
        layer("SeparableConv2D", "x", filters=4, kernel_size=[3, 3], groups=1, use_bias=False, dilation_rate=[1, 1]),
        [("depthwise_kernel", (3, 3, 3, 1)), ("pointwise_kernel", (1, 1, 3, 4))],
        lambda k: k.layers.SeparableConv2D(4, 3, use_bias=False),
    ),
    "leaky": (layer("LeakyReLU", "x", alpha=0.1), [], lambda k: k.layers.LeakyReLU(negative_slope=0.1)),
    "leaky array": (layer("LeakyReLU", "x", alpha={"type": "ndarray", "value": 0.1}), [],
        lambda k: k.layers.LeakyReLU(negative_slope=0.1)),
    "relu6": (layer("ReLU", "x", max_value=6.0, negative_slope={"type": "ndarray", "value": 0.0}, threshold=0.0), [],
        lambda k: k.layers.ReLU(6.0)),
    "relu6 function": (layer("Activation", "x", activation="relu6"), [], lambda k: k.layers.ReLU(6.0)),
    "hard sigmoid": (layer("Activation", "x", activation="hard_sigmoid"), [],
        lambda k: k.layers.Activation(lambda x: k.ops.clip(0.2 * x + 0.5, 0, 1))),
    "thresholded": (layer("ThresholdedReLU", "x", theta=0.5), [],
        lambda k: k.layers.Activation(lambda x: k.ops.where(x > 0.5, x, 0.0))),
    "batch norm": (
        layer("BatchNormalizationV1", "x", axis=[3], momentum=0.99, epsilon=0.01, center=True, scale=True, fused=None,
            renorm=False, virtual_batch_size=None, beta_constraint=None),
        [("gamma", (3,)), ("beta", (3,)), ("moving_mean", (3,)), ("moving_variance", (3,))],
        lambda k: k.layers.BatchNormalization(epsilon=0.01),
    ),
    "dropout": (layer("Dropout", "x", rate=0.5, noise_shape=[None, 1, 1, 1], seed=None), [],
        lambda k: k.layers.Identity()),
    "augmentation": (layer("RandomFlip", "x", mode="horizontal", rng_type="stateful", seed=None), [],
        lambda k: k.layers.Identity()),
    "padding": (layer("ZeroPadding2D", "x", padding=[[1, 0], [2, 1]], data_format="channels_last"), [],
        lambda k: k.layers.ZeroPadding2D(((1, 0), (2, 1)))),
    "padded max": (layer("MaxPooling2D", "x", pool_size=[3, 3], strides=[2, 2], padding="same"), [],
        lambda k: k.layers.MaxPooling2D(3, 2, padding="same")),
    "activation layer": (
        conv("x", activation={"class_name": "LeakyReLU", "config": {"name": "l", "alpha": 0.2}}),
        [("kernel", (3, 3, 3, 4)), ("bias", (4,))],
        lambda k: k.layers.Conv2D(4, 3, activation=lambda x: k.ops.maximum(x, 0.2 * x)),
    ),
    "normalization": (
        layer("Normalization", "x", axis=[-1], mean=None, variance=None),
        [("mean", (3,)), ("variance", (3,)), ("count", ())],
        lambda k: k.layers.Normalization(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE)
def test_a_layer_of_keras_2(kind: str, keras: Any, tmp_path: Path) -> None:
    entry, shapes, make = ONE[kind]
    weights = values(*(shape for _, shape in shapes))
    head = conv("c", filters=3, size=1, batch_input_shape=[None, 16, 12, 3])
    rng = np.random.default_rng(1)
    first = [rng.normal(0, 3, shape).astype(np.float32) for shape in ((1, 1, 3, 3), (3,))]
    model = sequential(head, entry, layer("GlobalAveragePooling2D", "pool", keepdims=False))
    groups = {"c": [("c/kernel:0", first[0]), ("c/bias:0", first[1])]}
    if shapes:
        groups["x"] = [(f"x/{role}:0", value) for (role, _), value in zip(shapes, weights, strict=True)]
    save_keras_2(tmp_path / "m.h5", model, groups)
    layers = [keras.layers.Conv2D(3, 1), make(keras), keras.layers.GlobalAveragePooling2D()]
    expected = today(keras, *layers, weights=[*first, *weights])
    assert np.ptp(expected) > 0.01
    given = load(file_recipe(tmp_path / "m.h5")).forward(PHOTOS / 255)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


# ---- models in models, and their weights


def backbone(kind: str = "Functional") -> tuple[Entry, list[tuple[str, Any]]]:
    norm = layer("BatchNormalization", "n", [[["c", 0, 0, {}]]], axis=[3], epsilon=0.001)
    inner = functional(conv("c", "image"), norm, layer("ReLU", "r", "n", max_value=6.0), name="base", kind=kind)
    weights = stored("c", "kernel bias", (3, 3, 3, 4), (4,))
    weights += stored("n", "gamma beta moving_mean moving_variance", *((4,),) * 4, seed=1)
    return inner, weights


def teachable() -> tuple[Entry, dict[str, list[tuple[str, Any]]], list[Any]]:
    """What Teachable Machine writes, but smaller."""
    inner, weights = backbone("Model")
    features = sequential(inner, layer("GlobalAveragePooling2D", "pool"), name="features")
    hidden = dense("d1", units=6, activation="relu", batch_input_shape=[None, 4])
    head = sequential(hidden, dense("d2", use_bias=False, activation="softmax_v2"), name="head")
    groups = {"features": weights, "head": stored("d1", "kernel bias", (4, 6), (6,), seed=2)}
    groups["head"] += stored("d2", "kernel", (6, 5), seed=3)
    return sequential(features, head), groups, [value for group in groups.values() for _, value in group]


def teachable_today(keras: Any) -> list[Any]:
    layers = keras.layers
    return [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(6.0), layers.GlobalAveragePooling2D(),
        layers.Dense(6, activation="relu"), layers.Dense(5, use_bias=False, activation="softmax")]  # fmt: skip


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_models_in_models(suffix: str, keras: Any, tmp_path: Path) -> None:
    config, groups, weights = teachable()
    path = tmp_path / f"m.{suffix}"
    if suffix == "h5":
        save_keras_2(path, config, groups)
    else:
        places = {
            "layers/sequential/layers/functional/layers/conv2d": weights[:2],
            "layers/sequential/layers/functional/layers/batch_normalization": weights[2:6],
            "layers/sequential_1/layers/dense": weights[6:8],
            "layers/sequential_1/layers/dense_1": weights[8:],
        }
        config["config"]["layers"][0]["config"]["layers"][0]["class_name"] = "Functional"
        save_keras_2_archive(path, config, places)
    expected = today(keras, *teachable_today(keras), weights=weights)
    np.testing.assert_allclose(probabilities(path), expected, atol=1e-6)
    source = load(file_recipe(path))
    assert source.features(PHOTOS).shape == (3, 6)
    assert source.task == "classification"


def test_weights_in_the_order_of_what_was_trained(keras: Any, tmp_path: Path) -> None:
    """Partly frozen, Keras 2 stored a model inside in another order. By place, gamma would become the mean."""
    config, groups, weights = teachable()
    moved = groups["features"]
    groups["features"] = [moved[index] for index in (2, 3, 0, 1, 4, 5)]
    save_keras_2(tmp_path / "m.h5", config, groups)
    expected = today(keras, *teachable_today(keras), weights=weights)
    np.testing.assert_allclose(probabilities(tmp_path / "m.h5"), expected, atol=1e-6)


def test_names_that_say_nothing(keras: Any, tmp_path: Path) -> None:
    """Names of a graph built twice, "c_1/kernel": then by the order, where the roles agree with it; else not at all."""
    config, groups, weights = teachable()
    groups["features"] = [(name.replace("/", "_1/"), value) for name, value in groups["features"]]
    save_keras_2(tmp_path / "m.h5", config, groups)
    expected = today(keras, *teachable_today(keras), weights=weights)
    np.testing.assert_allclose(probabilities(tmp_path / "m.h5"), expected, atol=1e-6)
    groups["features"][2:4] = groups["features"][3:1:-1]
    save_keras_2(tmp_path / "n.h5", config, groups)
    with pytest.raises(InvalidWeights, match=r"n\.h5: its layer 'features' has its weights in an order that cannot"):
        load(file_recipe(tmp_path / "n.h5"))


def test_a_model_used_twice_and_layers_of_one_name(keras: Any, tmp_path: Path) -> None:
    inner, weights = backbone()
    twin = functional(conv("c", "image", filters=3, size=1), name="before")
    nodes = [[["before", 1, 0, {}]], [["image", 0, 0, {}]]]
    total = layer("Add", "sum", [[["base", 1, 0, {}], ["base", 2, 0, {}]]])
    config = functional(
        {**twin, "name": "before", "inbound_nodes": [[["image", 0, 0, {}]]]},
        {**inner, "name": "base", "inbound_nodes": nodes},
        total, layer("GlobalAveragePooling2D", "pool", "sum"), dense("d", "pool"),
    )  # fmt: skip
    groups = {"before": stored("c", "kernel bias", (1, 1, 3, 3), (3,), seed=5), "base": weights}
    groups["d"] = stored("d", "kernel bias", (4, 5), (5,), seed=6)
    save_keras_2(tmp_path / "m.h5", config, groups)
    layers = keras.layers
    image = keras.Input((16, 12, 3))
    first, second, norm, relu = layers.Conv2D(3, 1), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(6.0)
    both = [relu(norm(second(x))) for x in (first(image), image)]
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(both[0] + both[1])))
    for part, group in (
        (first, groups["before"]),
        (second, weights[:2]),
        (norm, weights[2:]),
        (model.layers[-1], groups["d"]),
    ):
        part.set_weights([value for _, value in group])
    given = load(file_recipe(tmp_path / "m.h5")).forward(PHOTOS)
    np.testing.assert_allclose(given, run(model, PHOTOS), rtol=1e-5)


def test_weights_that_are_not_all_there(tmp_path: Path) -> None:
    config, groups, _ = teachable()
    cases = {
        "no weights of its layer 'head'": {"features": groups["features"]},
        "weights of an unknown layer 'x'": {**groups, "x": groups["head"]},
        "its layer 'head' has 3 weights, 2 are stored": {**groups, "head": groups["head"][:2]},
        "is [6, 4] instead of [6, 5]": {**groups, "head": [*groups["head"][:2], ("d2/kernel:0", np.zeros((6, 4)))]},
    }
    for message, changed in cases.items():
        save_keras_2(tmp_path / "m.h5", config, changed)
        with pytest.raises(InvalidWeights) as caught:
            load(file_recipe(tmp_path / "m.h5"))
        assert message in str(caught.value)


# ---- operations that became layers


def op(name: str, source: str, kind: str = "TFOpLambda", label: str | None = None, **options: Any) -> Entry:
    return layer(kind, label or name, [[source, 0, 0, {**options, "name": None}]], function=name)


REVERSED = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
OPERATIONS: dict[str, tuple[list[Entry], Callable[[Any], Any], bool]] = {
    # the layers; what they compute on (N, H, W, C); whether that is preprocessing
    "tf": (
        [op("math.truediv", "image", y=127.5), op("math.subtract", "math.truediv", y=1.0)],
        lambda x: x / 127.5 - 1, True,
    ),
    "caffe": (
        [op("__operators__.getitem", "image", "SlicingOpLambda", slice_spec=REVERSED),
         op("nn.bias_add", "__operators__.getitem", bias=[-103.0, -116.0, -123.0], data_format="NHWC")],
        lambda x: x[..., ::-1] - [103, 116, 123], True,
    ),
    "torch": (
        [op("math.divide", "image", y=255.0), op("math.truediv", "math.divide", y=[0.2, 0.3, 0.4])],
        lambda x: x / 255 / [0.2, 0.3, 0.4], True,
    ),
    "by node": (
        [layer("TensorFlowOpLayer", "div", [[["image", 0, 0, {}]]], constants={"1": 100.0},
            node_def='name: "RealDiv"\nop: "RealDiv"\ninput: "a"\ninput: "b"\n')], lambda x: x / 100, True,
    ),
    "relu6": ([op("nn.relu6", "image")], lambda x: np.clip(x, 0, 6), False),
    "silu": ([op("nn.silu", "image", beta=0.5)], lambda x: x / (1 + np.exp(-x / 2)), False),
    "concat": (
        [op("nn.relu", "image"), layer("TFOpLambda", "concat",
            [[["image", 0, 0, {"axis": -1}], ["nn.relu", 0, 0, {"axis": -1}]]], function="concat")],
        lambda x: np.concatenate([x, x], axis=-1), False,
    ),
    "by name": (
        [op("math.sigmoid", "image"), op("math.multiply", "image", y=["math.sigmoid", 0, 0])],
        lambda x: x / (1 + np.exp(-x)), False,
    ),
    "mean": (
        [op("math.reduce_mean", "image", axis=[1, 2], keepdims=True)], lambda x: x.mean((1, 2), keepdims=True), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_of_keras_2(kind: str, tmp_path: Path) -> None:
    entries, compute, scales = OPERATIONS[kind]
    expected = compute(PHOTOS.transpose(0, 2, 3, 1).astype(np.float64)).mean(axis=(1, 2))
    weights = values((expected.shape[1], 5), seed=9)
    config = functional(
        *entries, layer("GlobalAveragePooling2D", "pool", entries[-1]["name"]), dense("d", "pool", use_bias=False)
    )
    save_keras_2(tmp_path / "m.h5", config, {"d": [("d/kernel:0", weights[0])]})
    source = load(file_recipe(tmp_path / "m.h5", **({"preprocess": None} if scales else {})))
    np.testing.assert_allclose(source.forward(PHOTOS), expected @ weights[0], rtol=1e-4)
    np.testing.assert_allclose(source.features(PHOTOS), expected, rtol=1e-4)
    assert source.preprocess is not None
    assert source.preprocess.mean == (0,) * 3


# ---- what is refused


def plain(entry: Entry) -> Entry:
    return functional(entry, layer("Flatten", "flat", entry["name"]), dense("d", "flat"))


TWO = [["x", 0, 0], ["d", 0, 0]]
REFUSED: dict[str, tuple[Entry, str]] = {
    "custom": (plain(layer("CapsuleLayer", "x", "image")), "holds a CapsuleLayer layer, whose code is neither"),
    "argument": (plain(conv("x", "image", groups_of_mine=2)), "has groups_of_mine=2, which Keras 3 does not know"),
    "groups": (
        plain(layer("DepthwiseConv2D", "x", "image", kernel_size=[3, 3], groups=3)), "has groups=3, which Keras 3",
    ),
    "activation": (plain(conv("x", "image", activation="mine")), "holds the activation 'mine', whose code is neither"),
    "operation": (plain(op("io.read_file", "image")), "holds the operation tf.io.read_file, which is not supported"),
    "lambda": (plain(layer("Lambda", "x", "image", function=["", None, None])), "a Lambda layer, whose code would run"),
    "merge": (plain(layer("Merge", "x", "image", mode="sum")), "holds a Merge layer of Keras 1"),
    "call": (plain(layer("ReLU", "x", [[["image", 0, 0, {"odd": 1}]]])), "is called with odd, which is unknown"),
    "loose": (plain(layer("ReLU", "x", "y")), "its layer 'x' is connected to nothing"),
    "theano": (
        plain(layer("Convolution2D", "x", "image", nb_filter=4, nb_row=3, nb_col=3, dim_ordering="th")),
        "Theano's order",
    ),
    "outputs": (
        {"class_name": "Model", "config": plain(conv("x", "image"))["config"] | {"output_layers": TWO}},
        "it has 1 inputs and 2 outputs",
    ),
    "no input": (sequential(conv("x"), dense("d")), "the network states no input"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_counterpart(kind: str, tmp_path: Path) -> None:
    config, message = REFUSED[kind]
    save_keras_2(tmp_path / "m.h5", config, {})
    with pytest.raises(InvalidWeights) as caught:
        load(file_recipe(tmp_path / "m.h5"))
    assert str(caught.value).count("\n") == 0
    assert message in str(caught.value)


# ---- Keras 1


def test_keras_1(keras: Any, tmp_path: Path) -> None:
    first = {"name": "c", "nb_filter": 4, "nb_row": 3, "nb_col": 2, "subsample": [2, 1], "border_mode": "same",
        "dim_ordering": "tf", "activation": "relu", "bias": True, "init": "glorot_uniform", "W_regularizer": None,
        "b_constraint": None, "activity_regularizer": None, "input_dtype": "float32", "trainable": True,
        "batch_input_shape": [None, 16, 12, 3]}  # fmt: skip
    entries = [
        {"class_name": "Convolution2D", "config": first},
        {"class_name": "BatchNormalization", "config": {"name": "n", "mode": 0, "axis": -1, "epsilon": 0.01}},
        {"class_name": "MaxPooling2D", "config": {"name": "p", "pool_size": [2, 2], "strides": [2, 2],
            "border_mode": "valid", "dim_ordering": "tf", "trainable": True}},
        {"class_name": "Dropout", "config": {"name": "o", "p": 0.5, "trainable": True}},
        {"class_name": "Flatten", "config": {"name": "f", "trainable": True}},
        {"class_name": "Dense", "config": {"name": "d", "output_dim": 5, "input_dim": 96, "bias": True,
            "init": "uniform", "activation": "softmax", "W_constraint": None}},
    ]  # fmt: skip
    weights = values((3, 2, 3, 4), (4,), (4,), (4,), (4,), (4,), (96, 5), (5,))
    names = {"c": "W b", "n": "gamma beta running_mean running_std", "d": "W b"}
    given = iter(weights)
    groups = {name: [(f"{name}_{role}:0", next(given)) for role in roles.split()] for name, roles in names.items()}
    save_keras_2(tmp_path / "m.h5", sequential(*entries, listed=True), groups, version=None)
    layers = keras.layers
    expected = today(
        keras, layers.Conv2D(4, (3, 2), (2, 1), padding="same", activation="relu"),
        layers.BatchNormalization(epsilon=0.01), layers.MaxPooling2D(2), layers.Flatten(),
        layers.Dense(5, activation="softmax"), weights=weights,
    )  # fmt: skip
    np.testing.assert_allclose(probabilities(tmp_path / "m.h5"), expected, atol=1e-5)


def test_theano_and_broken_archives(tmp_path: Path) -> None:
    config, groups, _ = teachable()
    save_keras_2(tmp_path / "m.h5", config, groups, backend="theano")
    with pytest.raises(InvalidWeights, match="written by Keras on Theano, whose convolutions are mirrored"):
        load(file_recipe(tmp_path / "m.h5"))
    save_keras_2_archive(tmp_path / "m.keras", config, {})
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("2.")
    with pytest.raises(InvalidWeights, match="its layer 'c' has 2 weights, 0 are stored: damaged"):
        load(file_recipe(tmp_path / "m.keras"))
