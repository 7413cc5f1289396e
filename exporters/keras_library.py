"""Keras Applications by their own code. Only ``keras`` and its neighbours ``keras_*`` import keras."""

from __future__ import annotations

import inspect
import sys
from difflib import get_close_matches
from typing import Any

import numpy as np

from exporters.keras import _import_keras
from exporters.libraries import LibraryModel
from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Preprocess

_SIZE_WHERE_NONE_IS_SAID = 224
"""MobileNetV3 is built for any size; its weights were trained at this one (keras.applications.mobilenet_v3)."""

_CANDIDATES: tuple[tuple[float, tuple[float, ...], tuple[float, ...]], ...] = (
    (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # layers of the network's own do it
    (1.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    (1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    (1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
"""Scale, mean and std that preprocess_input functions are written with; which one it is, its answers tell."""


def describe_keras(name: str, hub: str | None) -> LibraryModel:
    """The network called ``name`` of keras.applications. Building it tells its input size: seconds for the largest."""
    keras = _import_keras()
    known = [key for key, value in vars(keras.applications).items() if callable(value) and not key.startswith("_")]
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise UnknownName(f"keras.applications has no model {name!r}{hint}")
    constructor = getattr(keras.applications, name)
    model = constructor(weights=None)
    height, width = (side or _SIZE_WHERE_NONE_IS_SAID for side in model.input_shape[1:3])
    flattened = [layer.input.shape for layer in model.layers if isinstance(layer, keras.layers.Flatten)]
    keras.backend.clear_session()
    return LibraryModel(
        framework="keras",
        preprocess=_probed(sys.modules[constructor.__module__].preprocess_input, (height, width), name),
        classes=int(inspect.signature(constructor).parameters["classes"].default),
        labels=None,
        label_set="imagenet",
        hub="imagenet",
        license="Apache-2.0",
        paper=None,
        fixed_size=any(tuple(shape[1:3]) != (1, 1) for shape in flattened),
    )


def _probed(preprocess_input: Any, size: tuple[int, int], name: str) -> Preprocess:
    """The rule that computes what the library's function computes; the whole picture stretched, as its guides do.

    Raises InvalidInput where none of the known ones does.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    given = np.asarray(preprocess_input(pixels.copy()), dtype=np.float64)
    for scale, mean, std in _CANDIDATES:
        for color in ("RGB", "BGR"):
            ordered = pixels[..., ::-1] if color == "BGR" else pixels
            expected = (ordered.astype(np.float64) * scale - np.array(mean)) / np.array(std)
            if np.allclose(given, expected, rtol=1e-6, atol=1e-4 * np.abs(expected).max() / 255):
                return Preprocess(size=size, resize=size, mean=mean, std=std, color=color, scale=scale)
    raise InvalidInput(f"keras:{name}: what its preprocess_input does is none of the known rules")
