"""From a picture to an explanation, on a network small enough to work out by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import runtime
from runtime.errors import InvalidInput, UnknownName
from runtime.explain import EXPLAINERS
from runtime.gradients import NoGradient
from runtime.image import preprocess
from runtime.metadata import Labels, Preprocess
from tests.conftest import tiny_proto

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 14, 3), dtype=np.uint8)
QUICK: dict[str, dict[str, Any]] = {"rise": {"masks": 40}, "smooth-grad": {"samples": 4}}


def weights() -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in tiny_proto().graph.initializer}


@pytest.mark.parametrize("method", EXPLAINERS)
@pytest.mark.parametrize("batch", ["batch", 3])
def test_every_method_gives_a_map_of_the_class(tiny: Callable[..., Path], method: str, batch: int | str) -> None:
    with runtime.load(tiny(batch=batch, explain_layer="relu")) as model:
        best = model.predict(PICTURE)
        found = model.explain(PICTURE, method, **QUICK.get(method, {}))
        assert (found.index, found.label) == (best.index, best.label)
        assert found.score == pytest.approx(best.probability, abs=1e-6)
        assert found.map.dtype == np.float32
        assert found.map.shape == (8, 8)
        assert np.isfinite(found.map).all()
        assert found.signed or found.map.min() >= 0
        assert found.map.any()
        assert found.picture.shape == (8, 8, 3)
        assert found.layer == ("relu" if EXPLAINERS[method].layered else None)
        again = model.explain(PICTURE, method, **QUICK.get(method, {}))
        np.testing.assert_array_equal(found.map, again.map)


@pytest.mark.parametrize("target", [0, 2, "grey", "3"])
def test_grad_cam_by_hand(tiny: Callable[..., Path], target: int | str) -> None:
    """Behind the layer there are an average and one linear layer: its weights over the places are the gradient."""
    index = {"grey": 3, "3": 3}.get(str(target), target)
    with runtime.load(tiny()) as model:
        activation = model.activations(PICTURE, "relu")["relu"]
        found = model.explain(PICTURE, target=target, layer="relu")
    assert found.index == index
    wanted = np.maximum(np.tensordot(weights()["fw"][:, int(index)] / 64, activation, axes=1), 0)
    np.testing.assert_allclose(found.map, wanted, rtol=1e-4, atol=1e-7)


def test_ablation_by_hand(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny()) as model:
        activation = model.activations(PICTURE, "relu")["relu"]
        found = model.explain(PICTURE, "ablation-cam", target=1, layer="relu")
    fw, fb = (weights()[name].astype(np.float64) for name in ("fw", "fb"))
    scores = [np.delete(activation, k, 0).mean((1, 2)) @ np.delete(fw, k, 0)[:, 1] + fb[1] for k in range(6)]
    whole = activation.mean((1, 2)) @ fw[:, 1] + fb[1]
    lost = (whole - np.array(scores)) / abs(whole)
    np.testing.assert_allclose(found.map, np.maximum(np.tensordot(lost, activation, axes=1), 0), rtol=1e-3, atol=1e-5)


def test_saliency_is_the_slope(tiny: Callable[..., Path]) -> None:
    """Against central differences of the file's own scores; a ReLU that flips within a step is no slope."""
    with runtime.load(tiny()) as model:
        pixels = preprocess(PICTURE, model.rule)
        found = model.explain(PICTURE, "saliency", target=2).map
        product = model.explain(PICTURE, "gradient-x-input", target=2).map
        slopes = np.zeros(pixels.shape[1:])
        for place in np.ndindex(slopes.shape):
            step = np.zeros_like(pixels)
            step[(0, *place)] = 1e-2
            up, down = model.run(pixels + step)[0, 2], model.run(pixels - step)[0, 2]
            slopes[place] = (up - down) / 2e-2
    near = np.isclose(found, np.abs(slopes).max(axis=0), rtol=2e-2, atol=2e-4)
    assert near.mean() > 0.9
    assert np.isclose(product, (slopes * pixels[0]).sum(axis=0), rtol=2e-2, atol=1e-3).mean() > 0.9


@pytest.mark.parametrize("target", range(4))
def test_integrated_gradients_are_complete(tiny: Callable[..., Path], target: int) -> None:
    with runtime.load(tiny()) as model:
        pixels = preprocess(PICTURE, model.rule)
        black = preprocess(np.zeros_like(PICTURE), model.rule)
        found = model.explain(PICTURE, "integrated-gradients", target=target)
        scores = model.run(pixels)[0, target] - model.run(black)[0, target]
    assert found.map.sum() == pytest.approx(scores, rel=0.01)


