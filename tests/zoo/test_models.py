from __future__ import annotations

import re
from collections import Counter

import pytest

from runtime.errors import InvalidInput, UnknownName
from zoo import labels
from zoo.models import MODELS, canonical, find
from zoo.spec import ModelSpec, Variant


def test_names_are_unique_however_they_are_spelt() -> None:
    names = Counter(canonical(name) for spec in MODELS for name in (spec.name, *spec.aliases))
    assert [name for name, count in names.items() if count > 1] == []
    assert all(find(spec.name) is spec for spec in MODELS)
    assert all(re.fullmatch(r"[a-z0-9_]+", spec.name) for spec in MODELS)


def test_the_networks_of_the_mission() -> None:
    both, torch, keras = {"torch", "keras"}, {"torch"}, {"keras"}
    expected = {
        "lenet5": both, "alexnet": torch, "vgg16": both, "vgg19": both, "googlenet": torch, "inception_v3": both,
        "inception_v4": torch, "inception_resnet_v2": both, "resnet18": torch, "resnet34": torch, "resnet50": both,
        "resnet101": both, "resnet152": both, "resnet18_v2": torch, "resnet34_v2": torch, "resnet50_v2": both,
        "resnet101_v2": both, "resnet152_v2": keras, "xception": both, "mini_xception": keras, "mobilenet_v1": both,
        "mobilenet_v2": both, "mobilenet_v3_small": both, "mobilenet_v3_large": both, "squeezenet1_0": torch,
        "squeezenet1_1": torch, **{f"efficientnet_b{index}": both for index in range(8)},
    }  # fmt: skip
    rows = {spec.name: set(spec.sources) for spec in MODELS}
    assert {name: rows[name] for name in expected} == expected
    assert find("mobilenet") is find("mobilenet_v2")


def test_labels_of_the_catalogue() -> None:
    imagenet = labels.load("imagenet")
    assert (len(imagenet.names), len(set(imagenet.names)), len(set(imagenet.ids or ()))) == (1000, 1000, 1000)
    # WordNet 3.0: n02123045 is the tabby, n07753592 the banana
    assert labels.index_of("n02123045", imagenet) == labels.index_of("tabby", imagenet) == 281
    assert labels.index_of("954", imagenet) == labels.index_of("banana", imagenet) == 954
    assert labels.load("digits").names == tuple("0123456789")
    with pytest.raises(InvalidInput, match="'unicorn' is no class name"):
        labels.index_of("unicorn", imagenet)
    with pytest.raises(InvalidInput):
        labels.index_of("1000", imagenet)


def test_imagenet_labels_agree_with_the_framework() -> None:
    from torchvision.models import MobileNet_V2_Weights

    assert list(labels.load("imagenet").names) == MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]


def test_a_row_must_make_sense() -> None:
    variant = next(iter(MODELS[0].sources.values()))
    assert isinstance(variant, Variant)
    with pytest.raises(InvalidInput, match="at least one source"):
        ModelSpec(name="x", sources={}, paper="")
    with pytest.raises(UnknownName, match="no keras source"):
        find("squeezenet1_1").variant("keras")
