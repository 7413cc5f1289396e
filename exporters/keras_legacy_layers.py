"""One layer of Keras 1 or 2 as Keras 3 has it: renamed, with the arguments it takes today."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from exporters.keras_config import unsafe
from runtime.errors import InvalidWeights

_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "Conv2DV1": "Conv2D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "Convolution2DTranspose": "Conv2DTranspose",
}
_ACTIVATIONS = {"softmax_v2": "softmax", "relu_v2": "relu", "swish_activation": "swish"}
_KERAS_1 = {
    "nb_filter": "filters", "subsample": "strides", "border_mode": "padding", "output_dim": "units",
    "bias": "use_bias", "atrous_rate": "dilation_rate",
}  # fmt: skip
_UNUSED = ("_initializer", "_regularizer", "_constraint")  # for training alone
_IGNORED = frozenset(
    "batch_input_shape batch_shape build_input_shape dtype dtype_policy dynamic fused implementation init input_dim "
    "input_dtype input_shape name optional ragged rng_type seed sparse stateful trainable".split()
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "groups": (1, None),
    "virtual_batch_size": (None,),
    "renorm": (False,),
    "adjustment": (None,),
    "filters": (None,),
    "synchronized": (False, True),
    "antialias": (False,),
    "keepdims": (False,),
    "data_format": ("channels_last", None),
}
"""Arguments that a class of Keras 3 does not take, and the values with which they say nothing."""


def layer_of(entry: dict[str, Any], *, name: str, trust: bool, where: str) -> Any:
    """A Keras 3 layer, not built. Raises InvalidWeights for classes, arguments and functions that it has not."""
    import keras

    kind = _RENAMED.get(entry["class_name"], entry["class_name"])
    if kind == "Merge":
        raise InvalidWeights(f"{where}: holds a Merge layer of Keras 1: load and save it with Keras 2 first")
    if kind == "ThresholdedReLU":
        return keras.layers.Activation(_thresholded(float(entry["config"]["theta"])), name=name)
    if kind == "Lambda" and trust:
        return _lambda(entry["config"], name, where)
    found: Any = getattr(keras.layers, kind, None)
    known = inspect.isclass(found) and issubclass(found, keras.layers.Layer) and unsafe({"class_name": kind}) is None
    if not known or kind in ("InputLayer", "Layer", "Wrapper"):
        raise InvalidWeights(
            f"{where}: holds a {entry['class_name']} layer, whose code is neither in the file nor Keras 3's"
        )
    values = _words_of_keras_2({key: _plain(value) for key, value in entry["config"].items()}, kind, where)
    taken = _parameters(found)
    if kind in ("LeakyReLU", "ELU") and "negative_slope" in taken and "alpha" in values:
        values["negative_slope"] = values.pop("alpha")
    options: dict[str, Any] = {}
    for key, value in values.items():
        if key in _IGNORED or key.endswith(_UNUSED):
            continue
        if key in ("activation", "recurrent_activation"):
            value = _activation(value, where)
        elif isinstance(value, dict):
            raise InvalidWeights(f"{where}: its {kind} layer {name!r} holds another object in {key}")
        if key == "axis" and isinstance(value, list) and len(value) == 1:
            value = value[0]
        if key in taken:
            options[key] = tuple(value) if isinstance(value, list) and key != "axis" else value
        elif value not in _NEUTRAL.get(key, ()):
            raise InvalidWeights(f"{where}: its {kind} layer {name!r} has {key}={value!r}, which Keras 3 does not know")
    return found(name=name, **options)


def hard_sigmoid(x: Any) -> Any:
    """Keras 1 and 2: a fifth of x and a half, between 0 and 1. In Keras 3 it is a sixth."""
    from keras import ops

    return ops.clip(x * 0.2 + 0.5, 0.0, 1.0)


def _thresholded(theta: float) -> Callable[[Any], Any]:
    """Keras 3 has no layer for it any more."""
    from keras import ops

    return lambda x: x * ops.cast(x > theta, x.dtype)


def _activation(value: Any, where: str) -> Any:
    import keras

    if isinstance(value, dict) and isinstance(value.get("config"), dict):  # a layer where a function is meant
        return layer_of(value, name=f"{value['class_name'].lower()}_inside", trust=False, where=where)
    name = value["config"] if isinstance(value, dict) else value
    if name == "hard_sigmoid":
        return hard_sigmoid
    name = _ACTIVATIONS.get(name, name)
    function: Callable[..., Any] | None = getattr(keras.activations, str(name), None)
    if name is not None and (not inspect.isfunction(function) or name in ("get", "serialize", "deserialize")):
        raise InvalidWeights(f"{where}: holds the activation {name!r}, whose code is neither in the file nor Keras 3's")
    return function


def _lambda(values: dict[str, Any], name: str, where: str) -> Any:
    """A Lambda layer, of a file that the user trusts."""
    import keras

    function = values["function"]
    if isinstance(function, dict):
        function = function.get("config", {})
        function = [function.get("code"), function.get("defaults"), function.get("closure")]
    if not isinstance(function, list):
        raise InvalidWeights(
            f"{where}: holds a Lambda layer of the function {function!r}, whose code is not in the file"
        )
    code = {"class_name": "__lambda__", "config": dict(zip(("code", "defaults", "closure"), function, strict=True))}
    config = {"name": name, "function": code, "arguments": values.get("arguments") or {}}
    return keras.layers.Lambda.from_config(config, safe_mode=False)


def _words_of_keras_2(values: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Arguments of Keras 1 under their later names; those of Keras 2 as they are."""
    values = {_KERAS_1.get(key, key): value for key, value in values.items()}
    if "nb_row" in values:
        values["kernel_size"] = [values.pop("nb_row"), values.pop("nb_col")]
    if values.pop("dim_ordering", "tf") != "tf":
        raise InvalidWeights(f"{where}: made by Keras 1 with Theano's order of channels: convert it with Keras 2 first")
    if kind == "BatchNormalization" and values.pop("mode", 0) != 0:
        raise InvalidWeights(f"{where}: its BatchNormalization has a mode of Keras 1 that later ones have not")
    return values


def _parameters(found: Any) -> frozenset[str]:
    """The arguments of a class and of those that it passes the rest on to."""
    taken: set[str] = set()
    for ancestor in inspect.getmro(found):
        init = ancestor.__dict__.get("__init__")
        if init is None:
            continue
        signature = inspect.signature(init)
        taken.update(signature.parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break
        if ancestor.__name__ == "Layer":
            break
    return frozenset(taken)


def _plain(value: Any) -> Any:
    """Keras 2 wrote some numbers as arrays."""
    if isinstance(value, dict) and value.get("type") == "ndarray":
        return value["value"]
    return value
