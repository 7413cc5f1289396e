"""What each row states, against the built network, the library's own configuration and the published tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from exporters.source import import_builder
from zoo import labels
from zoo.disagreements import MISTAKEN, REASONS, disagreements
from zoo.models import MODELS, find
from zoo.published import _rows, lookup
from zoo.spec import Facts, Framework, ModelSpec, Variant

VARIANTS: list[tuple[ModelSpec, Framework, Variant]] = [
    (spec, framework, variant) for spec in MODELS for framework, variant in spec.sources.items()
]
LIBRARY = [row for row in VARIANTS if row[2].builder.split(":")[0] in ("torchvision", "timm")]


def of(framework: Framework) -> list[Any]:
    return [pytest.param(spec, variant, id=spec.name) for spec, source, variant in VARIANTS if source == framework]


def stated(variant: Variant) -> Facts:
    assert variant.facts is not None
    return variant.facts


def size_of(variant: Variant) -> tuple[int, int]:
    assert variant.preprocess is not None
    return variant.preprocess.size


# ---- counted: torch


@pytest.fixture
def no_initialisation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights are counted here, not used: filling 640 million of them takes longer than all the counting."""
    from torch.nn import init

    for name in dir(init):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(init, name, lambda tensor, *args, **kwargs: tensor)
    yield


def build_torch(builder: str) -> Any:
    """The network as the library builds it for training, and without the heads that only serve there."""
    import torch

    library, _, name = builder.partition(":")
    with torch.device("cpu" if "regnet" in name else "meta"):  # RegNets compute their widths, on the CPU
        if library == "torchvision":
            import torchvision

            network = torchvision.models.get_model(name, weights=None)
        elif library == "timm":
            import timm

            network = timm.create_model(name, pretrained=False)
        else:
            network = import_builder(builder)()
    for head in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, head):
            setattr(network, head, None)
            network.aux_logits = False
    return network


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "variant"), of("torch"))
def test_torch_network_is_as_stated(spec: ModelSpec, variant: Variant, no_initialisation: None) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = build_torch(variant.builder).to("meta").eval()
    trainable = sum(weight.numel() for weight in network.parameters())
    statistics = sum(
        buffer.numel() for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))
    )
    depth = sum(any(True for _ in module.parameters(recurse=False)) for module in network.modules())
    channels = 1 if spec.samples == "digits" else 3
    flops = []
    for pictures in (1, 2):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            answer = network(torch.empty(pictures, channels, *size_of(variant), device="meta"))
        flops.append(counter.get_total_flops())
    macs = (flops[1] - flops[0]) // 2  # of one picture more; one is two floating-point operations
    assert Facts(trainable + statistics, trainable, depth, macs) == stated(variant)
    assert answer.shape == (2, len(labels.load(spec.labels or "").names))


# ---- counted: Keras


@pytest.fixture
def keras_without_initialisation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keras that fills no weight with random numbers: here too they are counted, not used."""
    from exporters.keras import _import_keras

    keras = _import_keras()
    from keras.src.initializers import random_initializers

    def zeros(initializer: Any, shape: Any, dtype: Any = None, **_: Any) -> Any:
        return keras.ops.zeros(shape, dtype)

    for kind in vars(random_initializers).values():
        if isinstance(kind, type) and "__call__" in vars(kind):
            monkeypatch.setattr(kind, "__call__", zeros)
    return keras


def build_keras(variant: Variant) -> Any:
    import keras

    keras.backend.clear_session()
    library, _, name = variant.builder.partition(":")
    if library != "keras":
        return import_builder(variant.builder)()
    constructor: Callable[..., Any] = getattr(keras.applications, name)
    # Only MobileNetV3 has no input size of its own; 224 is the one of its weights.
    shape = {"input_shape": (224, 224, 3)} if name.startswith("MobileNetV3") else {}
    return constructor(weights=None, classifier_activation=None, **shape)


def macs_of(layer: Any) -> int:
    """Outputs of one channel times the weights behind them: no layer here has a kernel that skips any."""
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    places = int(np.prod(layer.output.shape[1:-1]))
    return places * sum(int(np.prod(kernel.shape)) for kernel in kernels)


def assert_preprocesses_as(constructor: Any, network: Any, variant: Variant) -> None:
    """The library's own preprocess_input, on random pixels, against what the row says."""
    import keras

    rule = variant.preprocess
    assert rule is not None
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    theirs = sys.modules[constructor.__module__].preprocess_input(pixels.copy())
    ours = (pixels[..., :: -1 if rule.color == "BGR" else 1] * rule.scale - rule.mean) / rule.std
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
    assert rule.resize == rule.size  # load_img(target_size=...)
    # Where preprocess_input does nothing, the network has to do it.
    inside = any(isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)) for layer in network.layers)
    assert inside == np.array_equal(theirs, pixels)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "variant"), of("keras"))
def test_keras_network_is_as_stated(spec: ModelSpec, variant: Variant, keras_without_initialisation: Any) -> None:
    keras = keras_without_initialisation
    network = build_keras(variant)
    layers = [layer for layer in network._flatten_layers(include_self=False) if not getattr(layer, "layers", None)]
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    facts = Facts(
        total=network.count_params(),
        trainable=trainable,
        depth=sum(bool(layer.weights) for layer in layers),
        macs=sum(macs_of(layer) for layer in layers),
    )
    assert facts == stated(variant)
    assert tuple(network.input_shape[1:3]) == size_of(variant)
    library, _, name = variant.builder.partition(":")
    if library == "keras":
        assert_preprocesses_as(getattr(keras.applications, name), network, variant)
    classes = len(labels.load(spec.labels or "").names)
    assert network.output_shape == (None, 1 if spec.task == "binary" else classes)


# ---- the library's own configuration


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "framework", "variant"), LIBRARY, ids=[f"{spec.name}-{framework}" for spec, framework, _ in LIBRARY]
)
def test_preprocessing_is_the_library_s(spec: ModelSpec, framework: Framework, variant: Variant) -> None:
    from exporters.libraries import describe

    told = describe(variant.builder, hub=variant.hub)
    assert told.preprocess == variant.preprocess
    assert (told.framework, told.hub) == (framework, variant.hub)
    assert told.label_set == spec.labels


# ---- published


def test_published_figures_are_ours_or_explained() -> None:
    published = [variant for _, _, variant in VARIANTS if lookup(variant)]
    assert len(published) == 118  # 80 of torchvision, 38 of Keras Applications
    differing = {
        (variant.builder, found.figure): found.reason for variant in published for found in disagreements(variant)
    }
    listed = {(builder, figure): reason for builder, rows in REASONS.items() for figure, reason in rows.items()}
    assert differing == listed


def test_every_published_row_is_in_the_catalogue() -> None:
    builders = {variant.builder for _, _, variant in VARIANTS}
    assert {f"keras:{name}" for name in _rows("keras_applications.csv")} <= builders
    # torchvision's other models detect, segment or watch films.
    import torchvision

    assert {f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)} <= builders


def test_inception_v4_is_not_inception_resnet() -> None:
    v4, resnet = (find(name).variant("torch")[1] for name in ("inception_v4", "inception_resnet_v2"))
    assert round(stated(v4).trainable / 1e6, 1) == 42.7
    assert round(stated(resnet).total / 1e6, 1) == 55.9
    assert "55.9" in MISTAKEN["inception_v4"]
