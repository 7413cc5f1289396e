"""Keras 3 networks. The only module of the road that imports keras, tensorflow or tf2onnx."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.source import (
    FloatArray,
    Recipe,
    Source,
    arrays_sha256,
    describe_mismatch,
    file_sha256,
    import_builder,
)
from runtime.errors import ExportFailed, InvalidWeights, MissingDependency, UnknownName, WeightsUnavailable
from runtime.metadata import Preprocess


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    A weights file that holds a whole model (.keras, most .h5) brings its own architecture and
    input size. Raises MissingDependency, UnknownName, WeightsUnavailable or InvalidWeights.
    """
    keras = _import_keras()
    keras.backend.clear_session()  # layer names count from 1 again: equal inputs give equal files
    weights = recipe.weights
    keras.utils.set_random_seed(weights.seed)
    library, _, name = recipe.builder.partition(":")
    if weights.kind == "imagenet":
        model = _load_hub(library, name, recipe)
        sha256 = arrays_sha256({variable.path: np.asarray(variable) for variable in model.weights})
    elif weights.path is None:
        model, sha256 = _build(library, name, recipe), None
    else:
        model, sha256 = _load_file(weights.path, library, name, recipe), file_sha256(weights.path)
    model = _without_softmax(model)
    rule = _fit(recipe.preprocess, model, where=weights.path.name if weights.path else recipe.builder)
    if model.output_shape[-1] != len(recipe.labels.names):
        raise InvalidWeights(f"the network has {model.output_shape[-1]} outputs, the labels {len(recipe.labels.names)}")

    def forward(batch: FloatArray) -> FloatArray:
        # The artifact takes NCHW, Keras NHWC.
        return np.asarray(model(batch.transpose(0, 2, 3, 1), training=False), dtype=np.float32)

    normalise = _normalisation(library, name, rule)
    return Source(
        framework="keras",
        framework_version=f"{keras.__version__} (tensorflow {_version('tensorflow')})",
        exporter=f"tf2onnx {_version('tf2onnx')}",
        forward=forward,
        transform=lambda path: _transform(path, rule, normalise),
        convert=lambda opset, batch: _convert(model, rule, opset, batch),
        preprocess=rule,
        weights_sha256=sha256,
    )


def _import_keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(ImportError):
        # Both hold a copy of LLVM: triton after tensorflow aborts the process (tensorflow issue 124205).
        import triton  # noqa: F401
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # what tf2onnx reads
    try:
        import keras
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f'Keras on TensorFlow cannot be imported ({error}): pip install "edgezoo[keras]"'
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise MissingDependency(f"Keras runs on {keras.backend.backend()}: start again with KERAS_BACKEND=tensorflow")
    return keras


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _constructor(library: str, name: str, recipe: Recipe) -> Callable[..., Any]:
    import keras

    if library != "keras":
        return import_builder(recipe.builder)
    constructor: Callable[..., Any] | None = getattr(keras.applications, name, None)
    if not callable(constructor):
        raise UnknownName(f"keras.applications has no model {name!r}")
    return constructor


def _build(library: str, name: str, recipe: Recipe, weights: str | None = None) -> Any:
    shape = (*recipe.preprocess.size, recipe.preprocess.channels)
    constructor = _constructor(library, name, recipe)
    classes = len(recipe.labels.names)
    if library != "keras":
        return constructor(num_classes=classes, input_shape=shape)
    return constructor(weights=weights, input_shape=shape, classes=classes, classifier_activation=None)


# ---- weights


def _load_hub(library: str, name: str, recipe: Recipe) -> Any:
    if library != "keras":
        raise WeightsUnavailable(f"{recipe.builder} has no published weights: use --weights FILE or --weights none")
    try:
        return _build(library, name, recipe, weights="imagenet")
    except Exception as error:
        # Keras raises a bare Exception when a download fails or its checksum differs.
        raise WeightsUnavailable(
            f"cannot get the imagenet weights of keras:{name} ({_first_line(error)}): "
            "use --weights FILE with weights you have, or --weights none for an untrained network"
        ) from error


def _load_file(path: Path, library: str, name: str, recipe: Recipe) -> Any:
    if not path.is_file():
        raise WeightsUnavailable(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path, library, name, recipe)
        if path.suffix == ".keras" or (path.suffix == ".h5" and _holds_model(path)):
            return _load_whole(path)
        if path.suffix == ".h5":
            model = _build(library, name, recipe)
            model.load_weights(path)
            return model
    except (InvalidWeights, UnknownName):
        raise
    except Exception as error:
        raise InvalidWeights(f"{path}: cannot be loaded into {name} ({_first_line(error)})") from error
    raise InvalidWeights(f"{path}: not a Keras file: use .keras, .h5, .weights.h5 or .safetensors, or --source torch")


