"""--preprocess SPEC: every recipe, every key, every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidInput
from runtime.metadata import Preprocess
from zoo import models
from zoo.preprocessing import RECIPES, parse

NETWORK = (224, 224)


def test_recipes_are_what_the_frameworks_do() -> None:
    """Held against rows that state it themselves; the Keras rows take theirs from here, and test_catalogue compares
    those with Keras' own preprocess_input."""
    rows = {"torch": ("mobilenet_v2", "torch"), "half": ("mobilenet_v1", "torch")}
    for name, (row, framework) in rows.items():
        assert RECIPES[name] == models.find(row).variant(framework)[1].preprocess
    assert RECIPES["0-255"] == replace(RECIPES["0-1"], scale=1.0)
    pixels = np.array([0, 255])
    rule = RECIPES["tf"]
    assert ((pixels * rule.scale - rule.mean[0]) / rule.std[0]).tolist() == [-1, 1]


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_alone(name: str) -> None:
    assert parse(name, size=NETWORK) == RECIPES[name]
    assert parse(f" {name} ", size=(160, 96)) == RECIPES[name].at_size(160, 96)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("torch,size=160x160,resize=182,interpolation=bicubic",
         {"size": (160, 160), "resize": 182, "interpolation": "bicubic"}),
        ("torch,size=160x160", {"size": (160, 160), "resize": 183}),  # 256 / 224, rounded
        ("torch,resize=300x400", {"resize": (300, 400)}),
        ("torch, color = bgr", {"color": "BGR", "mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)}),
        ("torch,mean=0.1:0.2:3/10,std=1", {"mean": (0.1, 0.2, 0.3), "std": (1.0,) * 3}),
        ("torch,layout=NHWC", {"layout": "NHWC"}),
        ("half,color=L", {"color": "L", "mean": (0.5,), "std": (0.5,)}),
    ],
)  # fmt: skip
def test_changes(text: str, changes: dict[str, Any]) -> None:
    assert parse(text, size=NETWORK) == replace(RECIPES[text.split(",")[0]], **changes)


def test_keys_alone_start_from_pixels_as_they_are() -> None:
    given_rule = parse("scale=1/255,mean=0.5,std=0.25,color=BGR,layout=NHWC", size=(8, 6))
    assert given_rule == Preprocess(
        size=(8, 6), resize=(8, 6), mean=(0.5,) * 3, std=(0.25,) * 3, color="BGR", layout="NHWC", scale=1 / 255
    )


def test_the_network_says_what_the_text_does_not() -> None:
    assert parse("0-1", size=(28, 28), channels=1).color == "L"
    assert parse("0-1,color=RGB", size=(28, 28), channels=1).color == "RGB"
    assert parse("0-1", size=(28, 28), layout="NHWC").layout == "NHWC"
    assert parse("0-1,layout=NCHW", size=(28, 28), layout="NHWC").layout == "NCHW"
    assert parse("0-1,size=32x24", size=None).size == (32, 24)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pytorch", "no recipe 'pytorch': choose from torch, tf, caffe, 0-255, 0-1, half"),
        ("", "no recipe ''"),
        ("torch,foo=1", "'foo=1' is no KEY=VALUE with a known key: the keys are size, resize"),
        ("torch,size", "'size' is no KEY=VALUE"),
        ("torch,mean=1,mean=2", "'mean=2' is given twice"),
        ("torch,", "'' is no KEY=VALUE"),
        ("torch,size=160", "give HEIGHTxWIDTH in pixels"),
        ("torch,size=0x5", "give HEIGHTxWIDTH in pixels"),
        ("torch,size=99999x5", "give HEIGHTxWIDTH in pixels"),
        ("torch,resize=big", "give the shorter side in pixels"),
        ("torch,resize=100", "resize 100 below size (224, 224)"),
        ("torch,color=pink", "choose from RGB, BGR, L"),
        ("torch,interpolation=cubic", "choose from nearest, box, bilinear"),
        ("torch,layout=CHW", "choose from NCHW, NHWC"),
        ("torch,mean=nan", "give a number such as 0.5 or 1/255"),
        ("torch,mean=1e99/0.0", "give a number such as 0.5 or 1/255"),
        ("scale=1/0", "give a number such as 0.5 or 1/255"),
        ("scale=0", "scale must not be 0"),
        ("std=0", "std and scale must not be 0"),
        ("torch,mean=1:2", "mean has 2 values, color RGB has 3 channels"),
        ("torch,color=L", "mean has 3 values, color L has 1 channel: give mean=NUMBER"),
        ("nothing.json", "nothing.json: not a readable JSON file (No such file or directory)"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, size=NETWORK)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_size_is_made_up() -> None:
    with pytest.raises(InvalidInput, match="fixes no input size: add size=HxW"):
        parse("torch", size=None)


