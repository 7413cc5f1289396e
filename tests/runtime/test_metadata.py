from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from runtime.errors import InvalidArtifact, InvalidInput, UnsupportedSchema
from runtime.metadata import Labels, Metadata, Parity, Preprocess, Provenance
from runtime.quantization import Quantization

names = st.text(min_size=1, max_size=20)
maybe_text = st.none() | st.text(max_size=20)
numbers = st.floats(-1e3, 1e3, allow_nan=False)
nonzero = st.floats(1e-3, 1e3)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    color = draw(st.sampled_from(["RGB", "BGR", "L"]))
    channels = 1 if color == "L" else 3
    height, width = draw(st.integers(1, 600)), draw(st.integers(1, 600))
    more = st.integers(0, 50)
    shorter = draw(st.booleans())
    return Preprocess(
        size=(height, width),
        resize=max(height, width) + draw(more) if shorter else (height + draw(more), width + draw(more)),
        mean=tuple(draw(numbers) for _ in range(channels)),
        std=tuple(draw(nonzero) for _ in range(channels)),
        color=color,
        interpolation=draw(st.sampled_from(["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        scale=draw(nonzero),
        input=draw(st.sampled_from(["float32", "uint8"])),
    )


@st.composite
def quantizations(draw: st.DrawFn) -> Quantization:
    percent = st.floats(0, 100)
    pair = st.none() | st.tuples(percent, percent)
    text, count = names, st.integers(0, 1000)
    return Quantization(
        *(draw(text) for _ in range(3)), *(draw(count) for _ in range(3)), draw(text), draw(count),
        draw(percent), draw(percent), draw(pair), draw(pair), draw(percent), draw(percent), draw(text), draw(text),
    )  # fmt: skip


@st.composite
def metadatas(draw: st.DrawFn) -> Metadata:
    labels = draw(st.lists(names, min_size=1, max_size=5))
    parity = Parity(8, "photos", (1, 3), draw(st.floats(0, 1)), 1e-4)
    return Metadata(
        name=draw(names),
        task="classification",
        preprocess=draw(preprocesses()),
        labels=Labels(tuple(labels), draw(st.none() | st.just(tuple(str(i) for i in range(len(labels)))))),
        provenance=Provenance(
            *(draw(names) for _ in range(5)),
            opset=draw(st.integers(1, 30)),
            weights=draw(st.sampled_from(["imagenet", "bundled", "file", "none"])),
            weights_file=draw(maybe_text),
            seed=draw(st.none() | st.integers(0, 9)),
        ),
        parity=draw(st.none() | st.just(parity)),
        explain_layer=draw(maybe_text),
        scores=draw(st.sampled_from(["logits", "probabilities"])),
        quantization=draw(st.none() | quantizations()),
    )


@given(metadatas())
def test_round_trip(metadata: Metadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(value, str) for value in props.values())
    assert Metadata.from_props(props) == metadata


def test_files_from_before_there_was_quantization_are_read(metadata: Metadata) -> None:
    props = metadata.to_props()
    del props["edgezoo.quantization"]
    assert Metadata.from_props(props) == metadata


def test_files_from_before_there_were_pixel_inputs_are_read_and_written_as_they_were(metadata: Metadata) -> None:
    props = metadata.to_props()
    assert "input" not in json.loads(props["edgezoo.preprocess"])
    assert Metadata.from_props(props) == metadata
    pixels = replace(metadata, preprocess=replace(metadata.preprocess, input="uint8"))
    assert json.loads(pixels.to_props()["edgezoo.preprocess"])["input"] == "uint8"
    assert pixels.to_props()["Image.NominalPixelRange"] == "NominalRange_0_255"


def test_keys_are_namespaced(metadata: Metadata) -> None:
    assert {key.partition(".")[0] for key in metadata.to_props()} == {"edgezoo", "Image"}


@pytest.mark.parametrize(
    ("color", "scale", "mean", "std", "pixel", "nominal"),
    [
        ("RGB", 1.0, (0.0,) * 3, (1.0,) * 3, "Rgb8", "NominalRange_0_255"),
        ("BGR", 1.0, (127.5,) * 3, (127.5,) * 3, "Bgr8", "Normalized_1_1"),
        ("L", 1 / 255, (0.0,), (1.0,), "Gray8", "Normalized_0_1"),
    ],
)
def test_onnx_image_keys(
    metadata: Metadata, color: Any, scale: float, mean: Any, std: Any, pixel: str, nominal: str
) -> None:
    rule = Preprocess(size=(8, 8), resize=8, color=color, scale=scale, mean=mean, std=std)
    props = replace(metadata, preprocess=rule).to_props()
    assert (props["Image.BitmapPixelFormat"], props["Image.NominalPixelRange"]) == (pixel, nominal)


def test_foreign_file_has_none() -> None:
    assert Metadata.from_props({"author": "somebody"}) is None


def test_other_schema_names_both(metadata: Metadata) -> None:
    with pytest.raises(UnsupportedSchema, match=r"a\.onnx: metadata schema '7'.*reads schema 2"):
        Metadata.from_props(metadata.to_props() | {"edgezoo.schema": "7"}, where="a.onnx")


@pytest.mark.parametrize(
    "damage",
    [
        {"edgezoo.preprocess": "{"},
        {"edgezoo.preprocess": "{}"},
        {"edgezoo.preprocess": "[]"},
        {"edgezoo.labels": json.dumps({"names": [], "ids": None})},
        {"edgezoo.labels": json.dumps({"names": ["a"], "ids": ["1", "2"]})},
        {"edgezoo.task": '"telepathy"'},
        {"edgezoo.name": "unquoted"},
    ],
)
def test_damage_is_an_error(metadata: Metadata, damage: dict[str, str]) -> None:
    with pytest.raises(InvalidArtifact, match="damaged edgezoo metadata"):
        Metadata.from_props(metadata.to_props() | damage)


@pytest.mark.parametrize("key", ["scores", "parity", "explain_layer", "labels", "provenance"])
def test_a_missing_key_is_not_guessed(metadata: Metadata, key: str) -> None:
    props = metadata.to_props()
    del props[f"edgezoo.{key}"]
    with pytest.raises(InvalidArtifact, match=key):
        Metadata.from_props(props)


def test_unknown_preprocess_field_is_not_ignored(metadata: Metadata) -> None:
    props = metadata.to_props()
    rule = json.loads(props["edgezoo.preprocess"]) | {"gamma": 2.2}
    with pytest.raises(InvalidArtifact, match="gamma"):
        Metadata.from_props(props | {"edgezoo.preprocess": json.dumps(rule)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.0,)},
        {"std": (1.0, 0.0, 1.0)},
        {"scale": 0.0},
        {"resize": 4},
        {"resize": (8, 4)},
        {"size": (0, 8)},
        {"color": "CMYK"},
        {"layout": "CHWN"},
        {"input": "uint16"},
        {"interpolation": "magic"},
    ],
)
def test_invalid_preprocess(metadata: Metadata, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        replace(metadata.preprocess, **wrong)


@given(preprocesses(), st.integers(1, 600), st.integers(1, 600))
def test_at_size_keeps_the_rule_valid(rule: Preprocess, height: int, width: int) -> None:
    other = rule.at_size(height, width)
    assert other.size == (height, width)
    assert rule.at_size(*rule.size) == rule


def test_at_size_keeps_the_proportion() -> None:
    rule = Preprocess(size=(224, 224), resize=256, mean=(0,) * 3, std=(1,) * 3)
    assert rule.at_size(112, 112).resize == 128
    assert replace(rule, resize=(224, 224)).at_size(64, 96).resize == (64, 96)
