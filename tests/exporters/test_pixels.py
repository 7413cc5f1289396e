"""A network that takes uint8: the same answers as the float32 one, borders included, and the float32 one back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import helper, numpy_helper

import runtime
from exporters import export as road
from exporters.explained import write_explained
from exporters.pixels import pixel_rule, with_pixels
from exporters.source import sample_files
from runtime.errors import InvalidInput, ParityError
from runtime.image import preprocess
from runtime.metadata import Layout, Preprocess
from runtime.pixel_input import without_pixels
from tests.exporters.graphs import parse, run
from tests.exporters.pixel_files import as_pixels
from zoo.models import MODELS

LAYOUTS: tuple[Layout, ...] = ("NHWC", "NCHW")
RULES = {
    (rule.color, rule.scale, rule.mean, rule.std): rule
    for spec in MODELS
    for variant in spec.sources.values()
    if (rule := variant.preprocess) is not None
}
"""The catalogue's, each arithmetic once."""

ROUNDING = 2.0**-24


def conv_first(rule: Preprocess, *, seed: int = 0, batch: str = "N") -> onnx.ModelProto:
    """A convolution that pads, on the rule's input: (N, 4, H, W) out."""
    (high, wide), channels = rule.size, rule.channels
    weights = np.random.default_rng(seed).normal(size=(4, channels, 3, 3)).astype(np.float32)
    shape = f"{channels},{high},{wide}" if rule.layout == "NCHW" else f"{high},{wide},{channels}"
    turn = "" if rule.layout == "NCHW" else "t = Transpose<perm = [0, 3, 1, 2]>(x)"
    text = f"""(float[{batch},{shape}] x) => (float[{batch},4,{high},{wide}] y)
        {{ {turn} y = Conv<pads = [1, 1, 1, 1]>({"t" if turn else "x"}, w) }}"""
    return parse(text, w=weights)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Preprocess, Layout, int]:
    color = draw(st.sampled_from(["RGB", "BGR", "L"]))
    channels = 1 if color == "L" else 3
    size = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    number, positive = st.floats(-200, 200, width=32), st.floats(1 / 64, 200)
    rule = Preprocess(
        size=size,
        resize=size,
        color=color,
        mean=tuple(draw(st.just(0.0) | number) for _ in range(channels)),
        std=tuple(draw(st.just(1.0) | positive) for _ in range(channels)),
        scale=draw(st.sampled_from([1.0, 1 / 255, 1 / 128])),
        layout=draw(st.sampled_from(LAYOUTS)),
    )
    return rule, draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 99))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_same_answers_at_borders_too(case: tuple[Preprocess, Layout, int]) -> None:
    rule, layout, seed = case
    floats = conv_first(rule, seed=seed)
    pixels = with_pixels(floats, rule, layout)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(pixels, strict_mode=True), full_check=True)
    picture = np.random.default_rng(seed).integers(0, 256, (*rule.size, 3), dtype=np.uint8)
    given, taken = preprocess(picture, rule), preprocess(picture, pixel_rule(rule, layout))
    assert taken.dtype == np.uint8
    (wanted,), (got,) = run(floats, {"x": given}), run(pixels, {"pixels": taken}, optimized=True)
    weights = np.abs(numpy_helper.to_array(floats.graph.initializer[0])).sum()
    highest = float(np.abs(given).max()) + float(np.abs(np.array(rule.mean) / rule.std).max())
    # The input's rounding, as stated, and that of nine products a channel.
    np.testing.assert_allclose(got, wanted, atol=weights * highest * (5 + 27) * ROUNDING, rtol=0)
    assert without_pixels(pixels) == floats
    assert "pixels::" not in str(floats)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: f"{rule.color} {rule.mean[0]:.3g}/{rule.std[0]:.3g}")
@pytest.mark.parametrize("optimized", [False, True])
def test_every_value_of_a_pixel_is_within_the_stated_rounding(rule: Preprocess, optimized: bool) -> None:
    rule = replace(rule, size=(16, 16), resize=(16, 16))
    shape = f"N,{rule.channels},16,16"
    proto = with_pixels(parse(f"(float[{shape}] x) => (float[{shape}] y) {{ y = Identity(x) }}"), rule, "NHWC")
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(rule.channels, axis=3)
    (got,) = run(proto, {"pixels": levels}, optimized=optimized)
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in (rule.mean, rule.std))
    exact = (levels.transpose(0, 3, 1, 2) * rule.scale - mean) / std  # in float64
    bound = ROUNDING * (np.abs(mean / std) + 3 * np.abs(exact)) * (1 + 1e-6)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("color", ["RGB", "BGR", "L"])
