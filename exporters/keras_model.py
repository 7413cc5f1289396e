"""Keras networks, built and filled: with weights of Keras Applications, of a file, or at random.

Keras Applications state an MD5 for most weights, which Keras checks after a download. For MobileNet and
MobileNetV2 they state none; there the artifact's provenance, the SHA-256 of all parameters, is what two
exports can be compared by.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.hub import first_line, reaching
from exporters.keras_config import check_model_file
from exporters.source import Recipe, arrays_sha256, describe_mismatch, file_sha256, import_builder
from exporters.weights_file import kind_of
from runtime.errors import EdgeZooError, InvalidWeights, UnknownName, WeightsUnavailable

_PUBLISHED_CLASSES = 1000


def load_model(recipe: Recipe) -> tuple[Any, str | None]:
    """The network with its weights, and a SHA-256: of the weights file, or of the parameters from a hub.

    A file that holds a whole model (.keras, most .h5) brings its own architecture and input size.
    Raises UnknownName, WeightsUnavailable or InvalidWeights.
    """
    weights = recipe.weights
    if weights.kind == "imagenet":
        model = _from_hub(recipe)
        return model, arrays_sha256({variable.path: variable.numpy() for variable in model.weights})
    if weights.path is None:
        return _build(recipe), None
    return _from_file(weights.path, recipe), file_sha256(weights.path)


def _constructor(recipe: Recipe) -> Callable[..., Any]:
    import keras

    library, _, name = recipe.builder.partition(":")
    if library != "keras":
        return import_builder(recipe.builder)
    constructor: Callable[..., Any] | None = getattr(keras.applications, name, None)
    if not callable(constructor):
        raise UnknownName(f"keras.applications has no model {name!r}")
    return constructor


def _build(recipe: Recipe) -> Any:
    shape = (*recipe.preprocess.size, recipe.preprocess.channels)
    constructor, classes = _constructor(recipe), len(recipe.labels.names)
    if not recipe.builder.startswith("keras:"):
        return constructor(num_classes=classes, input_shape=shape)
    return constructor(weights=None, input_shape=shape, classes=classes, classifier_activation=None)


# ---- the hub


def _from_hub(recipe: Recipe) -> Any:
    import keras

    if not recipe.builder.startswith("keras:"):
        raise WeightsUnavailable(f"{recipe.builder} has no published weights: use --weights FILE or --weights none")
    if len(recipe.labels.names) != _PUBLISHED_CLASSES:
        raise InvalidWeights(
            f"the imagenet weights have {_PUBLISHED_CLASSES} classes, the labels are {len(recipe.labels.names)}"
        )
    constructor = _constructor(recipe)
    with reaching(f"the imagenet weights of {recipe.builder}"):
        try:
            # At its own size: with weights, Keras refuses others for some networks, where no weight depends on it.
            model = constructor(weights="imagenet", classifier_activation=None)
        except OSError as error:
            if error.errno is not None or isinstance(error, TimeoutError):
                raise  # the network or the disk; else it is h5py, at what a killed download left in the cache
            folder = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"
            raise WeightsUnavailable(
                f"the imagenet weights of {recipe.builder} in {folder} cannot be read ({first_line(error)}): "
                "delete that file, and it will be downloaded again"
            ) from error
    if tuple(model.input_shape[1:3]) == recipe.preprocess.size:
        return model
    values = model.get_weights()
    keras.backend.clear_session()  # layer names count from 1 again
    model = _build(recipe)
    try:
        model.set_weights(values)
    except ValueError as error:
        raise InvalidWeights(
            f"{recipe.builder}: the imagenet weights do not fit pictures of {recipe.preprocess.size} "
            f"({first_line(error)}): leave --input-size out"
        ) from error
    return model


# ---- files


def _from_file(path: Path, recipe: Recipe) -> Any:
    kind = kind_of(path)
    if kind in ("torch", "torchscript"):
        raise InvalidWeights(f"{path}: a PyTorch file: use --source torch")
    suffixes = {"keras": (".keras",), "hdf5": (".h5", ".hdf5")}.get(kind)
    if suffixes and path.suffix not in suffixes:  # what Keras goes by
        raise InvalidWeights(f"{path}: a Keras file: let its name end in {suffixes[0]}")
    whole = brings_its_own_network(path)
    try:
        if whole:
            check_model_file(path, "keras" if kind == "keras" else "hdf5")
            return _load_whole(path)
        model = _build(recipe)
        fits = f"do not fit {recipe.name} with {len(recipe.labels.names)} labels"
        if kind == "safetensors":
            _load_safetensors(model, path, recipe, fits)
        elif path.name.endswith(".weights.h5"):
            _load_weights_h5(model, path, fits)
        else:
            _load_legacy_h5(model, path, fits)
    except EdgeZooError:
        raise
    except Exception as error:
        what = "the model cannot be read" if whole else f"the weights cannot be loaded into {recipe.name}"
        raise InvalidWeights(f"{path}: {what} ({first_line(error)})") from error
    return model


def brings_its_own_network(path: Path) -> bool:
    """Whether the file holds a whole model, architecture included, and not weights alone.

    Raises WeightsUnavailable or InvalidWeights for a file that is none.
    """
    kind = kind_of(path)
    return kind == "keras" or (kind == "hdf5" and _holds_model(path))


def _holds_model(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise InvalidWeights(f"{path}: damaged or cut short ({first_line(error)})") from error


def _load_whole(path: Path) -> Any:
    """A saved model, architecture included, whose configuration has been checked."""
    import keras

    custom = {"DepthwiseConv2D": _keras2_depthwise()}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = keras.models.load_model(path, custom_objects=custom, compile=False, safe_mode=True)
    # Where an old file lacks the layers inside a container, Keras leaves them untrained and only warns.
    skipped = [warning.message for warning in told if str(warning.message).startswith("Skipping")]
    if skipped:
        raise InvalidWeights(f"{path}: incomplete: {first_line(Warning(skipped[0]))}")
    return model


def _keras2_depthwise() -> Any:
    """Keras 2 stored a ``groups`` argument with DepthwiseConv2D that Keras 3 refuses to read."""
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            if config.pop("groups", 1) != 1:
                raise ValueError("DepthwiseConv2D with groups other than 1")
            return keras.layers.DepthwiseConv2D.from_config(config)

    return DepthwiseConv2D


def _load_weights_h5(model: Any, path: Path, fits: str) -> None:
    """Keras 3's own weights format, where Keras itself ignores layers that the network has not."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own.weights.h5")
        model.save_weights(own)
        expected, own_names = _layers(own)
    given, names = _layers(path)
    _compare(expected, given, own_names, names, where=f"{path}: the weights {fits}")
    model.load_weights(path)


