"""Keras networks, built and filled: with weights of Keras Applications, of a file, or at random.

Keras Applications state an MD5 for most weights, which Keras checks after a download. For MobileNet and
MobileNetV2 they state none; there the artifact's provenance, the SHA-256 of all parameters, is what two
exports can be compared by.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporters.hub import first_line, reaching
from exporters.keras_files import brings_its_own_network, load_whole
from exporters.keras_weights import fill
from exporters.source import Recipe, arrays_sha256, import_builder
from exporters.user_code import accepted
from exporters.weights_file import kind_of
from runtime.errors import EdgeZooError, InvalidInput, InvalidWeights, UnknownName, WeightsUnavailable
from runtime.files import sha256

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
    return _from_file(weights.path, recipe), sha256(weights.path)


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
    import keras

    options: dict[str, Any] = {}
    rule, shape = recipe.preprocess, recipe.input_shape
    if rule is not None:
        options["input_shape"] = (*rule.size, rule.channels)
    elif shape is not None:
        options["input_shape"] = (*shape[1:], shape[0])
    constructor = _constructor(recipe)
    if not recipe.builder.startswith("keras:"):
        model = constructor(**accepted(constructor, options, classes=recipe.classes))
        if not isinstance(model, keras.Model):
            raise InvalidInput(f"builder {recipe.builder!r} returns {type(model).__name__}, not a keras.Model")
        return model
    if recipe.classes is not None:
        options["classes"] = recipe.classes
    try:
        return constructor(**options, weights=None, classifier_activation=None)
    except ValueError as error:
        raise InvalidInput(f"{recipe.builder} cannot be built so: {first_line(error)}") from error


# ---- the hub


def _from_hub(recipe: Recipe) -> Any:
    import keras

    if not recipe.builder.startswith("keras:"):
        raise WeightsUnavailable(f"{recipe.builder} has no published weights: use --weights FILE or --weights none")
    if recipe.classes not in (None, _PUBLISHED_CLASSES):
        raise InvalidWeights(f"the imagenet weights have {_PUBLISHED_CLASSES} classes, the labels are {recipe.classes}")
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
    rule = recipe.preprocess
    if rule is None or tuple(model.input_shape[1:3]) == rule.size:
        return model
    values = model.get_weights()
    keras.backend.clear_session()  # layer names count from 1 again
    model = _build(recipe)
    try:
        model.set_weights(values)
    except ValueError as error:
        raise InvalidWeights(
            f"{recipe.builder}: the imagenet weights do not fit pictures of {rule.size} "
            f"({first_line(error)}): leave --input-size out"
        ) from error
    return model


# ---- files


def _from_file(path: Path, recipe: Recipe) -> Any:
    kind = kind_of(path)
    if kind in ("torch", "torchscript", "pt2"):
        raise InvalidWeights(f"{path}: a PyTorch file: use --source torch")
    suffixes = {"keras": (".keras",), "hdf5": (".h5", ".hdf5")}.get(kind)
    if suffixes and path.suffix not in suffixes:  # what Keras goes by
        raise InvalidWeights(f"{path}: a Keras file: let its name end in {suffixes[0]}")
    whole = brings_its_own_network(path)
    if not whole and recipe.builder.startswith("file:"):
        raise InvalidWeights(f"{path}: holds weights alone: name the network they are for")
    try:
        if whole:
            return load_whole(path, "keras" if kind == "keras" else "hdf5", trust=recipe.trust)
        model = _build(recipe)
        fill(model, path, recipe, safetensors=kind == "safetensors")
    except EdgeZooError:
        raise
    except Exception as error:
        what = "the model cannot be read" if whole else f"the weights cannot be loaded into {recipe.name}"
        raise InvalidWeights(f"{path}: {what} ({first_line(error)})") from error
    return model