def _holds_model(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


def _load_whole(path: Path) -> Any:
    """A saved model, architecture included; nothing in it is executed."""
    import keras

    if path.suffix == ".h5":
        _refuse_code(path)
    try:
        return keras.models.load_model(
            path, custom_objects={"DepthwiseConv2D": _keras2_depthwise()}, compile=False, safe_mode=True
        )
    except ValueError as error:
        if "Lambda" in str(error) or "safe_mode" in str(error):
            raise InvalidWeights(
                f"{path}: refused, it holds a Lambda layer whose code would run when loaded"
            ) from error
        raise


def _refuse_code(path: Path) -> None:
    """Lambda layers in .h5 files hold marshalled bytecode: refuse before Keras reads them."""
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs["model_config"]
    config = json.loads(text)

    def classes(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["class_name"]} if isinstance(value.get("class_name"), str) else set()
            return own.union(*(classes(item) for item in value.values()))
        return set().union(*(classes(item) for item in value)) if isinstance(value, list) else set()

    if "Lambda" in classes(config):
        raise InvalidWeights(f"{path}: refused, it holds a Lambda layer whose code would run when loaded")


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


def _load_safetensors(path: Path, library: str, name: str, recipe: Recipe) -> Any:
    """Tensors named by Keras variable path, or by PyTorch where the builder's module knows the mapping."""
    from safetensors.numpy import load_file

    model = _build(library, name, recipe)
    state = dict(load_file(path))
    convert = getattr(sys.modules.get(library), "keras_weights", None)
    variables = {variable.path: variable for variable in model.weights}
    if convert is not None and not set(state) & set(variables):
        state = convert(state)
    mismatch = describe_mismatch(
        {key: tuple(variable.shape) for key, variable in variables.items()},
        {key: tuple(array.shape) for key, array in state.items()},
    )
    if mismatch:
        raise InvalidWeights(f"{path.name}: the weights do not fit {name}: {mismatch}")
    for key, array in state.items():
        variables[key].assign(array)
    return model


# ---- shape of input and output


def _without_softmax(model: Any) -> Any:
    """The same network ending in logits: what parity, int8 and gradients are measured on."""
    import keras

    last = model.layers[-1]
    if getattr(last, "activation", None) is keras.activations.softmax:
        if isinstance(last, keras.layers.Activation):
            return keras.Model(model.inputs, last.input)
        last.activation = keras.activations.linear
        return keras.Model(model.inputs, last(last.input))
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs, last.input)
    return model


def _fit(rule: Preprocess, model: Any, *, where: str) -> Preprocess:
    """The rule at the input size the network has; a free size takes the rule's."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.input_shape) != 4:
        raise InvalidWeights(f"{where}: not a classifier of one image: {len(model.inputs)} inputs, {model.input_shape}")
    _, height, width, channels = model.input_shape
    if channels != rule.channels:
        raise InvalidWeights(f"{where}: takes {channels} channels, the preprocessing gives {rule.channels}")
    return rule.at_size(height or rule.size[0], width or rule.size[1])


def _normalisation(library: str, name: str, rule: Preprocess) -> Callable[[Any], Any]:
    """The library's own preprocess_input, or for other builders the rule in plain float64."""
    if library == "keras":
        import keras

        module = sys.modules[getattr(keras.applications, name).__module__]
        return lambda pixels: module.preprocess_input(np.array(pixels, dtype=np.float32))
    mean, std = np.array(rule.mean, dtype=np.float64), np.array(rule.std, dtype=np.float64)
    return lambda pixels: (np.asarray(pixels, dtype=np.float64) * rule.scale - mean) / std


def _transform(path: Path, rule: Preprocess, normalise: Callable[[Any], Any]) -> FloatArray:
    import keras

    if isinstance(rule.resize, int) or rule.resize != rule.size:
        raise ExportFailed("Keras networks are verified with pictures stretched to the input size")
    mode = "grayscale" if rule.color == "L" else "rgb"
    picture = keras.utils.load_img(path, color_mode=mode, target_size=rule.size, interpolation=rule.interpolation)
    pixels = keras.utils.img_to_array(picture)
    return np.asarray(normalise(pixels), dtype=np.float32).transpose(2, 0, 1)[np.newaxis]


# ---- conversion


def _convert(model: Any, rule: Preprocess, opset: int, batch: int | None) -> Any:
    import onnx.version_converter
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((batch, *rule.size, rule.channels), tf.float32, name="input")]
    try:
        proto, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=min(opset, 18))
        if opset > 18:  # tf2onnx writes no newer one
            proto = onnx.version_converter.convert_version(proto, opset)
    except Exception as error:
        raise ExportFailed(f"tf2onnx failed: {_first_line(error)}") from error
    layers = {layer.name for layer in model._flatten_layers()}
    for node in proto.graph.node:  # "model_1/layer_1/op__12": tracing appends _1 to Keras' own names
        parts = [part if part in layers else part.removesuffix("_1") for part in node.name.split("/")]
        node.name = next((part for part in reversed(parts) if part in layers), node.op_type.lower())
    return proto


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
