"""Keras weights and models: what should load does, all else is refused in one line, and nothing is executed."""

from __future__ import annotations

import base64
import gc
import json
import marshal
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exporters.keras import _import_keras, load
from exporters.keras_config import unsafe
from exporters.source import Recipe, Weights, file_sha256
from runtime.errors import InvalidWeights, UnknownName
from runtime.metadata import Labels, Preprocess
from zoo.labels import load as labels
from zoo.models import MODELS, find
from zoo.spec import Variant

h5py = pytest.importorskip("h5py")
pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BUNDLED = Path(__file__).parents[2] / "zoo" / "bundled" / "lenet5.safetensors"
DIGITS = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
PHOTOS = np.random.default_rng(0).uniform(0, 255, size=(3, 3, 16, 12)).astype(np.float32)
RULE = Preprocess(size=(16, 12), resize=(16, 12), mean=(0.0,) * 3, std=(1.0,) * 3)
NAMES = Labels(names=("a", "b", "c", "d", "e"))
Zoo = Callable[..., Any]


@pytest.fixture(scope="module")
def keras() -> Any:
    return _import_keras()


@pytest.fixture(autouse=True)
def quick_garbage() -> Iterator[None]:
    """Keras collects garbage whenever it clears its session: let it not walk through both frameworks each time."""
    gc.freeze()
    yield
    gc.unfreeze()


def lenet(path: Path | None, **changes: Any) -> Recipe:
    _, variant = find("lenet5").variant("keras")
    weights = Weights(kind="file", path=path) if path else Weights(kind="none", seed=3)
    values = {"name": "lenet5", "builder": variant.builder, "preprocess": variant.preprocess, "samples": "digits"}
    return Recipe(**{**values, "labels": labels("digits"), "weights": weights, **changes})


def photos(path: Path, **changes: Any) -> Recipe:
    return replace(lenet(path), name="mine", preprocess=RULE, labels=NAMES, **changes)


def run(model: Any, batch: Any) -> Any:
    """What Keras itself answers, from pictures as the artifact takes them."""
    return model(batch.transpose(0, 2, 3, 1), training=False).numpy()


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def scramble(model: Any, seed: int = 1) -> Any:
    """Seeded values for every weight, those that begin as zeros and ones too."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 0.4, size=value.shape) for value in model.get_weights()])
    return model


@pytest.fixture
def network(keras: Any) -> Any:
    """LeNet-5 with weights of its own."""
    from exporters.architectures.lenet5 import build_keras

    keras.backend.clear_session()
    return scramble(build_keras())


def save_legacy(model: Any, path: Path) -> None:
    """Weights alone, as Keras 2 wrote them to .h5."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def refused(zoo: Zoo, path: Path, *argv: object, name: str = "lenet5") -> str:
    """The one line that ``zoo export`` ends with, having written nothing."""
    before = sorted(path.parent.rglob("*"))
    done = zoo("export", name, "--source", "keras", "--weights", path, "-o", path.parent / "out.onnx", *argv)
    assert done.code == 2
    assert done.err.startswith("zoo: error: ")
    assert done.err.count("\n") == 1
    assert sorted(path.parent.rglob("*")) == before
    return str(done.err)


# ---- files that load


def save_trained(model: Any, path: Path) -> None:
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 28, 28, 1)), np.zeros(2), verbose=0)
    scramble(model)
    model.save_weights(path)


