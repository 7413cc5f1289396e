"""PyTorch networks. Only this module and ``torch_weights`` import torch, torchvision or timm."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from exporters.hub import first_line
from exporters.source import FloatArray, Recipe, Source, import_builder, package_version
from exporters.torch_weights import fill
from runtime.errors import ExportFailed, MissingDependency, UnknownName
from runtime.metadata import Preprocess

_SCOPES = "pkg.torch.onnx.name_scopes"


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    Raises MissingDependency, UnknownName, WeightsUnavailable or InvalidWeights.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports huggingface_hub
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(f'PyTorch cannot be imported ({error}): pip install "edgezoo[torch]"') from error
    library, _, name = recipe.builder.partition(":")
    torch.manual_seed(recipe.weights.seed)
    model = _build(library, name, recipe)
    sha256 = fill(model, recipe)
    model.eval().requires_grad_(False)

    def forward(batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(batch)).numpy(), dtype=np.float32)

    rule = recipe.preprocess
    transform = _transform(library, name, model, rule, recipe.weights.hub)
    return Source(
        framework="torch",
        framework_version=package_version("torch"),
        exporter=f"torch.onnx.export(dynamo=True), onnxscript {package_version('onnxscript')}",
        forward=forward,
        transform=lambda path: _open_and_transform(path, rule, transform),
        opsets=range(18, 24),  # below, it tries to convert what it wrote at 18, and may leave it there
        convert=lambda opset, batch: _convert(model, rule, opset, batch),
        preprocess=rule,
        weights_sha256=sha256,
        builder=recipe.builder,
    )


def _build(library: str, name: str, recipe: Recipe) -> Any:
    classes = len(recipe.labels.names)
    if library == "torchvision":
        import torchvision

        try:
            return torchvision.models.get_model(name, weights=None, num_classes=classes)
        except ValueError as error:
            raise UnknownName(f"torchvision has no model {name!r}") from error
    if library == "timm":
        import timm

        try:
            return timm.create_model(name, pretrained=False, num_classes=classes)
        except RuntimeError as error:
            raise UnknownName(f"timm has no model {name!r} ({error})") from error
    return import_builder(recipe.builder)(num_classes=classes)


# ---- preprocessing, by the libraries' own code and configuration


def _transform(library: str, name: str, model: Any, rule: Preprocess, hub: str | None) -> Callable[[Any], Any]:
    from torchvision import transforms

    resize: int | list[int] = rule.resize if isinstance(rule.resize, int) else list(rule.resize)
    crop: int | list[int] = list(rule.size)
    if library == "torchvision" and hub is not None:
        import torchvision

        preset = torchvision.models.get_model_weights(name)[hub].transforms()
        mean, std, interpolation = preset.mean, preset.std, preset.interpolation.value
        own_resize, own_crop = preset.resize_size[0], preset.crop_size[0]
    elif library == "timm":
        cfg = model.pretrained_cfg
        mean, std, interpolation = cfg["mean"], cfg["std"], cfg["interpolation"]
        own_crop = cfg["input_size"][1]
        own_resize = int(own_crop / cfg["crop_pct"])
    else:  # a builder of one's own has no other authority than the rule: only the code is torchvision's
        mean, std = ([value / (255 * rule.scale) for value in values] for values in (rule.mean, rule.std))
        interpolation, own_resize, own_crop = rule.interpolation, None, None
    if rule.size == (own_crop, own_crop):  # with --input-size the sizes are the user's
        resize, crop = own_resize, own_crop
    steps = [
        transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
        transforms.CenterCrop(crop),
        transforms.ToTensor(),
        transforms.Normalize(list(mean), list(std)),
    ]
    return cast(Callable[[Any], Any], transforms.Compose(steps))


def _open_and_transform(path: Path, rule: Preprocess, transform: Callable[[Any], Any]) -> FloatArray:
    from PIL import Image

    with Image.open(path) as picture:
        pixels = picture.convert("L" if rule.color == "L" else "RGB")
    return np.asarray(transform(pixels).unsqueeze(0).numpy(), dtype=np.float32)


# ---- conversion


def _convert(model: Any, rule: Preprocess, opset: int, batch: int | None) -> Any:
    import torch

    # An example batch of 2: torch.export specialises on sizes 0 and 1.
    example = torch.zeros(batch or 2, rule.channels, *rule.size)
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    try:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=dynamic,
            verbose=False,
        )
    except Exception as error:
        raise ExportFailed(f"torch.onnx.export failed: {first_line(error)}") from error
    return _name_layers(program.model_proto, dict(model.named_modules()))


def _name_layers(proto: Any, modules: dict[str, Any]) -> Any:
    """Name each node for the module it comes from: whose weights it uses, else whose forward made it."""
    for node in proto.graph.node:
        owners = [name.rpartition(".")[0] for name in node.input[1:]]
        scopes: list[str] = next(
            (json.loads(p.value.replace("'", '"')) for p in node.metadata_props if p.key == _SCOPES), []
        )
        named = [name for name in (*owners[:1], *reversed(scopes)) if name and name in modules]
        node.name = named[0] if named else (scopes[-1] if scopes else node.op_type.lower())
    return proto
