"""PyTorch networks. Only this module and its neighbours ``torch_*`` import torch, torchvision or timm."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from exporters import torch_graph, torch_program
from exporters.hub import first_line
from exporters.source import (
    FloatArray,
    Recipe,
    Scores,
    Source,
    numbered_labels,
    package_version,
    sample_files,
)
from exporters.torch_build import as_module, build
from exporters.torch_head import Network, as_network
from exporters.torch_transform import transform_of
from exporters.torch_untrained import enliven
from exporters.torch_weights import fill, refuse_script, whole
from exporters.weights_file import kind_of
from runtime.errors import ExportFailed, InvalidInput, InvalidWeights, MissingDependency
from runtime.files import sha256
from runtime.metadata import Labels

_SCOPES = "pkg.torch.onnx.name_scopes"
_PICTURES = (1, 3)
"""Channels of what can be a picture."""


def load(recipe: Recipe) -> Source:
    """Build the network, load its weights, and give it back ready to convert and compare.

    A weights file that holds a whole network (.pt2, and with ``recipe.trust`` TorchScript and pickled modules)
    brings its own architecture. Raises MissingDependency, UnknownName, InvalidInput, WeightsUnavailable or
    InvalidWeights.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports huggingface_hub
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(f'PyTorch cannot be imported ({error}): pip install "edgezoo[torch]"') from error
    shape = _input_shape(recipe)
    example = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32))
    torch.manual_seed(recipe.weights.seed)
    transform = transform_of(recipe)
    network, builder, sha256 = _load(recipe, example, transform)
    where = builder.removeprefix("file:")
    task, labels = _scores(recipe, network, where)

    def forward(batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            return np.asarray(network.model(torch.from_numpy(batch)).numpy(), dtype=np.float32)

    return Source(
        framework="torch",
        framework_version=package_version("torch"),
        exporter=f"torch.onnx.export(dynamo=True), onnxscript {package_version('onnxscript')}",
        forward=forward,
        features=lambda batch: np.asarray(network.features(torch.from_numpy(batch)).numpy(), dtype=np.float32),
        transform=transform,
        opsets=range(18, 24),  # below, it tries to convert what it wrote at 18, and may leave it there
        convert=lambda opset, batch: _convert(network, shape, opset, batch, where),
        layout="NCHW",
        preprocess=recipe.preprocess,
        input_shape=shape,
        task=task,
        labels=labels,
        weights_sha256=sha256,
        builder=builder,
    )


def _input_shape(recipe: Recipe) -> tuple[int, int, int]:
    rule = recipe.preprocess
    if rule is not None:
        if rule.layout != "NCHW":
            raise InvalidInput(f"PyTorch networks take NCHW, the preprocessing gives {rule.layout}")
        return rule.channels, *rule.size
    if recipe.input_shape is None or recipe.input_shape[0] in _PICTURES:
        raise InvalidInput(
            f"{recipe.name}: nobody wrote down its preprocessing: give --preprocess torch|tf|caffe|0-255|0-1|FILE.json"
        )
    return recipe.input_shape


# ---- the network


def _load(recipe: Recipe, example: Any, transform: Callable[[Path], FloatArray]) -> tuple[Network, str, str | None]:
    """The network with its weights, what it was built by, and the SHA-256 of its weights file."""
    path = recipe.weights.path
    kind = kind_of(path) if path else None
    if path and kind in ("pt2", "torchscript"):
        if kind == "torchscript" and not recipe.trust:
            raise refuse_script(path)
        scripted = kind == "torchscript"
        program = torch_graph.from_script(path, example) if scripted else torch_program.load(path, trust=recipe.trust)
        network = torch_graph.as_network(program, example, where=path.name, frozen=not scripted)
        return network, f"file:{path.name}", sha256(path)
    if path and recipe.builder.startswith("file:"):
        model = as_module(whole(path, recipe), what=f"{path}: holds").eval().requires_grad_(False)
        return as_network(model, example, where=path.name), recipe.builder, sha256(path)
    model = build(recipe)
    _initialise(model, example)
    weights_sha256 = fill(model, recipe)
    model.eval().requires_grad_(False)
    network = as_network(model, example, where=recipe.builder)
    if recipe.weights.kind == "none":
        pictures = example if recipe.preprocess is None else _pictures(recipe, transform)
        enliven(network.model, pictures, recipe.weights.seed)
    return network, recipe.builder, weights_sha256


def _initialise(model: Any, example: Any) -> None:
    """Run a network of lazy layers once, whose weights have no shape before."""
    import torch

    if any(isinstance(weight, torch.nn.parameter.UninitializedTensorMixin) for weight in model.state_dict().values()):
        with torch.inference_mode():
            model.eval()(example)


def _pictures(recipe: Recipe, transform: Callable[[Path], FloatArray]) -> Any:
    import torch

    return torch.from_numpy(np.concatenate([transform(path) for path in sample_files(recipe.samples)]))


def _scores(recipe: Recipe, network: Network, where: str) -> tuple[Scores, Labels]:
    """What the outputs mean, and their names. Raises InvalidInput or InvalidWeights where both do not agree."""
    outputs, names = network.outputs, len(recipe.labels.names) if recipe.labels else None
    one = outputs == 1 and names in (None, 2)
    task: Scores = recipe.task or (
        "binary" if one else "multilabel" if network.ending == "sigmoid" and outputs > 1 else "classification"
    )
    if network.ending and (network.ending == "sigmoid") != (task != "classification"):
        raise InvalidInput(f"{where}: ends in a {network.ending}, and so cannot be a {task} of {outputs} outputs")
    if task == "binary" and outputs != 1:
        raise InvalidInput(f"{where}: the network has {outputs} outputs, a binary one has 1")
    wanted = 2 if task == "binary" else outputs
    if names not in (None, wanted):
        hint = ": name the two answers, negative first" if outputs == 1 else ""
        raise InvalidWeights(f"{where}: the network has {outputs} outputs, the labels are {names}{hint}")
    return task, recipe.labels or numbered_labels(task, outputs)


# ---- conversion


def _convert(network: Network, shape: tuple[int, int, int], opset: int, batch: int | None, where: str) -> Any:
    import torch

    if network.batch not in (None, batch):
        raise InvalidInput(
            f"{where}: was exported for batches of {network.batch} alone: give --batch {network.batch}, or export it "
            'again with dynamic_shapes=({0: torch.export.Dim("batch")},)'
        )
    # An example batch of 2: torch.export specialises on sizes 0 and 1.
    example = torch.zeros(batch or 2, *shape)
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Exporting a model while it is in training mode")
            program = torch.onnx.export(
                network.model,
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
    return _name_layers(program.model_proto, network.layers, network.prefix)


def _name_layers(proto: Any, layers: frozenset[str], prefix: str) -> Any:
    """Name each node for the module it comes from: whose weights it uses, else whose forward made it."""
    for node in proto.graph.node:
        owners = [name.rpartition(".")[0] for name in node.input[1:]]
        scopes: list[str] = next(
            (json.loads(p.value.replace("'", '"')) for p in node.metadata_props if p.key == _SCOPES), []
        )
        named = [name for name in (*owners[:1], *reversed(scopes)) if name in layers and name]
        node.name = (named[0] if named else (scopes[-1] if scopes else node.op_type.lower())).removeprefix(prefix)
    return proto
