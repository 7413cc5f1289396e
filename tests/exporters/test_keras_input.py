"""The beginning of a Keras network: its own scaling, its size, pictures or none; and features and transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporters.keras import load
from exporters.keras_pictures import by_rule
from exporters.source import sample_files
from runtime.errors import InvalidInput, InvalidWeights
from runtime.metadata import Preprocess
from tests.exporters.keras_support import PHOTOS, RULE, file_recipe, run, scramble

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Layers = Callable[[Any], list[Any]]


def save(keras: Any, path: Path, *layers: Any, shape: Any = (16, 12, 3), outputs: int = 5) -> Any:
    keras.backend.clear_session()
    end = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(outputs)]
    conv = keras.layers.Conv2D(4, 3, name="conv")
    model = keras.Sequential([keras.Input(shape), *layers, conv, *end])
    scramble(keras.Sequential([conv, *end]))
    model.save(path)
    return model


# ---- the network's own scaling


OWN: dict[str, Layers] = {
    "rescaling": lambda k: [k.layers.Rescaling(1 / 255)],
    "both": lambda k: [k.layers.RandomFlip(), k.layers.Rescaling(1 / 127.5, -1), k.layers.ZeroPadding2D(1)],
    "normalization": lambda k: [k.layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3600.0] * 3)],
    "adapted": lambda k: [adapted(k)],
    "inside": lambda k: [k.Sequential([k.Input((16, 12, 3)), k.layers.Rescaling(1 / 255), k.layers.Conv2D(3, 1)])],
}  # fmt: skip
FOREIGN: dict[str, Layers] = {
    "nothing": lambda k: [],
    "after weights": lambda k: [k.layers.Conv2D(3, 1), k.layers.Rescaling(1 / 255)],
    "for scaled pixels": lambda k: [k.layers.Rescaling(255.0)],
    "adapted to scaled pixels": lambda k: [k.layers.Normalization(mean=[0.4] * 3, variance=[0.05] * 3)],
    "batch normalization": lambda k: [k.layers.BatchNormalization()],
}


def adapted(keras: Any) -> Any:
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).uniform(0, 255, (4, 16, 12, 3)))
    return layer


@pytest.mark.parametrize("kind", OWN)
def test_own_scaling_is_found(kind: str, keras: Any, tmp_path: Path) -> None:
    model = save(keras, tmp_path / "m.keras", *OWN[kind](keras))
    source = load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert source.preprocess == RULE
    np.testing.assert_allclose(source.forward(PHOTOS), run(model, PHOTOS), rtol=1e-5)


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_preprocess_input_inside(mode: str, keras: Any, tmp_path: Path) -> None:
    """Called while the model was built: plain operations, no layers."""
    keras.backend.clear_session()
    inputs = keras.Input((16, 12, 3))
    x = keras.applications.imagenet_utils.preprocess_input(inputs, mode=mode)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    model = scramble(keras.Model(inputs, keras.layers.Dense(5)(x)))
    model.save(tmp_path / "m.keras")
    source = load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert source.preprocess == RULE
    np.testing.assert_allclose(source.forward(PHOTOS), run(model, PHOTOS), rtol=1e-4)


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_says_nothing_of_pixels(kind: str, keras: Any, tmp_path: Path) -> None:
    save(keras, tmp_path / "m.keras", *FOREIGN[kind](keras))
    with pytest.raises(InvalidInput) as caught:
        load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert str(caught.value) == (
        "m.keras: nobody wrote down its preprocessing: give --preprocess tf|caffe|torch|0-255|0-1|FILE.json"
    )
    rule = replace(RULE, mean=(1.0, 2.0, 3.0))
    assert load(file_recipe(tmp_path / "m.keras", preprocess=rule)).preprocess == rule


def test_the_users_word_counts_more(keras: Any, tmp_path: Path) -> None:
    save(keras, tmp_path / "m.keras", keras.layers.Rescaling(1 / 255))
    rule = replace(RULE, resize=(20, 20), interpolation="bicubic")
    assert load(file_recipe(tmp_path / "m.keras", preprocess=rule)).preprocess == rule


# ---- sizes and channels


def test_grey_pictures(keras: Any, tmp_path: Path) -> None:
    save(keras, tmp_path / "m.keras", keras.layers.Rescaling(1 / 255), shape=(16, 12, 1))
    source = load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert source.preprocess == Preprocess(size=(16, 12), resize=(16, 12), mean=(0.0,), std=(1.0,), color="L")
    # A rule that treats the colours alike is a rule for grey.
    alike = load(file_recipe(tmp_path / "m.keras", preprocess=replace(RULE, std=(255.0,) * 3))).preprocess
    assert (alike.color, alike.std) == ("L", (255.0,))
    with pytest.raises(InvalidWeights, match="takes 1 channels, the preprocessing gives 3"):
        load(file_recipe(tmp_path / "m.keras", preprocess=replace(RULE, mean=(1.0, 2.0, 3.0))))


def test_free_sizes(keras: Any, tmp_path: Path) -> None:
    save(keras, tmp_path / "m.keras", keras.layers.Rescaling(1 / 255), shape=(None, None, 3))
    with pytest.raises(InvalidInput, match=r"m\.keras: takes inputs of any size: give --input-size"):
        load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert load(file_recipe(tmp_path / "m.keras", preprocess=None, input_shape=(3, 9, 7))).input_shape == (3, 9, 7)
    assert load(file_recipe(tmp_path / "m.keras")).input_shape == (3, 16, 12)


def test_a_fixed_size_stays(keras: Any, tmp_path: Path) -> None:
    save(keras, tmp_path / "m.keras", keras.layers.Rescaling(1 / 255))
    with pytest.raises(InvalidInput, match=r"m\.keras: takes 16 x 12, not 9 x 7: leave --input-size out"):
        load(file_recipe(tmp_path / "m.keras", preprocess=None, input_shape=(3, 9, 7)))


def test_no_pictures(keras: Any, tmp_path: Path) -> None:
    model = save(keras, tmp_path / "m.keras", shape=(16, 12, 4))
    source = load(file_recipe(tmp_path / "m.keras", preprocess=None))
    assert (source.preprocess, source.input_shape) == (None, (4, 16, 12))
    arrays = np.random.default_rng(0).normal(size=(2, 4, 16, 12)).astype(np.float32)
    np.testing.assert_allclose(source.forward(arrays), run(model, arrays), rtol=1e-5)
    with pytest.raises(InvalidInput, match="takes no pictures"):
        source.transform(tmp_path / "cat.jpg")
    with pytest.raises(InvalidInput, match="takes 4 channels, not 5"):
        load(file_recipe(tmp_path / "m.keras", preprocess=None, input_shape=(5, 16, 12)))
    with pytest.raises(InvalidWeights, match="takes 4 channels, the preprocessing gives 3"):
        load(file_recipe(tmp_path / "m.keras"))


def test_a_fixed_batch_becomes_free(keras: Any, tmp_path: Path) -> None:
    inputs = keras.Input(batch_shape=(1, 16, 12, 3))
    model = scramble(keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs))))
    model.save(tmp_path / "m.keras")
    expected = np.concatenate([run(model, PHOTOS[index : index + 1]) for index in range(3)])
    np.testing.assert_allclose(load(file_recipe(tmp_path / "m.keras")).forward(PHOTOS), expected, rtol=1e-5)


def test_channels_first(keras: Any, tmp_path: Path) -> None:
    layers, first = keras.layers, {"data_format": "channels_first"}
    model = keras.Sequential(
        [keras.Input((3, 16, 12)), layers.Conv2D(4, 3, strides=2, padding="same", **first),
         layers.BatchNormalization(axis=1), layers.Conv2D(6, 3, **first), layers.GlobalAveragePooling2D(**first),
         layers.Dense(5)]
    )  # fmt: skip
    scramble(model).save(tmp_path / "m.keras")
    source = load(file_recipe(tmp_path / "m.keras"))
    assert source.input_shape == (3, 16, 12)
    np.testing.assert_allclose(source.forward(PHOTOS), model(PHOTOS, training=False).numpy(), rtol=1e-5)


def test_mixed_precision_becomes_float32(keras: Any, tmp_path: Path) -> None:
    layers, seen = keras.layers, []
    for policy in ("mixed_float16", "float32"):
        keras.backend.clear_session()
        half = {"dtype": policy}
        body = [layers.Conv2D(4, 3, **half), layers.BatchNormalization(**half), layers.GlobalAveragePooling2D(**half)]
        model = scramble(keras.Sequential([keras.Input((16, 12, 3)), *body, layers.Dense(5, **half)]))
        model.save(tmp_path / f"{policy}.keras")
        seen.append(load(file_recipe(tmp_path / f"{policy}.keras")).forward(PHOTOS))
    np.testing.assert_allclose(*seen, rtol=1e-6)
    np.testing.assert_allclose(seen[1], run(model, PHOTOS), rtol=1e-6)


# ---- features


def test_features(keras: Any, tmp_path: Path) -> None:
    """What goes into the classifier: of a Dense in a model in a model, of a convolution, of a map."""
    layers = keras.layers
    dense, last = layers.Dense(5), layers.Conv2D(5, 1)
    image = keras.Input((16, 12, 3))
    x = layers.Conv2D(6, 3, activation="relu")(image)
    trunk = keras.Model(image, x)
    head = keras.Sequential([dense, layers.BatchNormalization()])
    nested = keras.Sequential([keras.Input((16, 12, 3)), trunk, keras.Sequential([layers.GlobalMaxPooling2D(), head])])
    conv = keras.Model(image, layers.GlobalAveragePooling2D()(last(layers.Dropout(0.5)(x))))
    flat = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    maps = np.asarray(trunk(PHOTOS.transpose(0, 2, 3, 1)))
    for model, expected in (
        (nested, maps.max(axis=(1, 2))), (conv, maps.mean(axis=(1, 2))), (flat, maps.reshape(3, -1)),
    ):  # fmt: skip
        model.save(tmp_path / "m.keras")
        source = load(file_recipe(tmp_path / "m.keras"))
        np.testing.assert_allclose(source.features(PHOTOS), expected, rtol=1e-5)
        np.testing.assert_allclose(source.forward(PHOTOS), run(model, PHOTOS), rtol=1e-4, atol=1e-4)


def test_a_network_without_weights_has_no_features(keras: Any, tmp_path: Path) -> None:
    inputs = keras.Input((16, 12, 3))
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(tmp_path / "m.keras")
    source = load(file_recipe(tmp_path / "m.keras"))
    with pytest.raises(InvalidInput, match=r"m\.keras: has no layer with weights"):
        source.features(PHOTOS)


# ---- pictures by the rule


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("resize", [20, (18, 25)])
def test_any_rule_as_torchvision_carries_it_out(interpolation: Any, resize: int | tuple[int, int], root: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    rule = Preprocess(
        size=(17, 15), resize=resize, mean=(3.0, 40.0, 70.0), std=(20.0, 30.0, 50.0), color="BGR", scale=0.5,
        interpolation=interpolation,
    )  # fmt: skip
    mode = transforms.InterpolationMode(interpolation)
    steps = [transforms.Resize(resize, mode), transforms.CenterCrop((17, 15)), transforms.PILToTensor()]
    for path in sample_files("photos")[:3]:
        with Image.open(path) as picture:
            pixels = transforms.Compose(steps)(picture.convert("RGB")).numpy().astype(np.float64)[::-1]
        expected = (pixels * 0.5 - np.array(rule.mean)[:, None, None]) / np.array(rule.std)[:, None, None]
        np.testing.assert_allclose(by_rule(path, rule)[0], expected, rtol=1e-6, atol=1e-6)


def test_turned_and_grey_pictures(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=exif)
    rule = Preprocess(size=(6, 4), resize=(6, 4), mean=(0.0,), std=(1.0,), color="L")
    np.testing.assert_array_equal(by_rule(tmp_path / "p.png", rule)[0, 0], np.rot90(pixels, -1))
