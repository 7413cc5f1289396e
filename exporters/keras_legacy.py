"""Models of Keras 1 and 2, rebuilt from their configuration as one flat Keras 3 network.

Keras 3 reads few of them: it stumbles over arguments that its layers no longer take, over classes that moved, over
the layers that Keras 2 made of plain operations, and it gives ``hard_sigmoid`` another slope without a word. What
training alone needs (initializers, regularizers, dropout, augmentation) is left out. What has no row here is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from exporters.keras_legacy_layers import layer_of
from exporters.keras_legacy_ops import operation_of
from runtime.errors import InvalidWeights

_MODELS = frozenset("Functional Model Sequential Network".split())
_IDENTITY = frozenset(
    "ActivityRegularization AlphaDropout Dropout FixedDropout GaussianDropout GaussianNoise RandomBrightness "
    "RandomContrast RandomFlip RandomHeight RandomRotation RandomTranslation RandomWidth RandomZoom SpatialDropout1D "
    "SpatialDropout2D SpatialDropout3D".split()
)
"""Layers that give what they get when nothing is trained."""

Call = Callable[..., Any]


_HARMLESS = frozenset(("mask", "name", "training"))

Layers = dict[str, tuple[str, Any]]
"""What weights are loaded into: by name, the class a layer had and the layer; for a model inside, its Layers."""


def build(config: Any, *, trust: bool, where: str) -> tuple[Any, Layers]:
    """The network a configuration describes, untrained, and its layers in the file's order.

    trust: whether Lambda layers may run. Raises InvalidWeights naming what has no counterpart in Keras 3.
    """
    import keras

    builder = _Builder(trust, where, set())
    layers: Layers = {}
    shape = builder.input_shape(config)
    if shape is None or len(shape) < 2:
        raise InvalidWeights(
            f"{where}: the network states no input: give its first layer an input_shape and save again"
        )
    inputs = keras.Input(shape[1:], name="input")
    outputs = builder.model(config, layers)(inputs)
    return keras.Model(inputs, outputs), layers


@dataclass(frozen=True, slots=True)
class _Builder:
    trust: bool
    where: str
    names: set[str]

    def model(self, config: dict[str, Any], layers: Layers) -> Call:
        """A function that applies a whole model; its layers are made once."""
        values = config["config"]
        if config["class_name"] == "Sequential":
            parts = [(entry, self.step(entry, layers)) for entry in _entries(values)]
            return lambda x, **_: _in_turn(x, [call for entry, call in parts if entry["class_name"] != "InputLayer"])
        steps = {
            entry.get("name") or entry["config"]["name"]: (entry, self.step(entry, layers))
            for entry in values["layers"]
        }
        return lambda x, **_: self.wired(x, values, steps)

    def step(self, entry: dict[str, Any], layers: Layers) -> Call:
        """A function that applies one layer, operation or inner model."""
        kind, values = entry["class_name"], entry["config"]
        name = entry.get("name") or (values.get("name") if isinstance(values, dict) else None) or kind.lower()
        if kind in _MODELS:
            inner: Layers = {}
            layers[name] = (kind, inner)
            return self.model(entry, inner)
        if kind == "InputLayer" or kind in _IDENTITY:
            return lambda x, **_: x
        operation = operation_of(entry, where=self.where)
        if operation is not None:
            return operation
        layer = layer_of(entry, name=self.unused(name), trust=self.trust, where=self.where)
        layers[name] = (kind, layer)

        def call(x: Any, **options: Any) -> Any:
            odd = sorted(set(options) - _HARMLESS)
            if odd:
                raise InvalidWeights(
                    f"{self.where}: its {kind} layer {name!r} is called with {odd[0]}, which is unknown"
                )
            return layer(x)

        return call

    def unused(self, name: str) -> str:
        """A name that no other layer of the flat network has."""
        free, count = name.replace("/", "_"), 1
        while free in self.names:
            free, count = f"{name}_{count}", count + 1
        self.names.add(free)
        return free

    def wired(self, x: Any, values: dict[str, Any], steps: dict[str, tuple[dict[str, Any], Call]]) -> Any:
        """The output of a graph of layers, each call made as soon as what it takes is there."""
        starts, ends = _references(values["input_layers"]), _references(values["output_layers"])
        if len(starts) != 1 or len(ends) != 1:
            raise InvalidWeights(
                f"{self.where}: not a classifier of one picture: it has {len(starts)} inputs and {len(ends)} outputs"
            )
        done: dict[tuple[str, int], Any] = {(starts[0][0], 0): x}
        waiting = [
            (name, index, node)
            for name, (entry, _) in steps.items()
            for index, node in enumerate(entry.get("inbound_nodes", ()))
        ]
        shifted = _shifted(values, steps)
        while waiting:
            later = []
            for name, index, node in waiting:
                arguments, options = _arguments(node, steps)
                needed = [*arguments, *options.values()]
                if any(isinstance(a, _From) and a.call(shifted) not in done for a in _leaves(needed)):
                    later.append((name, index, node))
                    continue
                given = [_filled(argument, done, shifted) for argument in arguments]
                named = {key: _filled(value, done, shifted) for key, value in options.items()}
                done[name, index] = steps[name][1](given[0] if len(given) == 1 else given, **named)
            if len(later) == len(waiting):
                raise InvalidWeights(f"{self.where}: its layer {later[0][0]!r} is connected to nothing")
            waiting = later
        return _filled(_From(*ends[0]), done, shifted)

    def input_shape(self, config: dict[str, Any]) -> tuple[int | None, ...] | None:
        """(N, height, width, channels) as the first layer that states one has it."""
        values = config["config"]
        entries = _entries(values)
        if config["class_name"] != "Sequential":
            start = _references(values["input_layers"])[0][0]
            entries = [entry for entry in entries if (entry.get("name") or entry["config"]["name"]) == start]
        for entry in entries[:1]:
            if entry["class_name"] in _MODELS:
                return self.input_shape(entry)
            inner = entry["config"]
            shape = inner.get("batch_input_shape") or inner.get("batch_shape")
            shape = shape or (values.get("build_input_shape") if isinstance(values, dict) else None)
            return None if shape is None else tuple(shape)
        return None


# ---- the wiring


@dataclass(frozen=True, slots=True)
class _From:
    """The output of a layer's call; ``tensor`` of several."""

    layer: str
    node: int
    tensor: int

    def call(self, shifted: frozenset[str]) -> tuple[str, int]:
        return self.layer, self.node - (self.layer in shifted)


def _in_turn(x: Any, calls: list[Call]) -> Any:
    for call in calls:
        x = call(x)
    return x


def _entries(values: Any) -> list[dict[str, Any]]:
    return list(values if isinstance(values, list) else values["layers"])  # Keras 1 and early 2: a bare list


def _references(value: Any) -> list[tuple[str, int, int]]:
    """[name, node, tensor], or a list of such."""
    if value and isinstance(value[0], str):
        value = [value]
    return [(name, node, tensor) for name, node, tensor, *_ in value]


def _shifted(values: dict[str, Any], steps: dict[str, tuple[dict[str, Any], Call]]) -> frozenset[str]:
    """The models inside whose calls are counted from 1: their own graph is call 0."""
    highest: dict[str, int] = {}
    references = [_From(*reference) for reference in _references(values["output_layers"])]
    for entry, _ in steps.values():
        for node in entry.get("inbound_nodes", ()):
            arguments, options = _arguments(node, steps)
            references += [leaf for leaf in _leaves([*arguments, *options.values()]) if isinstance(leaf, _From)]
    for reference in references:
        highest[reference.layer] = max(highest.get(reference.layer, 0), reference.node)
    return frozenset(
        name
        for name, node in highest.items()
        if name in steps and steps[name][0]["class_name"] in _MODELS and node >= len(steps[name][0]["inbound_nodes"])
    )


def _arguments(node: Any, names: Any) -> tuple[list[Any], dict[str, Any]]:
    """What one call takes: its tensors, and what is given by name."""
    if node and isinstance(node[0], str):
        node = [node]
    options: dict[str, Any] = {}
    arguments = []
    for name, index, tensor, *rest in node:
        arguments.append(tensor if name == "_CONSTANT_VALUE" else _From(name, index, tensor))
        options |= rest[0] if rest else {}
    return arguments, {key: _reference(value, names) for key, value in options.items()}


def _reference(value: Any, names: Any) -> Any:
    """A value given by name: [layer, node, tensor] is the output of a layer."""
    if isinstance(value, list):
        if len(value) in (3, 4) and isinstance(value[0], str) and value[0] in names:
            return _From(value[0], value[1], value[2])
        if len(value) in (3, 4) and value[0] == "_CONSTANT_VALUE":
            return value[2]
        return [_reference(item, names) for item in value]
    return value


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else [value]


def _filled(value: Any, done: dict[tuple[str, int], Any], shifted: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_filled(item, done, shifted) for item in value]
    if not isinstance(value, _From):
        return value
    result = done[value.call(shifted)]
    return result[value.tensor] if isinstance(result, list | tuple) else result
