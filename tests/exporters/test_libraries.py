"""What the libraries say of their networks, held against their own transforms and their built networks."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporters.libraries import LIBRARIES, describe
from exporters.source import sample_files
from runtime.errors import InvalidInput, UnknownName
from runtime.image import preprocess
from runtime.metadata import Preprocess

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

PICTURES = sample_files("photos")[:2]
CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
TIMM = timm.list_pretrained()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach for a hub."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def same(rule: Preprocess, transform: Callable[[Any], Any], path: Path) -> None:
    """The rule gives what the library's own transform gives."""
    with Image.open(path) as picture:
        expected = transform(picture.convert("RGB")).numpy()
    np.testing.assert_allclose(preprocess(path, rule)[0], expected, rtol=0, atol=2e-6 * np.abs(expected).max())


# ---- torchvision


def test_torchvision_has_eighty_classifiers() -> None:
    assert len(CLASSIFIERS) == 80
    for name in CLASSIFIERS:
        told = describe(f"torchvision:{name}")
        weights = torchvision.models.get_model_weights(name).DEFAULT
        assert (told.framework, told.classes, told.label_set, told.hub) == ("torch", 1000, "imagenet", weights.name)
        assert len(weights.meta["categories"] or range(1000)) == told.classes
        assert told.license == weights.meta.get("license", "BSD-3-Clause")
        assert told.preprocess.layout == "NCHW"
        assert min(told.preprocess.size) >= min(weights.meta["min_size"])


def different(names: list[str], rule: Callable[[str], Any]) -> list[str]:
    """One name for each rule there is."""
    return list({rule(name): name for name in reversed(names)}.values())


@pytest.mark.parametrize("name", different(CLASSIFIERS, lambda name: describe(f"torchvision:{name}").preprocess))
def test_torchvision_preprocessing(name: str) -> None:
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    for path in PICTURES:
        same(describe(f"torchvision:{name}").preprocess, transform, path)


def test_other_weights_of_torchvision() -> None:
    first, second = (describe("torchvision:resnet50", hub=f"IMAGENET1K_V{number}") for number in (1, 2))
    assert describe("torchvision:resnet50") == second
    assert (first.preprocess.resize, second.preprocess.resize) == (256, 232)
    swag = describe("torchvision:regnet_y_16gf", hub="IMAGENET1K_SWAG_E2E_V1")
    assert (swag.preprocess.size, swag.preprocess.interpolation) == ((384, 384), "bicubic")
    assert swag.license is not None
    assert "SWAG" in swag.license


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "regnet" not in name or "400mf" in name])
def test_networks_of_one_size(name: str) -> None:
    """Run on another size, on no device at all: only shapes are worked out. RegNets compute theirs, on the CPU."""
    told = describe(f"torchvision:{name}")
    with torch.device("cpu" if "regnet" in name else "meta"), torch.inference_mode():
        model = torchvision.models.get_model(name, weights=None).eval()
        side = told.preprocess.size[0] + 32
        try:
            fits = model(torch.zeros(1, 3, side, side)).shape == (1, 1000)
        except (AssertionError, RuntimeError, ValueError):
            fits = False
    assert fits != told.fixed_size


# ---- timm


def timm_transform(name: str) -> Callable[[Any], Any]:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    return timm.data.create_transform(**config)


def test_all_names_of_timm() -> None:
    """Each is described or refused in one line; what is described says what the configuration says."""
    refused = []
    for name in (*TIMM, *timm.list_models()):
        config = timm.get_pretrained_cfg(name)
        try:
            told = describe(f"timm:{name}")
        except InvalidInput as error:
            assert "\n" not in str(error)
            refused.append((name, config))
            continue
        assert (told.classes, told.hub, told.fixed_size) == (
            config.num_classes, config.hf_hub_id, config.fixed_input_size
        )  # fmt: skip
        assert told.preprocess.size == tuple(config.input_size[1:])
        assert told.preprocess.channels == config.input_size[0]
        assert told.license == (None if config.license == "unknown" else config.license)
        assert (told.label_set == "imagenet") == (config.num_classes == 1000)
        assert told.labels is None or len(told.labels.names) == told.classes
    assert all(
        config.num_classes in (0, 384, 512, 640, 768, 1024, 1152, 1280) or config.crop_pct > 1 for _, config in refused
    )
    assert not any(config.num_classes in (0, 512, 640, 768) for config in map(timm.get_pretrained_cfg, described()))


@lru_cache
def described() -> list[str]:
    """The names of timm that describe() has an answer for."""
    names = []
    for name in TIMM:
        try:
            describe(f"timm:{name}")
        except InvalidInput:
            continue
        names.append(name)
    return names