def test_where_nothing_rounds_it_is_exact(layout: Layout, color: Any) -> None:
    """Bit for bit, at padded borders: there the network sees its own zero, which here is the grey level 96."""
    channels = 1 if color == "L" else 3
    rule = Preprocess(size=(5, 7), resize=(5, 7), mean=(96.0,) * channels, std=(64.0,) * channels, color=color)
    floats = conv_first(rule)
    pixels = with_pixels(floats, rule, layout)
    picture = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (wanted,) = run(floats, {"x": preprocess(picture, rule)})
    (got,) = run(pixels, {"pixels": preprocess(picture, pixel_rule(rule, layout))})
    np.testing.assert_array_equal(got, wanted)
    (even,) = run(pixels, {"pixels": preprocess(np.full((5, 7, 3), 96, np.uint8), pixel_rule(rule, layout))})
    np.testing.assert_array_equal(even, 0)  # of a zero input and a zero padding: nothing at the border either


def test_what_changes_nothing_is_left_out() -> None:
    rule = Preprocess(size=(4, 4), resize=(4, 4), mean=(0.0,) * 3, std=(1.0,) * 3)
    assert [node.op_type for node in with_pixels(conv_first(rule), rule, "NCHW").graph.node] == ["Cast", "Conv"]
    rule = replace(rule, scale=1 / 255, layout="NHWC")
    kinds = [node.op_type for node in with_pixels(conv_first(rule), rule, "NHWC").graph.node]
    assert kinds == ["Cast", "Mul", "Transpose", "Conv"]


def test_a_taken_name_and_weights_that_are_inputs() -> None:
    rule = Preprocess(size=(4, 4), resize=(4, 4), mean=(1.0,) * 3, std=(1.0,) * 3)
    text = "(float[2,3,4,4] x, float[1] w) => (float[2,3,4,4] y) { pixels = Neg(x) y = Mul(pixels, w) }"
    proto = parse(text, w=np.ones(1, np.float32))
    made = with_pixels(proto, rule, "NHWC")
    assert [value.name for value in made.graph.input] == ["pixels_", "w"]
    assert [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim] == [2, 4, 4, 3]
    assert without_pixels(made) == proto


