"""Nothing that a Keras file names is executed."""

from __future__ import annotations

import base64
import dis
import json
import marshal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.keras import load
from exporters.keras_config import unsafe
from runtime.errors import InvalidWeights
from tests.exporters.keras_support import (
    DIGITS,
    PHOTOS,
    Zoo,
    lenet,
    photos,
    refused,
    run,
    softmax,
)

h5py = pytest.importorskip("h5py")
pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# ---- nothing is executed


def charge(marker: Path) -> Any:
    """A lambda that leaves a trace wherever it runs."""
    return eval(f"lambda x: __import__('os').makedirs({str(marker)!r}, exist_ok=True) or x")


def tiny(keras: Any, *layers: Any) -> Any:
    keras.backend.clear_session()
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="last")(x))


def edit(path: Path, change: Callable[[dict[str, Any]], None], **members: bytes) -> None:
    """Change the configuration inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    change(config)
    contents |= {"config.json": json.dumps(config).encode(), **members}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def dense(config: dict[str, Any]) -> dict[str, Any]:
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")


def plain(name: str, module: str | None, values: Any, registered: str | None = None) -> dict[str, Any]:
    return {"class_name": name, "module": module, "config": values, "registered_name": registered}


def function(module: str, name: str) -> dict[str, Any]:
    return plain("function", module, name, name)


def code(marker: Path) -> dict[str, Any]:
    compiled = base64.b64encode(marshal.dumps(charge(marker).__code__)).decode()
    return {"class_name": "__lambda__", "config": {"code": compiled, "defaults": None, "closure": None}}


def inserted(value: dict[str, Any], key: str = "activation") -> Callable[[dict[str, Any]], None]:
    return lambda config: dense(config)["config"].update({key: value})


def replaced(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: dense(config).update(values)


def nested(config: dict[str, Any]) -> None:
    """Deep inside: the regularizer of the layer inside a wrapper inside a Sequential."""
    inner = {**dense(config)["config"], "kernel_regularizer": plain("system", "os", {"command": "true"})}
    wrapped = plain("TimeDistributed", "keras.layers", {"layer": plain("Dense", "keras.layers", inner)})
    dense(config).update(class_name="Sequential", module="keras", config={"name": "s", "layers": [wrapped]})


TRICKS: dict[str, tuple[Callable[[Path], Callable[[dict[str, Any]], None]], str]] = {
    "system": (lambda m: replaced(class_name="system", module="os", config={"command": f"mkdir {m}"}), "os.system"),
    "Popen": (
        lambda m: inserted(plain("Popen", "subprocess", {"args": ["mkdir", str(m)]}), "kernel_initializer"),
        "subprocess.Popen",
    ),
    "nested": (lambda m: nested, "os.system"),
    "function": (lambda m: inserted(function("os", "mkdir")), "os.function"),
    "lambda": (lambda m: inserted(code(m)), "a lambda, whose code would run"),
    "lambda in a list": (lambda m: lambda c: dense(c)["config"].update(x=[[1, {"y": code(m)}]]), "a lambda, whose"),
    "get_file": (
        lambda m: inserted(plain("get_file", "keras.utils", {"origin": "file:///etc/passwd"})),
        "keras.utils.get_file",
    ),
    "load_model": (
        lambda m: inserted(plain("load_model", "keras.models", {"filepath": "x"})),
        "keras.models.load_model",
    ),
    "unsafe": (lambda m: inserted(function("keras.config", "enable_unsafe_deserialization")), "keras.config.function"),
    "private": (lambda m: inserted(function("keras.src.utils.python_utils", "func_load")), "python_utils.function"),
    "registered": (lambda m: replaced(registered_name="os>system"), "the custom object 'Dense'"),
    "custom": (lambda m: replaced(class_name="mine>Layer"), "the custom object 'mine>Layer'"),
    "similar": (lambda m: replaced(module="keras_evil.layers"), "keras_evil.layers.Dense"),
    "relative": (lambda m: replaced(module=".os"), "the object .os.Dense"),
    "no string": (lambda m: replaced(module=["os"]), "an object without a name"),
    "type": (lambda m: inserted(plain("__typespec__", "os", [])), "a typespec, whose code"),
    "TFSMLayer": (
        lambda m: replaced(class_name="TFSMLayer", config={"name": "x", "filepath": str(m.parent)}),
        "a TFSMLayer layer, which loads another model",
    ),
    "torch": (
        lambda m: replaced(class_name="TorchModuleWrapper", config={"name": "x", "module": "gASVAAAA"}),
        "a TorchModuleWrapper layer, which unpickles",
    ),
    "lookup": (
        lambda m: replaced(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
        "a StringLookup layer, which opens a file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRICKS)
def test_a_configuration_cannot_call(kind: str, keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    make, message = TRICKS[kind]
    path, marker = tmp_path / "m.keras", tmp_path / "executed"
    tiny(keras).save(path)
    edit(path, make(marker))
    line = refused(zoo, path)
    assert "m.keras: refused, it holds " in line
    assert message in line
    # The same in a Keras 2 file, where the configuration is an attribute.
    old = tmp_path / "m.h5"
    tiny(keras).save(old)
    with zipfile.ZipFile(path) as archive, h5py.File(old, "a") as file:
        file.attrs["model_config"] = archive.read("config.json")
    assert message in refused(zoo, old)
    assert not marker.exists()


def test_lambda_layers(keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    model = tiny(keras, keras.layers.Lambda(charge(marker)))
    names = ("m.keras", "m.h5", "keras2.h5")
    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    model.save(tmp_path / "keras2.h5")
    with h5py.File(tmp_path / "keras2.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        (layer,) = (layer for layer in config["config"]["layers"] if layer["class_name"] == "Lambda")
        layer["config"]["function"] = [code(marker)["config"]["code"], None, None]
        layer["config"]["function_type"] = "lambda"
        file.attrs["model_config"] = json.dumps(config)
    for name in names:
        if marker.exists():
            marker.rmdir()
        line = refused(zoo, tmp_path / name)
        assert f"{name}: refused, it holds a Lambda layer, whose code would run when loaded" in line
        assert not marker.exists()
        # The bombs are real ones.
        keras.models.load_model(tmp_path / name, safe_mode=False, compile=False)
        assert marker.exists()


def double() -> Any:
    return eval("lambda x: x * 2")


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "keras2.h5"])
def test_a_trusted_file_may_hold_lambdas(name: str, keras: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    model = tiny(keras, keras.layers.Lambda(double(), output_shape=(784,)))
    model.save(path)
    if name == "keras2.h5":
        as_keras_2(path, base64.b64encode(marshal.dumps(double().__code__)).decode())
    with pytest.raises(
        InvalidWeights, match=r"holds a Lambda layer, .*: give .*, or, if you trust the file, add --trust"
    ):
        load(lenet(path))
    np.testing.assert_allclose(load(lenet(path, trust=True)).forward(DIGITS), run(model, DIGITS), rtol=1e-5)


def as_keras_2(path: Path, function: Any) -> None:
    """The same file as Keras 2 wrote it: a function is its code, or a name."""
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        (layer,) = (layer for layer in config["config"]["layers"] if layer["class_name"] == "Lambda")
        layer["config"]["function"] = [function, None, None] if len(function) > 40 else function
        layer["config"]["function_type"] = "lambda"
        layers = config["config"]["layers"]
        for entry, before in zip(layers, [None, *layers], strict=False):
            entry["inbound_nodes"] = [[[before["name"], 0, 0, {}]]] if before else []
        layers[0]["config"]["batch_input_shape"] = layers[0]["config"].pop("batch_shape")
        config["config"] |= {"input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.8.0"


@pytest.mark.parametrize("name", ["m.keras", "keras2.h5"])
def test_code_of_another_python(name: str, keras: Any, tmp_path: Path) -> None:
    """Bytecode of another release would crash the interpreter: what it does not know, it does not run."""
    code = double().__code__
    unknown = next(number for number, known in enumerate(dis.opname) if known == f"<{number}>")
    path, whole = tmp_path / name, marshal.dumps(code)
    assert code.co_code in whole
    changed = code.co_code[:2] + bytes([unknown, 0]) + code.co_code[4:]
    for broken in (whole.replace(code.co_code, changed), whole.replace(code.co_code, bytes(len(changed))), whole[:-9]):
        text = base64.b64encode(broken).decode()
        if name == "m.keras":
            tiny(keras, keras.layers.Lambda(double(), output_shape=(784,))).save(path)
            edit(path, lambda config, text=text: inner_code(config).update(code=text))
        else:
            tiny(keras, keras.layers.Lambda(double(), output_shape=(784,))).save(path)
            as_keras_2(path, text)
        with pytest.raises(
            InvalidWeights, match=r"holds a lambda compiled by another Python than \d\.\d+: export with"
        ):
            load(lenet(path, trust=True))


def inner_code(config: dict[str, Any]) -> dict[str, Any]:
    (layer,) = (layer for layer in config["config"]["layers"] if layer["class_name"] == "Lambda")
    found: dict[str, Any] = layer["config"]["function"]["config"]
    return found


def test_a_function_that_is_not_in_the_file(keras: Any, tmp_path: Path) -> None:
    tiny(keras, keras.layers.Lambda(double(), output_shape=(784,))).save(tmp_path / "m.h5")
    as_keras_2(tmp_path / "m.h5", "of_mine")
    with pytest.raises(InvalidWeights, match="a Lambda layer of the function 'of_mine', whose code is not in the file"):
        load(lenet(tmp_path / "m.h5", trust=True))


def test_lambda_deep_inside(keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    inner = keras.Sequential([keras.Input((784,)), keras.layers.Lambda(charge(marker))])
    for name in ("m.keras", "m.h5"):
        tiny(keras, keras.Sequential([keras.Input((784,)), inner])).save(tmp_path / name)
        marker.rmdir()
        assert "a Lambda layer" in refused(zoo, tmp_path / name)
        assert not marker.exists()
        keras.models.load_model(tmp_path / name, safe_mode=False, compile=False)
        assert marker.exists()


def test_files_beside_the_model(keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    """Keras unpacks a whole archive when it holds more than it wrote."""
    path = tmp_path / "m.keras"
    tiny(keras).save(path)
    edit(path, lambda config: None, **{"../../executed": b"x"})
    assert "refused, it holds ../../executed" in refused(zoo, path)


def test_two_formats_in_one_file(keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    """HDF5 in front and a zip behind: what is checked is what is loaded."""
    marker = tmp_path / "executed"
    tiny(keras, keras.layers.Lambda(charge(marker))).save(tmp_path / "bad.h5")
    tiny(keras).save(tmp_path / "good.keras")
    marker.rmdir()
    path = tmp_path / "m.h5"
    path.write_bytes((tmp_path / "bad.h5").read_bytes() + (tmp_path / "good.keras").read_bytes())
    assert zipfile.is_zipfile(path)
    refused(zoo, path)
    assert not marker.exists()


def test_links_out_of_the_file(network: Any, zoo: Zoo, tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    network.save_weights(other)
    network.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "a") as file:
        del file["layers/dense"]
        file["layers/dense"] = h5py.ExternalLink(str(other), "layers/dense")
    assert "2 missing (layers/dense/vars/0" in refused(zoo, tmp_path / "w.weights.h5")


def test_ordinary_models_are_allowed(keras: Any, tmp_path: Path) -> None:
    """Losses and metrics of one's own are not built; every layer of vision networks is fine."""
    layers = keras.layers
    x = inputs = keras.Input((16, 12, 3))
    x = layers.RandomFlip()(layers.Rescaling(1 / 255)(x))
    x = layers.SeparableConv2D(4, 3, pointwise_regularizer="l2", activation="gelu")(x)
    x = layers.Conv2D(4, 3, kernel_initializer=keras.initializers.HeNormal(), kernel_constraint="max_norm")(x)
    x = layers.GroupNormalization(2)(layers.PReLU()(layers.BatchNormalization()(x)))
    x = x * keras.ops.sigmoid(layers.Normalization(mean=1.0, variance=2.0)(x))
    x = layers.Dense(5, activation=keras.activations.softmax)(layers.Dropout(0.5)(layers.GlobalMaxPooling2D()(x)))
    model = keras.Model(inputs, x)

    def loss_of_mine(true: Any, given: Any) -> Any:
        return keras.ops.mean(given - true)

    model.compile("adam", loss_of_mine)
    path = tmp_path / "m.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"loss_of_mine" in archive.read("config.json")
    np.testing.assert_allclose(softmax(load(photos(path)).forward(PHOTOS)), run(model, PHOTOS), atol=1e-6)


def test_every_application_is_allowed(keras: Any) -> None:
    """What Keras Applications are made of, by the names Keras writes."""
    config = keras.saving.serialize_keras_object(keras.applications.MobileNetV3Small(weights=None))
    assert unsafe(config) is None
    assert unsafe({"layers": [config, {"class_name": "Lambda"}]}) is not None