def test_timm_preprocessing() -> None:
    """One name for each of the rules there are, up to 256 pixels: some forty."""
    names = [name for name in described() if timm.get_pretrained_cfg(name).input_size[1] <= 256]
    chosen = different(names, lambda name: describe(f"timm:{name}").preprocess)
    assert len(chosen) > 30
    assert {timm.get_pretrained_cfg(name).crop_mode for name in chosen} == {"center", "squash"}
    for name in chosen:
        same(describe(f"timm:{name}").preprocess, timm_transform(name), PICTURES[0])


def test_labels_of_the_larger_sets() -> None:
    told = describe("timm:resnetv2_50x1_bit.goog_in21k")
    assert told.labels is not None
    assert (len(told.labels.names), told.label_set) == (21843, None)
    assert told.labels.ids is not None
    assert told.labels.names[told.labels.ids.index("n02084071")] == "dog, domestic dog, Canis familiaris"


def test_papers_and_names_without_weights() -> None:
    assert describe("timm:resnet50.a1_in1k").paper == "arXiv:2110.00476"
    assert describe("timm:resnet50") == describe("timm:resnet50.a1_in1k")
    assert describe("timm:convnextv2_small").hub is None
    assert describe("timm:res2net50d.in1k").license is None


# ---- Keras Applications


@pytest.mark.parametrize(
    ("name", "color", "mean", "scale", "fixed"),
    [
        ("MobileNet", "RGB", 127.5, 1, False),
        ("MobileNetV3Small", "RGB", 0, 1, False),
        pytest.param("VGG16", "BGR", 103.939, 1, True, marks=pytest.mark.slow),
        pytest.param("DenseNet121", "RGB", 0.485, 1 / 255, False, marks=pytest.mark.slow),
        pytest.param("EfficientNetB1", "RGB", 0, 1, False, marks=pytest.mark.slow),
    ],
)
def test_keras_applications(keras: Any, name: str, color: str, mean: float, scale: float, fixed: bool) -> None:
    told = describe(f"keras:{name}")
    rule = told.preprocess
    side = 240 if name == "EfficientNetB1" else 224
    assert (rule.color, rule.mean[0], rule.scale, rule.size) == (color, mean, scale, (side, side))
    assert (told.hub, told.classes, told.label_set, told.license) == ("imagenet", 1000, "imagenet", "Apache-2.0")
    assert told.fixed_size is fixed
    with Image.open(PICTURES[0]) as picture:
        pixels = np.asarray(picture.convert("RGB").resize(rule.size[::-1], Image.Resampling.BILINEAR), np.float32)
    module = inspect.getmodule(getattr(keras.applications, name))
    assert module is not None
    expected = module.preprocess_input(pixels.copy())
    given = preprocess(PICTURES[0], rule)[0].transpose(1, 2, 0)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# ---- what is refused


NO_CLASSIFIER = [
    "torchvision:fcn_resnet50", "torchvision:quantized_resnet50", "torchvision:raft_large", "torchvision:r3d_18",
    "torchvision:fasterrcnn_resnet50_fpn", "timm:vit_base_patch16_clip_224.openai", "timm:vit_small_patch14_dinov2",
    "timm:deepseek_vit_412m",
]  # fmt: skip


@pytest.mark.parametrize("builder", NO_CLASSIFIER)
def test_no_classifiers(builder: str) -> None:
    with pytest.raises(InvalidInput, match=r"no (float )?classifier"):
        describe(builder)


def test_preprocessing_that_has_no_form() -> None:
    with pytest.raises(InvalidInput, match="pads pictures"):
        describe("timm:volo_d5_512.sail_in1k")


UNKNOWN = {
    "torchvision:resnet51": "did you mean resnet50",
    "torchvision:ResNet50": "no model 'ResNet50'",
    "timm:efficientnet_b99": "did you mean",
    "timm:resnet50.nope": "no weights 'nope': it has a1_in1k",
    "timm:hf_hub:timm/resnet50": "no model",
    "timm:hf-hub:timm/resnet50": "no model",
    "timm:local-dir:x": "no model",
    "keras:MobileNetV4": "did you mean MobileNetV2",
    "nowhere:resnet50": "one of torchvision, timm, keras",
    "resnet50": "one of torchvision, timm, keras",
    "timm:": "one of torchvision, timm, keras",
}


@pytest.mark.parametrize("builder", UNKNOWN)
def test_unknown_names(builder: str, request: pytest.FixtureRequest) -> None:
    if builder.startswith("keras:"):
        request.getfixturevalue("keras")
    with pytest.raises(UnknownName, match=UNKNOWN[builder]) as told:
        describe(builder)
    assert "\n" not in str(told.value)


def test_unknown_weights() -> None:
    with pytest.raises(UnknownName, match="no weights 'V9': it has IMAGENET1K_V1, IMAGENET1K_V2"):
        describe("torchvision:resnet50", hub="V9")


def test_every_library_has_a_case() -> None:
    assert set(LIBRARIES) == {builder.partition(":")[0] for builder in UNKNOWN} - {"nowhere", "resnet50"}