def _layers(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Shapes by place in a .weights.h5 file, and the names of its layers in the order of those places."""
    import h5py

    shapes: dict[str, Any] = {}
    names: list[str] = []

    def visit(place: str, item: Any) -> None:
        place = place.replace("_layer_checkpoint_dependencies", "layers")  # TensorFlow 2.12 and 2.13
        if place.startswith("optimizer"):
            return
        if isinstance(item, h5py.Dataset):
            shapes[place] = tuple(item.shape)
        elif "name" in item.attrs and len(item):
            names.append(str(item.attrs["name"]))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return shapes, names


def _load_legacy_h5(model: Any, path: Path, fits: str) -> None:
    """Weights alone in the .h5 of Keras 1 and 2, which Keras matches by order and count, not by name."""
    import h5py

    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        given = [name for name in _strings(root, "layer_names") if _strings(root[name], "weight_names")]
    if not given:
        raise InvalidWeights(f"{path}: no layers with weights; let the name of Keras 3 weights end in .weights.h5")
    own = [layer.name for layer in model.layers if layer.weights]
    _compare({}, {}, own, given, where=f"{path}: the weights {fits}")
    try:
        model.load_weights(path)
    except ValueError as error:
        raise InvalidWeights(f"{path}: the weights {fits}: {first_line(error)}") from error


def _strings(group: Any, name: str) -> list[str]:
    """An attribute of names, which Keras cuts into name0, name1, ... when it is long."""
    parts = [group.attrs[key] for key in group.attrs if key.rstrip("0123456789") == name]
    return [item.decode() if isinstance(item, bytes) else str(item) for part in parts for item in part]


def _compare(
    expected: dict[str, Any], given: dict[str, Any], own_names: list[str], names: list[str], *, where: str
) -> None:
    mismatch = describe_mismatch(expected, given)
    if mismatch:
        raise InvalidWeights(f"{where}: {mismatch}")
    # Keras goes by place. The same layers at other places would get each other's weights where shapes agree.
    if names != own_names and sorted(names) == sorted(own_names):
        swapped = next(name for name, own in zip(names, own_names, strict=True) if name != own)
        raise InvalidWeights(f"{where}: its layers come in another order, from {swapped} on")


def _load_safetensors(model: Any, path: Path, recipe: Recipe, fits: str) -> None:
    """Tensors named by Keras variable path, or by PyTorch where the builder's module knows the mapping."""
    state = _read_safetensors(path)
    variables = {variable.path: variable for variable in model.weights}
    convert = getattr(sys.modules.get(recipe.builder.partition(":")[0]), "keras_weights", None)
    if convert is not None and not set(state) & set(variables):
        state = convert(state)
    mismatch = describe_mismatch(
        {key: tuple(variable.shape) for key, variable in variables.items()},
        {key: tuple(array.shape) for key, array in state.items()},
    )
    if mismatch:
        hint = "" if any("/" in key for key in state) else "; PyTorch's names need --source torch"
        raise InvalidWeights(f"{path}: the weights {fits}: {mismatch}{hint}")
    odd = [key for key, array in state.items() if not np.issubdtype(array.dtype, np.floating)]
    if odd:
        raise InvalidWeights(f"{path}: {odd[0]} is {state[odd[0]].dtype}: give the weights before quantization")
    for key, array in state.items():
        variables[key].assign(array)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    # numpy has no bfloat16; TensorFlow, which is there, reads it.
    with safe_open(path, framework="tf") as file:
        return {key: np.asarray(_widened(file.get_tensor(key))) for key in file.keys()}  # noqa: SIM118


def _widened(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor
