"""What a Keras network takes in: one picture and the rule for it, its own or the user's, or no picture at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exporters.keras_graph import channels_first, nodes
from exporters.source import FloatArray, Recipe
from runtime.errors import InvalidInput, InvalidWeights
from runtime.metadata import Preprocess

NOBODY_SAID = "nobody wrote down its preprocessing: give --preprocess tf|caffe|torch|0-255|0-1|FILE.json"
_ARITHMETIC = frozenset("Add Subtract Multiply Divide TrueDivide".split())
_BRIGHTEST, _FAINTEST = 256.0, 0.05
"""Between black and white, what a network's own scaling makes of pixels 0..255: [0, 1], [-1, 1], pixels less a mean,
at the least and at the most. Outside, it was made for pixels that came scaled already."""


@dataclass(frozen=True, slots=True)
class Entry:
    """rule: None where the input is no picture. shape: (channels, height, width)."""

    rule: Preprocess | None
    shape: tuple[int, int, int]

    def samples(self) -> FloatArray:
        """Two seeded inputs as the network might get them, (2, height, width, channels)."""
        channels, height, width = self.shape
        rng = np.random.default_rng(0)
        if self.rule is None:
            return rng.normal(size=(2, height, width, channels)).astype(np.float32)
        pixels = rng.uniform(0, 255, (2, height, width, channels))
        scaled = (pixels * self.rule.scale - np.array(self.rule.mean)) / np.array(self.rule.std)
        return np.asarray(scaled, dtype=np.float32)


def one_input(model: Any, *, where: str) -> tuple[int | None, int | None, int]:
    """(height, width, channels) of the network's only input, None for a free side.

    Raises InvalidWeights when the network does not take one float32 array of that form and give one.
    """
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        raise InvalidWeights(f"{where}: the network states no input: begin it with keras.Input(shape) and save again")
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(model.outputs) != 1 or len(shapes[0]) != 4:
        raise InvalidWeights(
            f"{where}: not a classifier of one picture: inputs {_list(shapes)}, "
            f"outputs {_list([tuple(tensor.shape) for tensor in model.outputs])}"
        )
    if model.inputs[0].dtype != "float32":
        raise InvalidWeights(f"{where}: takes {model.inputs[0].dtype}, not float32")
    _, *sides = shapes[0]
    channels, height, width = sides if channels_first(model) else (sides[2], *sides[:2])
    if channels is None:
        raise InvalidWeights(f"{where}: does not fix its number of channels: its input is {shapes[0]}")
    return height, width, channels


def enter(shape: tuple[int | None, int | None, int], recipe: Recipe, *, scales: bool, where: str) -> Entry:
    """How inputs reach a network that takes (height, width, channels).

    scales: whether its own first layers take pixels 0..255.
    Raises InvalidInput where the rule or the size is left open, InvalidWeights where they do not fit.
    """
    height, width, channels = shape
    rule = recipe.preprocess
    if rule is not None:
        rule = _of_one_channel(rule) if channels == 1 else rule
        if channels != rule.channels:
            hint = " (channels-first networks are not supported)" if height == rule.channels else ""
            raise InvalidWeights(f"{where}: takes {channels} channels, the preprocessing gives {rule.channels}{hint}")
        rule = rule.at_size(height or rule.size[0], width or rule.size[1])
        return Entry(rule, (channels, *rule.size))
    picture = channels in (1, 3)
    if picture and not scales:
        raise InvalidInput(f"{where}: {NOBODY_SAID}")
    size = _size(height, width, recipe, where)
    if not picture and recipe.input_shape and recipe.input_shape[0] != channels:
        raise InvalidInput(f"{where}: takes {channels} channels, not {recipe.input_shape[0]}")
    if not picture:
        return Entry(None, (channels, *size))
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    color: Any = "L" if channels == 1 else "RGB"
    return Entry(Preprocess(size=size, resize=size, mean=zeros, std=ones, color=color), (channels, *size))


def scales_pixels(model: Any, size: tuple[int, int]) -> bool:
    """Whether a flat network's first layers, before any trained one, turn pixels 0..255 into what the rest takes.

    They do where Rescaling, Normalization or arithmetic with constants is among them, and what they make of black
    and of white are numbers of the usual size.
    """
    import keras

    trained, first, states = set[int](), dict[int, Any](), False
    for node in nodes(model):
        inputs, operation = node.input_tensors, node.operation
        normalises = type(operation).__name__ in ("Normalization", "Rescaling")
        if any(id(tensor) in trained for tensor in inputs) or (getattr(operation, "weights", []) and not normalises):
            trained.update(id(tensor) for tensor in node.output_tensors)
            first.update((id(tensor), tensor) for tensor in inputs if id(tensor) not in trained)
            continue
        states = states or normalises or (type(operation).__name__ in _ARITHMETIC and len(inputs) == 1)
    if not states or not first:
        return False
    grey = np.stack([np.full((*size, model.inputs[0].shape[-1]), value, np.float32) for value in (0, 255)])
    values = keras.Model(model.inputs[0], list(first.values()))(grey, training=False)
    return usual_range([np.asarray(value) for value in (values if isinstance(values, list) else [values])])


def usual_range(ends: list[FloatArray]) -> bool:
    """Whether what a network makes of black and of white are numbers of the usual size."""
    values = np.concatenate([value.reshape(2, -1) for value in ends], axis=1)
    return bool(np.abs(values).max() <= _BRIGHTEST and np.ptp(values) >= _FAINTEST)


def _size(height: int | None, width: int | None, recipe: Recipe, where: str) -> tuple[int, int]:
    given = recipe.input_shape[1:] if recipe.input_shape else (height, width)
    if None in given:
        raise InvalidInput(f"{where}: takes inputs of any size: give --input-size")
    size = (height or given[0], width or given[1])
    if size != given:
        raise InvalidInput(f"{where}: takes {size[0]} x {size[1]}, not {given[0]} x {given[1]}: leave --input-size out")
    return size  # type: ignore[return-value]


def _of_one_channel(rule: Preprocess) -> Preprocess:
    """A rule that treats all colours alike, for grey pictures; any other as it is."""
    if len(set(rule.mean)) > 1 or len(set(rule.std)) > 1:
        return rule
    return replace(rule, color="L", mean=rule.mean[:1], std=rule.std[:1])


def _list(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))
