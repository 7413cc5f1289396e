"""PyTorch networks. The only module of the road that imports torch, torchvision or timm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from exporters.source import FloatArray, Recipe, Source, describe_mismatch, file_sha256, import_builder
from runtime.errors import ExportFailed, InvalidWeights, MissingDependency, UnknownName, WeightsUnavailable
from runtime.metadata import Preprocess

_LIBRARIES = ("torchvision", "timm")
_SCOPES = "pkg.torch.onnx.name_scopes"


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    Raises MissingDependency, UnknownName, WeightsUnavailable or InvalidWeights.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(f'PyTorch cannot be imported ({error}): pip install "edgezoo[torch]"') from error
    library, _, name = recipe.builder.partition(":")
    weights = recipe.weights
    torch.manual_seed(weights.seed)
    model = _build(library, name, recipe)
    sha256 = None
    if weights.kind == "imagenet":
        sha256 = _load_hub(model, library, name, weights.hub)
    elif weights.path is not None:
        sha256 = file_sha256(_readable(weights.path))
        _load_state(model, _read_state(weights.path), where=weights.path.name)
    model.eval().requires_grad_(False)

    def forward(batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(batch)).numpy(), dtype=np.float32)

    rule = recipe.preprocess
    transform = _transform(library, name, model, rule, weights.hub)
    return Source(
        framework="torch",
        framework_version=_version("torch"),
        exporter=f"torch.onnx.export(dynamo=True), onnxscript {_version('onnxscript')}",
        forward=forward,
        transform=lambda path: _open_and_transform(path, rule, transform),
        convert=lambda opset, batch: _convert(model, rule, opset, batch),
        preprocess=rule,
        weights_sha256=sha256,
    )


def _version(package: str) -> str:
    from importlib.metadata import version

    # The CUDA suffix says nothing about a network that was built and converted on the CPU.
    return version(package).partition("+")[0]


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


# ---- weights


def _load_hub(model: Any, library: str, name: str, hub: str | None) -> str:
    """Load the framework's published weights, checksum verified; the SHA-256 of the file."""
    if library not in _LIBRARIES or hub is None:
        raise WeightsUnavailable(f"{library}:{name} has no published weights: use --weights FILE or --weights none")
    fetch = _fetch_torchvision if library == "torchvision" else _fetch_timm
    try:
        path = fetch(name, hub)
    except Exception as error:
        raise WeightsUnavailable(
            f"cannot get the {hub} weights of {library}:{name} ({_first_line(error)}): "
            "use --weights FILE with weights you have, or --weights none for an untrained network"
        ) from error
    _load_state(model, _read_state(path), where=path.name)
    return file_sha256(path)


def _fetch_torchvision(name: str, hub: str) -> Path:
    import torch
    import torchvision

    url = torchvision.models.get_model_weights(name)[hub].url
    # check_hash compares the file with the digest in its name, torchvision's own convention.
    torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])


def _fetch_timm(name: str, hub: str) -> Path:
    import huggingface_hub

    # Content-addressed by the hub; safetensors never runs code.
    return Path(huggingface_hub.hf_hub_download(hub, "model.safetensors"))


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise WeightsUnavailable(f"{path}: no such weights file")
    return path


def _read_state(path: Path) -> dict[str, Any]:
    """A flat state dict from .safetensors or a torch checkpoint, without running any code."""
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if path.suffix in (".h5", ".keras"):
            raise InvalidWeights(f"{path}: a Keras file: use --source keras")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except InvalidWeights:
        raise
    except pickle.UnpicklingError as error:
        raise InvalidWeights(
            f"{path}: refused, it is not a plain state dict and reading it could run code: "
            "save model.state_dict() with torch.save, or as .safetensors"
        ) from error
    except Exception as error:
        raise InvalidWeights(f"{path}: not a readable checkpoint ({_first_line(error)})") from error
    return _unwrap(state, path)


def _unwrap(state: Any, path: Path) -> dict[str, Any]:
    """The tensors inside the wrappings that training scripts use."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(hasattr(value, "shape") for value in state.values()):
        raise InvalidWeights(f"{path}: holds no state dict: save model.state_dict()")
    if state and all(key.startswith("module.") for key in state):  # torch.nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _load_state(model: Any, state: dict[str, Any], *, where: str) -> None:
    # Counters of training steps: absent from old checkpoints and without effect on the output.
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    state = {key: value for key, value in state.items() if key not in counters}
    given = {key: tuple(value.shape) for key, value in state.items()}
    mismatch = describe_mismatch({key: shape for key, shape in expected.items() if key not in counters}, given)
    if mismatch:
        raise InvalidWeights(f"{where}: the weights do not fit {type(model).__name__}: {mismatch}")
    model.load_state_dict(state, strict=False)


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
        raise ExportFailed(f"torch.onnx.export failed: {_first_line(error)}") from error
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


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
