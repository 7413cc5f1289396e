"""Pictures as PyTorch's libraries prepare them, by their own code and configuration: the other side of the guard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters.source import FloatArray, Recipe
from exporters.torch_library import timm_config, torchvision_preset
from runtime.errors import InvalidInput
from runtime.metadata import Preprocess


def transform_of(recipe: Recipe) -> Callable[[Path], FloatArray]:
    """Picture file -> (1, C, H, W) float32.

    By the library's configuration for the weights named by ``recipe.weights.hub``. For a network without published
    weights nothing else than the rule says how it sees pictures: then only the code is torchvision's.
    """
    rule, hub = recipe.preprocess, recipe.weights.hub
    if rule is None:
        return _no_pictures
    library, _, name = recipe.builder.partition(":")
    if recipe.own_preprocess:
        steps = _by_rule(rule)
    elif library == "torchvision" and hub is not None:
        steps = _torchvision(name, hub, rule)
    elif library == "timm" and (hub is not None or recipe.weights.kind == "none"):
        steps = _timm(hub.partition("/")[2] if hub else name, name, rule)
    else:
        steps = _by_rule(rule)
    return lambda path: _open_and_transform(path, rule, steps)


def _torchvision(name: str, hub: str, rule: Preprocess) -> Callable[[Any], Any]:
    preset = torchvision_preset(name, hub)
    if rule.size != tuple(preset.crop_size * 2):  # with --input-size the sizes are the user's
        preset.crop_size = list(rule.size)
        preset.resize_size = [rule.resize] if isinstance(rule.resize, int) else list(rule.resize)
    return preset  # type: ignore[no-any-return]


def _timm(weights: str, name: str, rule: Preprocess) -> Callable[[Any], Any]:
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(pretrained_cfg=timm_config(weights, otherwise=name).to_dict())
    if rule.size == tuple(config["input_size"][1:]) and rule.channels == 3:
        return create_transform(**config)  # type: ignore[no-any-return]
    mean, std = config["mean"], config["std"]
    if rule.channels == 1:  # a network built for grey pictures, which the library has no values for
        return _by_rule(rule)
    return _compose(rule, config["interpolation"], mean, std)


def _by_rule(rule: Preprocess) -> Callable[[Any], Any]:
    mean, std = ([value / (255 * rule.scale) for value in values] for values in (rule.mean, rule.std))
    return _compose(rule, rule.interpolation, mean, std)


def _compose(rule: Preprocess, interpolation: str, mean: Any, std: Any) -> Callable[[Any], Any]:
    from torchvision import transforms

    steps = [
        transforms.Resize(
            rule.resize if isinstance(rule.resize, int) else list(rule.resize),
            transforms.InterpolationMode(interpolation),
        ),
        transforms.CenterCrop(list(rule.size)),
        transforms.ToTensor(),
        *([transforms.Lambda(lambda pixels: pixels.flip(0))] if rule.color == "BGR" else []),
        transforms.Normalize(list(mean), list(std)),
    ]
    return transforms.Compose(steps)  # type: ignore[no-any-return]


def _open_and_transform(path: Path, rule: Preprocess, steps: Callable[[Any], Any]) -> FloatArray:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = picture.convert("L" if rule.color == "L" else "RGB")
    return np.asarray(steps(pixels).unsqueeze(0).numpy(), dtype=np.float32)


def _no_pictures(path: Path) -> FloatArray:
    raise InvalidInput(f"{path}: the network takes no pictures")