def save_tensors(model: Any, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({variable.path: variable.numpy() for variable in model.weights}, path)


def save_torch_tensors(model: Any, path: Path) -> None:
    """In PyTorch's names and order, written out by hand for LeNet-5."""
    from safetensors.numpy import save_file

    values = {variable.path: variable.numpy() for variable in model.weights}
    state = {}
    for layer in ("conv1", "conv2", "fc1", "fc2", "fc3"):
        kernel = values[f"{layer}/kernel"]
        if layer == "fc1":
            kernel = np.moveaxis(kernel.reshape(5, 5, 16, 120), 2, 0).reshape(400, 120)
        state[f"{layer}.weight"] = np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
        state[f"{layer}.bias"] = values[f"{layer}/bias"]
    save_file(state, path)


def save_unnamed(model: Any, path: Path) -> None:
    """As Keras 3.0 wrote them: no names of layers."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.visititems(lambda place, item: item.attrs.pop("name", None) and None)


def save_2_12(model: Any, path: Path) -> None:
    """As TensorFlow 2.12 and 2.13 wrote them: layers in a group of another name."""
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.move("layers", "_layer_checkpoint_dependencies")


def save_renamed(model: Any, path: Path) -> None:
    """The same network with a layer of another name: by place it fits."""
    model.get_layer("fc2").name = "dense_of_mine"
    (save_legacy if path.name == "renamed.h5" else type(model).save_weights)(model, path)


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "own.weights.h5": lambda model, path: model.save_weights(path),
    "trained.weights.h5": save_trained,
    "unnamed.weights.h5": save_unnamed,
    "old.weights.h5": save_2_12,
    "renamed.weights.h5": save_renamed,
    "renamed.h5": save_renamed,
    "legacy.h5": save_legacy,
    "legacy.hdf5": save_legacy,
    "whole.keras": lambda model, path: model.save(path),
    "whole.h5": lambda model, path: model.save(path),
    "whole.hdf5": lambda model, path: model.save(path),
    "whole.weights.h5": lambda model, path: (model.save(path.with_name("a.h5")), path.with_name("a.h5").rename(path)),
    "paths.safetensors": save_tensors,
    "torch.safetensors": save_torch_tensors,
}  # fmt: skip


@pytest.mark.parametrize("name", SAVERS)
def test_files_load(name: str, network: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVERS[name](network, path)
    expected = run(network, DIGITS)
    assert np.ptp(expected) > 0.1
    source = load(lenet(path))
    np.testing.assert_allclose(source.forward(DIGITS), expected, rtol=1e-6)
    assert source.weights_sha256 == file_sha256(path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_safetensors_of_other_floats(dtype: str, network: Any, keras: Any, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    values = {
        variable.path: torch.from_numpy(variable.numpy()).to(getattr(torch, dtype)) for variable in network.weights
    }
    save_file(values, tmp_path / "w.safetensors")
    network.set_weights([values[variable.path].float().numpy() for variable in network.weights])
    source = load(lenet(tmp_path / "w.safetensors"))
    np.testing.assert_allclose(source.forward(DIGITS), run(network, DIGITS), rtol=1e-6)


def test_bundled_weights_are_the_same_network_in_both_frameworks() -> None:
    from exporters.torch import load as load_torch

    _, variant = find("lenet5").variant("torch")
    other = load_torch(replace(lenet(BUNDLED), builder=variant.builder))
    source = load(lenet(BUNDLED))
    np.testing.assert_allclose(source.forward(DIGITS), other.forward(DIGITS), rtol=1e-4, atol=1e-4)
    assert source.weights_sha256 == other.weights_sha256 == file_sha256(BUNDLED)


def test_untrained_weights_follow_the_seed() -> None:
    first, again = load(lenet(None)), load(lenet(None))
    other = load(lenet(None, weights=Weights(kind="none", seed=4)))
    assert np.array_equal(first.forward(DIGITS), again.forward(DIGITS))
    assert not np.allclose(first.forward(DIGITS), other.forward(DIGITS))
    assert first.weights_sha256 is None


# ---- files that do not fit


def wider(keras: Any, *, classes: int = 10, extra: bool = False, missing: bool = False, fc2: int = 84) -> Any:
    """LeNet-5, but for what the arguments change."""
    from keras import layers

    keras.backend.clear_session()
    x = inputs = keras.Input((28, 28, 1), name="image")
    for number, maps in ((1, 6), (2, 16)):
        x = layers.Conv2D(maps, 5, padding="same" if number == 1 else "valid", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Dense(120, name="fc1")(layers.Flatten(name="flatten")(x))
    if not missing:
        x = layers.Dense(fc2, name="fc2")(x)
    x = layers.Dense(classes, name="fc3")(x)
    if extra:
        x = layers.Dense(10, name="fc4")(x)
    return scramble(keras.Model(inputs, x))


MISFITS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what changes; what the line says for .weights.h5; for the legacy .h5
    "extra": ({"extra": True}, "2 unexpected (layers/dense_3/vars/0", "Model expected 5 layers, found 6 saved layers"),
    "missing": ({"missing": True}, "2 missing (layers/dense_2/vars/0", "Model expected 5 layers, found 4 saved layers"),
    "shape": ({"fc2": 64}, "layers/dense_1/vars/0 [120, 64] instead of [120, 84]", "Weight expects shape (120, 84)"),
    "classes": ({"classes": 26}, "layers/dense_2/vars/0 [84, 26] instead of [84, 10]", "Weight expects shape (84, 10)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISFITS)
def test_weights_of_another_network(kind: str, keras: Any, zoo: Zoo, tmp_path: Path) -> None:
    changes, new, legacy = MISFITS[kind]
    model = wider(keras, **changes)
    model.save_weights(tmp_path / "w.weights.h5")
    save_legacy(model, tmp_path / "w.h5")
    for name, what in (("w.weights.h5", new), ("w.h5", legacy)):
        line = refused(zoo, tmp_path / name)
        assert f"{name}: the weights do not fit lenet5 with 10 labels: " in line
        assert what in line


def test_keras_itself_ignores_layers(keras: Any, network: Any, tmp_path: Path) -> None:
    """Why the files are compared first: this loads without a word."""
    wider(keras, extra=True).save_weights(tmp_path / "w.weights.h5")
    network.load_weights(tmp_path / "w.weights.h5")


def test_safetensors_of_another_network(keras: Any, network: Any, zoo: Zoo, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "w.safetensors"
    save_tensors(wider(keras, extra=True), path)
    assert "do not fit lenet5 with 10 labels: 2 unexpected (fc4/" in refused(zoo, path)
    values = {variable.path: variable.numpy() for variable in network.weights}
    save_file({**values, "fc2/kernel": values["fc2/kernel"].astype(np.int8)}, path)
    assert "fc2/kernel is int8: give the weights before quantization" in refused(zoo, path)
    save_file({"features.0.weight": np.zeros((4, 3, 3, 3), "f")}, path)
    assert "give LeNet-5's own state dict" in refused(zoo, path)
    assert "(features.0.weight); PyTorch's names need --source torch" in refused(zoo, path, name="mobilenet_v1")


def test_number_of_labels(network: Any, zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    for name in ("own.weights.h5", "legacy.h5", "paths.safetensors"):
        SAVERS[name](network, tmp_path / name)
        line = refused(zoo, tmp_path / name, "--labels", tmp_path / "names.txt")
        assert "do not fit lenet5 with 3 labels" in line
    network.save(tmp_path / "whole.keras")
    line = refused(zoo, tmp_path / "whole.keras", "--labels", tmp_path / "names.txt")
    assert "whole.keras: the network has 10 outputs, the labels are 3" in line


def twins(keras: Any, *, turned: bool = False, **options: int) -> Any:
    """Two layers of one shape, in either order."""
    names = ("right", "left") if turned else ("left", "right")
    x = inputs = keras.Input((16, 12, 3))
    for name in names:
        x = keras.layers.Conv2D(3, 3, padding="same", name=name)(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="last")(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5"])
def test_layers_in_another_order(
    name: str, keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Keras goes by place, and would give each the other's weights: shapes agree."""
    module = ModuleType("twins")
    module.build = lambda num_classes, input_shape: twins(keras)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "twins", module)
    path = tmp_path / name
    save = save_legacy if name == "w.h5" else lambda model, path: model.save_weights(path)
    model = scramble(twins(keras))
    save(model, path)
    expected = run(model, PHOTOS)
    np.testing.assert_allclose(load(photos(path, builder="twins:build")).forward(PHOTOS), expected, rtol=1e-6)
    save(scramble(twins(keras, turned=True)), path)
    with pytest.raises(InvalidWeights, match="its layers come in another order, from right on"):
        load(photos(path, builder="twins:build"))


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_whole_model_with_a_layer_missing(name: str, network: Any, zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / name
    network.save(path)
    inner = tmp_path / "model.weights.h5"
    if name == "m.keras":
        with zipfile.ZipFile(path) as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        inner.write_bytes(members["model.weights.h5"])
        with h5py.File(inner, "a") as file:
            del file["layers/dense_1/vars"]
        members["model.weights.h5"] = inner.read_bytes()
        inner.unlink()
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    else:
        with h5py.File(path, "a") as file:
            del file["model_weights"].attrs["layer_names"]
            file["model_weights"].attrs["layer_names"] = [b"conv1", b"conv2", b"fc1", b"fc3"]
    assert f"{name}: the model cannot be read (" in refused(zoo, path)


def test_what_keras_skips_with_a_warning(
    network: Any, keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Keras does for layers in containers that an older Keras did not save."""
    network.save(tmp_path / "m.keras")
    original = keras.models.load_model

    def skipping(*args: Any, **options: Any) -> Any:
        warnings.warn("Skipping nested container at 'blocks/container': no matching group found.", stacklevel=2)
        return original(*args, **options)

    monkeypatch.setattr(keras.models, "load_model", skipping)
    with pytest.raises(InvalidWeights, match=r"m\.keras: incomplete: Skipping nested container at 'blocks"):
        load(lenet(tmp_path / "m.keras"))


@pytest.mark.slow
def test_weights_that_are_not_finite(network: Any, zoo: Zoo, tmp_path: Path) -> None:
    values = network.get_weights()
    values[-1][3] = np.nan
    network.set_weights(values)
    network.save_weights(tmp_path / "w.weights.h5")
    done = zoo("export", "lenet5", "--weights", tmp_path / "w.weights.h5", "-o", tmp_path / "out.onnx")
    assert done.code != 0
    assert "not finite" in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.weights.h5"]


# ---- files of the wrong kind


def hdf5(tmp_path: Path, **groups: Any) -> bytes:
    path = tmp_path / "made.h5"
    with h5py.File(path, "w") as file:
        for name, value in groups.items():
            file[name] = value
    data = path.read_bytes()
    path.unlink()
    return data


def trimmed(network: Any, folder: Path, name: str, keep: float) -> bytes:
    SAVERS[name](network, folder / name)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    return data[: int(len(data) * keep)]


WRONG: dict[str, tuple[str, Callable[[Any, Path], bytes], str]] = {
    "text": ("w.h5", lambda n, f: b"not the weights you are looking for\n", "w.h5: not a weights file: give .pth"),
    "nothing": ("w.keras", lambda n, f: b"", "w.keras: is empty"),
    "cut model": ("w.keras", lambda n, f: trimmed(n, f, "whole.keras", 0.6), "w.keras: damaged or cut short"),
    "cut legacy": ("w.h5", lambda n, f: trimmed(n, f, "legacy.h5", 0.6), "w.h5: damaged or cut short (Unable to"),
    "cut weights": ("w.weights.h5", lambda n, f: trimmed(n, f, "own.weights.h5", 0.6), "w.weights.h5: damaged or cut"),
    "cut safetensors": ("w.safetensors", lambda n, f: BUNDLED.read_bytes()[:99_999], "w.safetensors: the weights can"),
    "huge header": ("w.safetensors", lambda n, f: struct.pack("<Q", 2**62) + b"{}", "w.safetensors: the weights can"),
    "other hdf5": ("w.h5", lambda n, f: hdf5(f, data=np.zeros(3)), "w.h5: no layers with weights"),
    "other weights": ("w.weights.h5", lambda n, f: hdf5(f, data=np.zeros(3)), "10 missing (layers/conv2d/vars/0"),
    "Keras 3 as 2": ("w.h5", lambda n, f: trimmed(n, f, "own.weights.h5", 1), "Keras 3 weights end in .weights.h5"),
    "Keras 2 as 3": ("w.weights.h5", lambda n, f: trimmed(n, f, "legacy.h5", 1), "10 missing (layers/conv2d/vars/0"),
    "model as hdf5": ("w.h5", lambda n, f: trimmed(n, f, "whole.keras", 1), "w.h5: a Keras file: let its name end in"),
    "hdf5 as model": ("w.keras", lambda n, f: trimmed(n, f, "whole.h5", 1), "w.keras: a Keras file: let its name end"),
    "legacy torch": ("w.h5", lambda n, f: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "w.h5: a PyTorch file: use"),
    "bad config": ("w.h5", lambda n, f: with_config(n, f, b"{not json"), "w.h5: the model cannot be read (Expecting"),
    "no config": ("w.h5", lambda n, f: with_config(n, f, b"[]"), "w.h5: the model cannot be read"),
}  # fmt: skip


def with_config(network: Any, folder: Path, config: bytes) -> bytes:
    path = folder / "made.h5"
    network.save(path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = config
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_kinds_of_file(kind: str, network: Any, zoo: Zoo, tmp_path: Path) -> None:
    name, make, message = WRONG[kind]
    path = tmp_path / name
    path.write_bytes(make(network, tmp_path))
    assert message in refused(zoo, path)


def test_a_torch_file_a_folder_and_nothing(zoo: Zoo, tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(2)}, tmp_path / "w.pth")
    assert "w.pth: a PyTorch file: use --source torch" in refused(zoo, tmp_path / "w.pth")
    (tmp_path / "saved_model.keras").mkdir()
    (tmp_path / "saved_model.keras" / "config.json").write_text("{}")
    assert "saved_model.keras" in refused(zoo, tmp_path / "saved_model.keras")
    assert "none.h5: no such weights file" in refused(zoo, tmp_path / "none.h5")


def test_builders_nobody_knows() -> None:
    for builder in ("keras:ResNet51", "keras:resnet50", "exporters.architectures.lenet5:build", "nowhere:x"):
        with pytest.raises(UnknownName):
            load(lenet(None, builder=builder))


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


def frozen(keras: Any) -> Any:
    inputs = keras.Input(batch_shape=(2, 16, 12, 3))
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(inputs)))


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
    "frozen": (frozen, "is frozen to batches of 2"),
    "no input": (without_input, "the network states no input"),
    "map": (headed(lambda k, x: k.layers.Dense(5)(k.layers.Reshape((2, 3))(x))), "not a classifier: its output is"),
    "sigmoid": (headed(lambda k, x: k.layers.Dense(5, activation="sigmoid")(x)), "ends in a sigmoid"),
    "sigmoid layer": (headed(lambda k, x: k.layers.Activation("sigmoid")(k.layers.Dense(5)(x))), "ends in a sigmoid"),
    "hard sigmoid": (headed(lambda k, x: k.ops.hard_sigmoid(k.layers.Dense(5)(x))), "ends in a sigmoid"),
    "nested sigmoid": (sequential(lambda k: k.Sequential([k.layers.Dense(5, activation="sigmoid")])), "ends in a"),
    "fewer": (headed(lambda k, x: k.layers.Dense(4)(x)), "the network has 4 outputs, the labels are 5"),
    "shared": (shared_softmax, "taking off its softmax changes its answers"),
    "normalised": (normalised, "gives probabilities, not logits"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_other_networks_get_a_clear_no(kind: str, keras: Any, tmp_path: Path) -> None:
    build, message = ODD[kind]
    (build(keras)).save(tmp_path / "m.keras")
    with pytest.raises(InvalidWeights) as caught:
        load(photos(tmp_path / "m.keras"))
    first, _, last = f"m.keras: {message}".partition(".*")
    assert str(caught.value).startswith(first)
    assert last in str(caught.value)


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


# ---- real files


@pytest.mark.slow
def test_keras_2_mobilenet_on_real_photos(shared_data: Path, zoo: Zoo, tmp_path: Path, keras: Any) -> None:
    """DepthwiseConv2D with the ``groups`` that Keras 3 refuses; the answers are those of Keras on the same pixels."""
    from PIL import Image

    from runtime.model import Model

    path, output = shared_data / "weights" / "keras" / "mobilenet_v1_0.25_128.h5", tmp_path / "m.onnx"
    done = zoo("export", "mobilenet_v1", "--weights", path, "-o", output)
    assert done.code == 0, done.err
    pictures = sorted((shared_data / "photos").glob("*.jpg"))[:60]

    def pixels(picture: Path) -> Any:
        with Image.open(picture) as image:
            return (
                np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
            )

    batch = np.stack([pixels(picture) for picture in pictures])
    with pytest.raises(Exception, match="groups"):
        keras.models.load_model(path, compile=False)
    reference = rebuilt(keras, path)(batch, training=False).numpy()
    np.testing.assert_allclose(reference.sum(axis=1), 1, atol=1e-5)
    with Model(output) as model:
        assert model.rule.size == (128, 128)
        logits = np.concatenate([model.run(batch[i : i + 20].transpose(0, 3, 1, 2)) for i in range(0, 60, 20)])
        answers = list(model.predict_many(pictures))
    assert np.array_equal(logits.argmax(axis=1), reference.argmax(axis=1))
    assert [answer.index for answer in answers] == reference.argmax(axis=1).tolist()
    assert [answer.probability for answer in answers] == pytest.approx(reference.max(axis=1), abs=1e-4)
    np.testing.assert_allclose(softmax(logits), reference, atol=1e-4)
    assert logits.min() < -1


def rebuilt(keras: Any, path: Path) -> Any:
    """The same file by another road: today's architecture, its weights put in one by one, softmax and all."""
    keras.backend.clear_session()
    model = keras.applications.MobileNet((128, 128, 3), alpha=0.25, weights=None)
    with h5py.File(path) as file:
        for layer in model.layers:
            if layer.weights:
                group = file["model_weights"][layer.name]
                layer.set_weights([group[name][()] for name in group.attrs["weight_names"]])
    return model


@pytest.mark.slow
def test_keras_2_resnet8(shared_data: Path, tmp_path: Path, keras: Any) -> None:
    """A whole model of 2020, its own architecture, 10 classes, exported with a recipe made by hand."""
    from exporters.export import export
    from runtime.model import Model

    path = shared_data / "weights" / "keras" / "resnet8_cifar10.h5"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    rule = Preprocess(size=(32, 32), resize=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
    recipe = replace(lenet(path), name="resnet8", preprocess=rule, labels=Labels(names=classes), samples="photos")
    subset = np.load(shared_data / "cifar10" / "cifar10_subset.npz")
    images, truth = subset["x_test"], subset["y_test"]
    export(recipe, "keras", tmp_path / "r.onnx")
    with Model(tmp_path / "r.onnx") as model:
        answers = list(model.predict_many(images, batch_size=100))
    assert np.mean([answer.index for answer in answers] == truth) == pytest.approx(0.877, abs=0.005)
    # Pixels go in as they are, so Keras needs no preprocessing at all.
    probabilities = keras.models.load_model(path, compile=False)(images.astype(np.float32), training=False).numpy()
    assert np.array_equal(probabilities.argmax(axis=1), [answer.index for answer in answers])
    assert [answer.probability for answer in answers] == pytest.approx(probabilities.max(axis=1), abs=1e-4)


# ---- the same bytes each time


EXPORT = "from zoo.cli import main; "


def fresh(tmp_path: Path, script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPORT + script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_exports_in_fresh_processes_are_identical(tmp_path: Path) -> None:
    one = "assert main(['export', 'lenet5', '--source', 'keras', '-o', {!r}]) == 0; ".format
    other = "assert main(['export', 'mobilenet_v1', '--weights', 'none', '-o', 'other.onnx']) == 0; "
    fresh(tmp_path, one("a.onnx"))
    fresh(tmp_path, one("b.onnx") + other)
    fresh(tmp_path, other.replace("other.onnx", "again.onnx") + one("c.onnx") + one("d.onnx"))
    contents = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in ("a", "b", "c", "d", "other", "again")}
    assert len({contents[name] for name in "abcd"}) == 1
    assert contents["other"] == contents["again"] != contents["a"]


# ---- the rows of the catalogue


VARIANTS = [(spec.name, spec.sources["keras"]) for spec in MODELS if "keras" in spec.sources]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_rows_are_what_keras_says(name: str, variant: Variant, keras: Any) -> None:
    rule = variant.preprocess
    library, _, network = variant.builder.partition(":")
    if library != "keras":
        assert load(lenet(None)).forward(DIGITS).shape == (3, 10)
        return
    constructor = getattr(keras.applications, network)
    model = constructor(weights=None)
    assert model.count_params() == variant.parameters
    assert model.output_shape == (None, 1000)
    assert model.input_shape[1:] in ((*rule.size, 3), (None, None, 3))
    module = sys.modules[constructor.__module__]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    own = module.preprocess_input(pixels.copy())
    channels = pixels[..., ::-1] if rule.color == "BGR" else pixels
    np.testing.assert_allclose((channels * rule.scale - rule.mean) / rule.std, own, atol=1e-4)
    # Where preprocess_input does nothing, the network has to do it.
    inside = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    assert inside == (name in ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0"))
    assert inside == np.array_equal(own, pixels)


def test_which_rows_keras_has_checksums_for(keras: Any) -> None:
    """MobileNet and MobileNetV2 come without one. If this fails, Keras has more: say so in ``keras_model``."""
    import inspect

    checked = {}
    for name, variant in VARIANTS:
        library, _, network = variant.builder.partition(":")
        if library == "keras":
            module = sys.modules[getattr(keras.applications, network).__module__]
            source = inspect.getsource(module)
            source += inspect.getsource(sys.modules["keras.src.applications.resnet"]) if network == "ResNet50" else ""
            checked[name] = "file_hash" in source
    assert {name for name, found in checked.items() if not found} == {"mobilenet_v1", "mobilenet_v2"}