def test_occlusion_finds_the_only_place_that_counts(tiny: Callable[..., Path]) -> None:
    picture = np.full((8, 8, 3), 128, np.uint8)
    picture[2:4, 5:7] = (255, 0, 255)
    rule = Preprocess(size=(8, 8), resize=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)
    with runtime.load(tiny(preprocess=rule)) as model:
        found = model.explain(picture, "occlusion", patch=2)
    row, column = np.unravel_index(np.abs(found.map).argmax(), found.map.shape)
    assert 2 <= row < 4
    assert 5 <= column < 7
    assert np.abs(found.map[5:, :3]).max() < 0.3 * np.abs(found.map).max()


def test_rise_weighs_random_masks_by_the_answer(tiny: Callable[..., Path]) -> None:
    """Where the whole picture is one colour no mask is better than another, but for how much it shows."""
    picture = np.full((8, 8, 3), 200, np.uint8)
    picture[1:4, 1:4] = (10, 250, 90)
    with runtime.load(tiny()) as model:
        few, many = (model.explain(picture, "rise", masks=count, cells=4).map for count in (2000, 4000))
    assert np.corrcoef(few.ravel(), many.ravel())[0, 1] > 0.9


def test_a_binary_network_s_first_class_is_the_opposite_of_its_second(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    file = tiny(task="binary", labels=Labels(names=("no", "yes")))
    proto = onnx.load(file)
    for name, array in {"fw": weights()["fw"][:, :1], "fb": np.zeros(1)}.items():
        item = next(one for one in proto.graph.initializer if one.name == name)
        item.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(proto, file)
    with runtime.load(file) as model:
        no, yes = (model.explain(PICTURE, "gradient-x-input", target=label) for label in ("no", "yes"))
    assert no.score + yes.score == pytest.approx(1)
    np.testing.assert_allclose(no.map, -yes.map, rtol=1e-5)


def test_a_softmax_at_the_end_is_looked_behind(tiny: Callable[..., Path]) -> None:
    file = tiny()
    with runtime.load(file) as model:
        wanted = model.explain(PICTURE, layer="relu")
    proto = onnx.load(file)
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["probabilities"]))
    proto.graph.output[0].name = "probabilities"
    onnx.save(proto, file)
    stamped = tiny("other.onnx", scores="probabilities")
    proto.metadata_props.extend([])
    del proto.metadata_props[:]
    proto.metadata_props.extend(onnx.load(stamped).metadata_props)
    onnx.save(proto, file)
    with runtime.load(file) as model:
        found = model.explain(PICTURE, layer="relu")
    np.testing.assert_allclose(found.map, wanted.map, rtol=1e-5)
    assert found.score == pytest.approx(wanted.score, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "gradcam"}, UnknownName, "no method 'gradcam': one of grad-cam"),
        ({"target": "Red"}, UnknownName, "no class 'Red': did you mean 'red'"),
        ({"target": 4}, UnknownName, "no class 4: they are 0 to 3"),
        ({"layer": "rel"}, UnknownName, "no layer 'rel' that is a map of places: did you mean relu"),
        ({"layer": "logits"}, UnknownName, "no layer 'logits'"),
        ({"method": "saliency", "layer": "relu"}, InvalidInput, "explains the input"),
        ({"method": "rise", "mask": 3}, InvalidInput, "rise: .*'mask'"),
        ({"masks": 3}, InvalidInput, "unexpected option 'masks'"),
    ],
)
def test_requests_that_make_no_sense(
    tiny: Callable[..., Path], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with runtime.load(tiny()) as model, pytest.raises(error, match=message):
        model.explain(PICTURE, **options)


def test_networks_that_have_no_classes(tiny: Callable[..., Path]) -> None:
    with (
        runtime.load(tiny(task="features", labels=None)) as model,
        pytest.raises(InvalidInput, match="gives features: explanations are of classes"),
    ):
        assert model.activations(PICTURE, "relu")["relu"].any()
        assert [layer.name for layer in model.layers()] == ["conv", "relu", "gap"]
        model.explain(PICTURE)


def test_a_gradient_that_is_zero_is_an_error_and_a_map_that_is_has_a_note(tiny: Callable[..., Path]) -> None:
    file = tiny()
    proto = onnx.load(file)
    bias = next(item for item in proto.graph.initializer if item.name == "b")
    bias.CopyFrom(numpy_helper.from_array(np.full(6, -1e6, np.float32), "b"))  # every ReLU is shut
    onnx.save(proto, file)
    with runtime.load(file) as model:
        with pytest.raises(NoGradient, match="is zero everywhere"):
            model.explain(PICTURE, "saliency")
        found = model.explain(PICTURE, layer="relu")
    assert not found.map.any()
    assert any("0 everywhere" in note for note in found.notes)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.filterwarnings("error")
def test_pictures_of_one_colour(tiny: Callable[..., Path], value: int) -> None:
    with runtime.load(tiny(explain_layer="relu")) as model:
        for method in EXPLAINERS:
            found = model.explain(np.full((30, 5, 3), value, np.uint8), method, **QUICK.get(method, {}))
            assert np.isfinite(found.map).all(), method
