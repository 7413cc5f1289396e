"""Weights from an .h5 of Keras 1 or 2 into the layers rebuilt from it, each by its own name where names are unique.

Keras itself goes by order alone. But the order of a model inside a model depends on which of its layers were trainable
when it was saved, and the four vectors of a BatchNormalization have one shape: a mistake would go unseen.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from exporters.keras_weights import strings
from runtime.errors import InvalidWeights

_ROLE = re.compile(
    r"(depthwise_kernel|pointwise_kernel|kernel|bias|gamma|beta|moving_mean|moving_variance|alpha|mean|variance|count"
    r"|_(?P<old>W|b|gamma|beta|running_mean|running_std))(_\d+)?(:\d+)?$"
)
_OLD = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}  # Keras 1
_STATE = frozenset("moving_mean moving_variance mean variance count".split())

Variable = tuple[tuple[str, ...], Any]
"""A variable of Keras 3 behind the names that lead to it."""
Stored = tuple[str, Any]


Layers = dict[str, tuple[str, Any]]


def assign(layers: Layers, group: Any, *, where: str) -> None:
    """Load the group "model_weights" of an .h5 file into layers, as ``keras_legacy`` gives them.

    Raises InvalidWeights naming the layer whose weights are not all there, or do not fit.
    """
    stored: dict[str, list[Stored]] = {}
    for name in strings(group, "layer_names"):
        names = strings(group[name], "weight_names")
        if names:
            stored[name] = [(full, group[name][full][()]) for full in names]
    own = {name: part for name, (_, part) in layers.items() if _variables(part, (name,))}
    missing, unknown = sorted(set(own) - set(stored)), sorted(set(stored) - set(own))
    if missing or unknown:
        what = f"no weights of its layer {missing[0]!r}" if missing else f"weights of an unknown layer {unknown[0]!r}"
        raise InvalidWeights(f"{where}: damaged: it holds {what}")
    for name, part in own.items():
        for variable, value in _matched(_variables(part, (name,)), stored[name], f"{where}: its layer {name!r}"):
            variable.assign(np.asarray(value, variable.dtype))
        _finish(part)


def assign_in_order(layers: Layers, group: Any, *, where: str) -> None:
    """Load the file "model.weights.h5" of a .keras archive of Keras 2, whose layers are named for their classes.

    Raises InvalidWeights naming the layer whose weights are not all there, or do not fit.
    """
    counts: dict[str, int] = {}
    container: Any = next((group[key] for key in ("layers", "_layer_checkpoint_dependencies") if key in group), {})
    for name, (kind, part) in layers.items():
        place = _snake(kind)
        counts[place] = counts.get(place, -1) + 1
        place = f"{place}_{counts[place]}" if counts[place] else place
        if isinstance(part, dict):
            assign_in_order(part, container.get(place, {}), where=where)
            continue
        values = container[place]["vars"] if part.weights and place in container else {}
        if len(values) != len(part.weights):
            raise InvalidWeights(
                f"{where}: its layer {name!r} has {len(part.weights)} weights, {len(values)} are stored: damaged"
            )
        for index, variable in enumerate(part.weights):
            value = values[str(index)][()]
            if tuple(variable.shape) != np.shape(value):
                raise InvalidWeights(
                    f"{where}: a weight of its layer {name!r} is {list(np.shape(value))} instead of "
                    f"{list(variable.shape)}: damaged"
                )
            variable.assign(np.asarray(value, variable.dtype))
        _finish(part)


def _snake(name: str) -> str:
    """A class name as Keras writes it: SeparableConv2D is separable_conv2d."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _variables(part: Any, path: tuple[str, ...]) -> list[Variable]:
    """The variables of a layer, or of all layers of a model inside, layer by layer."""
    if isinstance(part, dict):
        return [found for name, (_, inner) in part.items() for found in _variables(inner, (*path, name))]
    return [((*path, variable.name), variable) for variable in part.weights]


def _matched(variables: list[Variable], stored: list[Stored], which: str) -> list[tuple[Any, Any]]:
    """Pairs of a variable and its value."""
    if len(variables) != len(stored):
        raise InvalidWeights(f"{which} has {len(variables)} weights, {len(stored)} are stored: damaged")
    pairs = _by_name(variables, stored) or _by_order(variables, stored)
    if pairs is None:
        raise InvalidWeights(f"{which} has its weights in an order that cannot be told")
    for (path, variable), (name, value) in pairs:
        if tuple(variable.shape) != np.shape(value):
            raise InvalidWeights(
                f"{which}: {name} is {list(np.shape(value))} instead of {list(variable.shape)} ({'/'.join(path)})"
            )
    return [(variable, value) for (_, variable), (_, value) in pairs]


def _by_name(variables: list[Variable], stored: list[Stored]) -> list[tuple[Variable, Stored]] | None:
    """By layer and role, where each of these pairs comes once on both sides."""
    own = {(path[-2], path[-1]): (path, variable) for path, variable in variables}
    given = {}
    for name, value in stored:
        layer = name.split("/")[-2] if "/" in name else ""
        role = _role(name)
        # Keras 3 calls the kernel of DepthwiseConv2D just that.
        short = role == "depthwise_kernel" and (layer, "kernel") in own
        given[layer, "kernel" if short else role] = (name, value)
    if len(own) != len(variables) or set(own) != set(given):
        return None
    return [(own[key], given[key]) for key in own]


def _by_order(variables: list[Variable], stored: list[Stored]) -> list[tuple[Variable, Stored]] | None:
    """By place, in one of the two orders of Keras, where the roles agree with it all along."""
    states = [variable for variable in variables if variable[0][-1] in _STATE]
    trained = [variable for variable in variables if variable[0][-1] not in _STATE]
    for order in (trained + states, variables):
        pairs = list(zip(order, stored, strict=True))
        if all(_role(name) in (path[-1], "depthwise_" + path[-1]) for (path, _), (name, _) in pairs):
            return pairs
    return None


def _role(name: str) -> str:
    found = _ROLE.search(name)
    if found is None:
        return name
    return _OLD.get(found["old"], found["old"]) if found["old"] else found[1]


def _finish(part: Any) -> None:
    """Normalization works its constants out of the weights."""
    for _, layer in part.values() if isinstance(part, dict) else ():
        _finish(layer)
    if hasattr(part, "finalize_state"):
        part.finalize_state()
