"""Weights alone, into a Keras network that is built already: what does not belong to it is refused, name by name."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from exporters.hub import first_line
from exporters.source import Recipe, describe_mismatch
from runtime.errors import InvalidWeights


def fill(model: Any, path: Path, recipe: Recipe, *, safetensors: bool) -> None:
    """Load a weights file into ``model``. Raises InvalidWeights; errors of damaged files pass through."""
    fits = f"do not fit {recipe.name}" + (f" with {len(recipe.labels.names)} labels" if recipe.labels else "")
    if safetensors:
        _load_safetensors(model, path, recipe, fits)
    elif path.name.endswith(".weights.h5"):
        load_weights_h5(model, path, fits)
    else:
        _load_legacy_h5(model, path, fits)


def load_weights_h5(model: Any, path: Path, fits: str) -> None:
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
        given = [name for name in strings(root, "layer_names") if strings(root[name], "weight_names")]
    if not given:
        raise InvalidWeights(f"{path}: no layers with weights; let the name of Keras 3 weights end in .weights.h5")
    own = [layer.name for layer in model.layers if layer.weights]
    _compare({}, {}, own, given, where=f"{path}: the weights {fits}")
    try:
        model.load_weights(path)
    except ValueError as error:
        raise InvalidWeights(f"{path}: the weights {fits}: {first_line(error)}") from error


def strings(group: Any, name: str) -> list[str]:
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
