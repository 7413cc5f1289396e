"""Keras weights files: what should load does, all else is refused in one line."""

from __future__ import annotations

import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from exporters.keras import load
from exporters.source import Weights
from runtime.errors import InvalidWeights, UnknownName
from runtime.files import sha256
from tests.exporters.keras_support import (
    BUNDLED,
    DIGITS,
    PHOTOS,
    Zoo,
    lenet,
    photos,
    refused,
    run,
    save_legacy,
    scramble,
)
from zoo.models import find

h5py = pytest.importorskip("h5py")
pytest.importorskip("tensorflow")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
    assert source.weights_sha256 == sha256(path)


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
    assert source.weights_sha256 == other.weights_sha256 == sha256(BUNDLED)


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
    assert done.code == 2
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
