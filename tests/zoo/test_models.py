from __future__ import annotations

from collections import Counter

import pytest

from runtime.errors import InvalidInput, UnknownName
from zoo import labels
from zoo.models import MODELS, find
from zoo.published import lookup
from zoo.spec import ModelSpec, Variant

VARIANTS = [(spec, framework) for spec in MODELS for framework in spec.sources]


def test_names_and_aliases_are_unique() -> None:
    names = Counter(name for spec in MODELS for name in (spec.name, *spec.aliases))
    assert [name for name, count in names.items() if count > 1] == []
    assert all(find(name).name in names for name in names)


def test_the_rows_of_the_first_road() -> None:
    expected = {
        "lenet5": {"torch", "keras"},
        "squeezenet1_1": {"torch"},
        "mobilenet_v1": {"torch", "keras"},
        "mobilenet_v2": {"torch", "keras"},
        "mobilenet_v3_small": {"torch", "keras"},
        "mobilenet_v3_large": {"torch", "keras"},
        "resnet50": {"torch", "keras"},
        "efficientnet_b0": {"torch", "keras"},
    }
    assert {spec.name: set(spec.sources) for spec in MODELS}.items() >= expected.items()
    assert find("mobilenet") is find("mobilenet_v2")


@pytest.mark.parametrize(("spec", "framework"), VARIANTS, ids=[f"{spec.name}-{f}" for spec, f in VARIANTS])
def test_published_parameters_are_the_counted_ones(spec: ModelSpec, framework: str) -> None:
    name, variant = spec.variant(framework)
    published = lookup(name, variant)
    if published is None:
        assert variant.published is None
        return
    assert published.top1 is not None
    assert 40 < published.top1 < 90
    # Both tables count a network with its 1000-class top, as the rows do.
    assert published.parameters == variant.parameters


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
    with pytest.raises(InvalidInput, match="lower case"):
        ModelSpec(name="ResNet", sources={"torch": variant}, paper="")
    with pytest.raises(UnknownName, match="no keras source"):
        find("squeezenet1_1").variant("keras")
