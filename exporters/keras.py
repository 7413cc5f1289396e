"""Keras 3 networks. Only this module, ``keras_model`` and ``keras_head`` import keras, tensorflow or tf2onnx."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.hub import first_line
from exporters.keras_head import as_classifier, fit
from exporters.keras_model import brings_its_own_network, load_model
from exporters.source import FloatArray, Recipe, Source, package_version
from runtime.errors import ExportFailed, MissingDependency
from runtime.metadata import Preprocess


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    A weights file that holds a whole model (.keras, most .h5) brings its own architecture and
    input size. Raises MissingDependency, UnknownName, WeightsUnavailable or InvalidWeights.
    """
    keras = _import_keras()
    keras.backend.clear_session()  # layer names count from 1 again: equal inputs give equal files
    keras.utils.set_random_seed(recipe.weights.seed)
    model, sha256 = load_model(recipe)
    path = recipe.weights.path
    where = path.name if path else recipe.builder
    rule = fit(recipe.preprocess, model, where=where)
    model = as_classifier(model, rule, classes=len(recipe.labels.names), where=where)

    def forward(batch: FloatArray) -> FloatArray:
        # The artifact takes NCHW, Keras NHWC.
        return np.asarray(model(batch.transpose(0, 2, 3, 1), training=False), dtype=np.float32)

    normalise = _normalisation(recipe.builder, rule)
    return Source(
        framework="keras",
        framework_version=f"{keras.__version__} (tensorflow {package_version('tensorflow')})",
        exporter=f"tf2onnx {package_version('tf2onnx')}",
        forward=forward,
        transform=lambda path: _transform(path, rule, normalise),
        opsets=range(13, 19),
        convert=lambda opset, batch: _convert(model, rule, opset, batch),
        preprocess=rule,
        weights_sha256=sha256,
        builder=f"file:{path.name}" if path and brings_its_own_network(path) else recipe.builder,
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


# ---- preprocessing, by the library's own code


def _normalisation(builder: str, rule: Preprocess) -> Callable[[Any], Any]:
    """The library's own preprocess_input, or for other builders the rule in plain float64."""
    library, _, name = builder.partition(":")
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
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((batch, *rule.size, rule.channels), tf.float32, name="input")]
    try:
        proto, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=opset)
    except Exception as error:
        raise ExportFailed(f"tf2onnx failed: {first_line(error)}") from error
    layers = {layer.name for layer in model._flatten_layers() if not getattr(layer, "layers", None)}
    for node in proto.graph.node:  # "model_1/conv_1_1/op__12" is of layer "conv_1": tracing appends a number
        candidates = (name for part in node.name.split("/") for name in (re.sub(r"_\d+$", "", part), part))
        node.name = next((name for name in candidates if name in layers), node.op_type.lower())
    return proto