@given(st.text(alphabet="torch,=size0123456789x/:.-e mean\x00é", max_size=40))
def test_any_text_is_a_rule_or_one_line(text: str) -> None:
    try:
        assert isinstance(parse(text, size=NETWORK), Preprocess)
    except InvalidInput as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", RECIPES)
def test_json_has_the_fields_of_the_metadata(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(asdict(RECIPES[name])), encoding="utf-8")
    assert parse(str(path), size=None) == RECIPES[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "RGB"}, "unknown field 'colour': the fields are size, resize"),
        ({"input": "uint8"}, 'input "uint8": give such as "float32"'),
        ({"mean": None}, "mean null: give such as [0.485"),
        ({"mean": [1, 2]}, "mean and std need 3 values"),
        ({"mean": [float("nan")] * 3}, "mean [NaN, NaN, NaN]: give such as"),
        ({"size": [224]}, "size [224]: give such as [224, 224]"),
        ({"size": 224}, "size 224: give such as [224, 224]"),
        ({"size": [True, 5]}, "size [true, 5]"),
        ({"resize": "256"}, 'resize "256": give such as 256'),
        ({"color": "pink"}, "color 'pink'"),
        ({"color": 3}, "color 3: give such as"),
        ({"scale": [1]}, "scale [1]: give such as"),
        ({"std": [0, 1, 1]}, "std and scale must not be 0"),
    ],
)
def test_json_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(json.dumps(asdict(RECIPES["torch"]) | changes), encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        parse(str(path), size=NETWORK)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no JSON object"),
        ("{", "not a readable JSON file"),
        ('{"size": [8, 8]}', "the field 'resize' is missing"),
    ],
)
def test_json_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        parse(str(path), size=NETWORK)


Tiny = Callable[..., Path]


def test_files_without_metadata(zoo: Callable[..., Any], tiny: Tiny, root: Path, tmp_path: Path) -> None:
    """The preprocessing on the command line gives what the same in the metadata gives."""
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    spec = "scale=1/255,mean=0.5,std=0.25,resize=10"
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\ngrey\n", encoding="utf-8")
    (known,) = json.loads(zoo("predict", tiny(), picture, "--json").out)
    done = zoo(
        "predict", tiny("foreign.onnx", stamped=False), picture, "--preprocess", spec, "--labels", names, "--json"
    )
    assert (done.code, done.err) == (0, "")
    (told,) = json.loads(done.out)
    assert [(guess["label"], guess["probability"]) for guess in told["top"]] == [
        (guess["label"], guess["probability"]) for guess in known["top"]
    ]
    (nameless,) = json.loads(zoo("predict", tmp_path / "foreign.onnx", picture, "--preprocess", spec, "--json").out)
    assert nameless["top"][0]["label"] == f"class {known['top'][0]['index']}"
    folder = tmp_path / "data" / known["top"][0]["label"]
    folder.mkdir(parents=True)
    (folder / "cat.jpg").write_bytes(picture.read_bytes())
    done = zoo("eval", tmp_path / "foreign.onnx", folder.parent, "--preprocess", spec, "--labels", names, "--json")
    assert json.loads(done.out)["top1"] == 100


def test_what_replaces_the_metadata_is_said(zoo: Callable[..., Any], tiny: Tiny, root: Path, tmp_path: Path) -> None:
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\n", encoding="utf-8")
    done = zoo("predict", tiny(), picture, "--preprocess", "0-1", "--labels", names, "--json")
    assert done.code == 0
    assert [line.split(" replaces ")[0] for line in done.err.splitlines()] == [
        "zoo: note: --preprocess", "zoo: note: --labels"
    ]  # fmt: skip
    assert json.loads(done.out)[0]["top"][0]["label"] in "abcd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "carries no edgezoo metadata: add --preprocess (torch, tf,"),
        (["--preprocess", "none"], "say how the network sees them"),
        (["--preprocess", "torch,size=9x9"], "does not fit its preprocessing"),
        (["--preprocess", "0-1", "--labels", "none.txt"], "none.txt: not a readable label file"),
    ],
)
def test_files_without_metadata_and_mistakes(
    zoo: Callable[..., Any], tiny: Tiny, root: Path, options: list[str], message: str
) -> None:
    picture = root / "exporters" / "samples" / "photos" / "cat.jpg"
    done = zoo("predict", tiny(stamped=False), picture, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
