"""Keras 3 networks, their weights, and whole models of Keras 1, 2 and 3: from a recipe to a source."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import numpy as np

from exporters.keras_convert import prepare
from exporters.keras_files import brings_its_own_network
from exporters.keras_graph import classifier_input, flat, run
from exporters.keras_head import as_scores
from exporters.keras_input import enter, one_input, scales_pixels
from exporters.keras_model import load_model
from exporters.keras_pictures import transform
from exporters.keras_untrained import enliven
from exporters.source import FloatArray, Recipe, Source, package_version, random_arrays, sample_files
from exporters.weights_file import kind_of
from runtime.errors import InvalidInput, MissingDependency


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    A weights file that holds a whole model (.keras, most .h5, a SavedModel folder) brings its own architecture
    and input size. Raises MissingDependency, UnknownName, WeightsUnavailable, InvalidWeights, or InvalidInput where
    the recipe leaves something open that the network does not tell.
    """
    keras = _import_keras()
    keras.backend.clear_session()  # layer names count from 1 again: equal inputs give equal files
    keras.utils.set_random_seed(recipe.weights.seed)
    path = recipe.weights.path
    if path is not None and kind_of(path) == "savedmodel":
        from exporters.saved_model import load as load_saved_model

        return load_saved_model(recipe)
    model, sha256 = load_model(recipe)
    where = path.name if path else recipe.builder
    height, width, channels = one_input(model, where=where)
    model = flat(model)
    scales = recipe.preprocess is None and scales_pixels(model, (height or 32, width or 32))
    entry = enter((height, width, channels), recipe, scales=scales, where=where)
    read = transform(recipe, entry.rule)
    if recipe.weights.kind == "none":
        files = sample_files(recipe.samples) if entry.rule else []
        some = np.concatenate([read(file) for file in files]) if files else random_arrays(entry.shape, 8)
        enliven(model, some.transpose(0, 2, 3, 1), recipe.weights.seed)
    model, task, labels = as_scores(model, entry, recipe, where=where)

    def forward(batch: FloatArray) -> FloatArray:
        return run(model, batch.transpose(0, 2, 3, 1))  # the artifact takes NCHW, Keras NHWC

    below: list[Any] = []  # built when it is first asked for

    def features(batch: FloatArray) -> FloatArray:
        if not below:
            found = classifier_input(model)
            if found is None:
                raise InvalidInput(f"{where}: has no layer with weights: there are no features below one")
            below.extend((keras.Model(model.inputs[0], found[0]), found[1]))
        network, space = below
        values = run(network, batch.transpose(0, 2, 3, 1))
        return np.asarray(values.mean(axis=space) if values.ndim == 4 else values.reshape(len(values), -1))

    conversion = prepare(model, entry.shape)
    return Source(
        framework="keras",
        framework_version=f"{keras.__version__} (tensorflow {package_version('tensorflow')})",
        exporter=conversion.road,
        forward=forward,
        features=features,
        transform=read,
        opsets=range(13, 19),
        convert=conversion.convert,
        layout="NHWC",
        preprocess=entry.rule,
        input_shape=entry.shape,
        task=task,
        labels=labels,
        weights_sha256=sha256,
        builder=f"file:{path.name}" if path and brings_its_own_network(path) else recipe.builder,
    )


def _import_keras() -> Any:
    """Keras on TensorFlow. Raises MissingDependency."""
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