def test_what_is_no_picture_is_refused() -> None:
    rule = Preprocess(size=(4, 4), resize=(4, 4), mean=(1.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(InvalidInput, match="the input is no picture"):
        pixel_rule(None, "NHWC")
    with pytest.raises(InvalidInput, match="a map of scores takes float32"):
        pixel_rule(rule, "NHWC", mapped=True)


# ---- files


@pytest.fixture(scope="module")
def lenets(lenet_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LeNet-5 as it is, and with both uint8 inputs, from `zoo export`."""
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("pixels")
    files = {layout: folder / f"{layout}.onnx" for layout in LAYOUTS}
    for layout, path in files.items():
        argv = ["export", "lenet5", "--source", "torch", "--uint8-input", layout, "-o", str(path)]
        assert main(argv) == 0
    return {"float32": lenet_file} | {str(layout): path for layout, path in files.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_exports_answer_alike(lenets: dict[str, Path], layout: Layout) -> None:
    digits = sample_files("digits")
    with runtime.load(lenets["float32"]) as plain, runtime.load(lenets[layout]) as made:
        assert (made.rule.input, made.rule.layout) == ("uint8", layout)
        assert made.metadata is not None and made.metadata.parity is not None
        assert plain.metadata is not None
        assert made.metadata.provenance == plain.metadata.provenance
        wanted, got = (np.concatenate(list(model.scores_many(digits))) for model in (plain, made))
        np.testing.assert_array_equal(got.argmax(1), wanted.argmax(1))
        np.testing.assert_allclose(got, wanted, atol=1e-6 * np.abs(wanted).max(), rtol=0)
        with pytest.raises(InvalidInput, match=r"takes uint8 \['any', \d+, \d+, \d+\], not float32"):
            made.run(preprocess(digits[0], plain.rule))
    bare, whole = onnx.load(lenets["float32"]), without_pixels(onnx.load(lenets[layout]))
    assert whole.graph == bare.graph


def test_a_wrong_constant_is_no_export(zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard feeds the file itself with pixels: what its graph makes of them is compared with the framework."""

    def wrong(proto: Any, rule: Preprocess | None, stated: Preprocess | None) -> Any:
        assert rule is not None and stated is not None
        return with_pixels(proto, replace(rule, mean=(rule.mean[0] + 0.01,)), stated.layout)

    monkeypatch.setattr(road, "as_stated", wrong)
    done = zoo("export", "lenet5", "--source", "torch", "--uint8-input", "-o", tmp_path / "wrong.onnx")
    assert done.code == ParityError.exit_code
    assert "relative error of the logits" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_explanations_are_those_of_the_float_file(lenets: dict[str, Path], layout: Layout) -> None:
    picture = sample_files("digits")[7]
    with runtime.load(lenets["float32"]) as plain, runtime.load(lenets[layout]) as made:
        assert made.layers() == plain.layers()
        for method in ("grad-cam", "saliency", "occlusion", "score-cam", "integrated-gradients"):
            wanted, got = (model.explain(picture, method) for model in (plain, made))
            np.testing.assert_array_equal(got.map, wanted.map)
            np.testing.assert_array_equal(got.picture, wanted.picture)
        told: list[Any] = []
        before = made.predict(picture)
        made.on_activation("conv1", lambda name, values: told.append(values))
        assert made.predict(picture).top[0].probability == pytest.approx(before.top[0].probability, abs=1e-6)
        np.testing.assert_allclose(told[0], plain.activations(picture, "conv1")["conv1"][None], atol=1e-5)
        with pytest.raises(InvalidInput, match="takes uint8 pictures, not float32"):
            made.run(preprocess(picture, plain.rule))


@pytest.mark.parametrize("batch", ["N", 2])
def test_grad_cam_inside_the_file(tiny: Callable[..., Path], tmp_path: Path, metadata: Any, batch: int | str) -> None:
    plain, output = tiny(batch=batch), tmp_path / "explained.onnx"
    file = as_pixels(plain, tmp_path / "pixels.onnx")
    write_explained(file, output)
    picture = np.random.default_rng(3).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    with runtime.load(plain) as one, runtime.load(output) as two:
        assert two.baked and two.rule.input == "uint8"
        wanted, inside, outside = one.explain(picture), two.explain(picture), two.explain(picture, "layer-cam")
        np.testing.assert_allclose(inside.map, wanted.map, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(inside.picture, wanted.picture)
        np.testing.assert_array_equal(outside.map, one.explain(picture, "layer-cam").map)
    with pytest.raises(InvalidInput, match="gives explanations already"):
        write_explained(output, tmp_path / "again.onnx")


def test_a_file_that_does_otherwise_than_it_says_is_not_explained(tiny: Callable[..., Path], tmp_path: Path) -> None:
    file = as_pixels(tiny(), tmp_path / "pixels.onnx")
    proto = onnx.load(file)
    mean = next(item for item in proto.graph.initializer if item.name.startswith("pixels::mean"))
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + 1, mean.name))
    onnx.save(proto, file)
    with runtime.load(file) as model, pytest.raises(runtime.errors.InvalidArtifact, match="otherwise than it says"):
        model.explain(np.zeros((9, 9, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), [("squeezenet1_1", "torch"), ("mobilenet_v2", "keras")])
def test_networks_of_the_catalogue(zoo: Any, tmp_path: Path, name: str, source: str) -> None:
    common = [name, "--source", source, "--weights", "none", "--input-size", "64x64"]
    scores = []
    for file, more in (("float.onnx", []), ("nhwc.onnx", ["--uint8-input"]), ("nchw.onnx", ["--uint8-input", "NCHW"])):
        done = zoo("export", *common, *more, "-o", tmp_path / file)
        assert done.code == 0, done.err
        assert ("input uint8 N" in done.out) == bool(more)
        with runtime.load(tmp_path / file) as model:
            scores.append(np.concatenate(list(model.scores_many(sample_files("photos")))))
    for got in scores[1:]:
        np.testing.assert_array_equal(got.argmax(1), scores[0].argmax(1))
        np.testing.assert_allclose(got, scores[0], atol=1e-5 * np.abs(scores[0]).max(), rtol=0)


def test_value_info_may_be_gone() -> None:
    """The float32 input's shape is then that of the pixels, turned."""
    rule = Preprocess(size=(4, 6), resize=(4, 6), mean=(1.0,) * 3, std=(1.0,) * 3)
    proto = conv_first(rule)
    made = with_pixels(proto, rule, "NHWC")
    del made.graph.value_info[:]
    wanted = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 4, 6])
    assert list(without_pixels(made).graph.input) == [wanted]
