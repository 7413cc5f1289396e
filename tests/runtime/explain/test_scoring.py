"""Methods measured on networks of which it is known what counts: what they must find, and what must be found out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import runtime
from runtime.errors import InvalidInput, UnknownName
from runtime.explain import EXPLAINERS, Explainer, faithfulness
from runtime.explain.faithfulness import UNCHANGED, Box
from runtime.explain.scoring import BASELINES, Case, Score, Scoring, shuffled_twin
from runtime.image import preprocess
from runtime.metadata import Preprocess

RANDOM = np.random.default_rng(8)
PICTURES = [RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(8)]


@pytest.fixture
def quadrant(tiny: Callable[..., Path]) -> Path:
    """The tiny network on 16 x 16 pictures, of which it sees the lower left quadrant alone."""
    rule = Preprocess(size=(16, 16), resize=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)
    file = tiny(preprocess=rule, explain_layer="relu")
    proto = onnx.load(file)
    for axis in (2, 3):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 16
    for name, values in {"starts": [8, 0], "ends": [16, 8], "axes": [2, 3]}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    proto.graph.node.insert(0, helper.make_node("Slice", ["input", "starts", "ends", "axes"], ["seen"]))
    proto.graph.node[1].input[0] = "seen"
    onnx.save(proto, file)
    return file


def scored(model: runtime.Model, cases: list[Case], methods: list[str], **options: Any) -> dict[str, Score]:
    scoring = Scoring(model, methods, **options)
    with shuffled_twin(model) as twin:
        for case in cases:
            for name in (*BASELINES, *methods):
                scoring.add(case, name, twin)
    return {score.method: score for score in scoring.scores()}


def test_a_method_that_finds_the_quadrant_beats_the_maps_that_ask_nobody(quadrant: Path) -> None:
    there, opposite = (Box(0, 80, 79, 159),), (Box(80, 0, 159, 79),)
    with runtime.load(quadrant) as model:
        cases = [Case(np.repeat(np.repeat(one, 10, 0), 10, 1), boxes=there) for one in PICTURES]
        found = scored(model, cases, ["saliency", "occlusion"])
        wrong = scored(model, [Case(case.image, boxes=opposite) for case in cases], ["saliency"])
    assert list(found)[-1] in BASELINES
    for method in ("saliency", "occlusion"):
        assert found[method].pointing == 1
        assert found[method].deletion < min(found[name].deletion for name in BASELINES)
        assert set(BASELINES[:2]) <= set(found[method].beats)
        assert found[method].interval[0] < found[method].difference < found[method].interval[1]
        assert found[method].milliseconds is not None
    assert wrong["saliency"].pointing == 0
    assert wrong["saliency"].difference == pytest.approx(found["saliency"].difference)


def test_the_class_is_the_one_that_the_case_names(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny()) as model:
        answer = model.predict(PICTURES[0]).index
        own, same, other = (
            scored(model, [Case(PICTURES[0], target)], ["saliency"])["saliency"]
            for target in (None, answer, (answer + 1) % 4)
        )
        # By the measure itself, of the other class's own map.
        subject, target = model.subject, (answer + 1) % 4
        values = model.explain(PICTURES[0], "saliency", target=target).full_size()
        whole = preprocess(PICTURES[0], model.rule)
        wanted = faithfulness.deletion(faithfulness.probability_of(subject, target), whole, values)
    assert (own.insertion, own.deletion) == (same.insertion, same.deletion)
    assert own.deletion > other.deletion == pytest.approx(wanted)


# ---- maps of the picture, and maps of the network


def edges(subject: Any, pixels: np.ndarray, index: int) -> np.ndarray:
    """What any edge detector gives, whatever the network."""
    down, across = np.gradient(pixels[0].mean(axis=0))
    return np.hypot(down, across).astype(np.float32)


def constant(subject: Any, pixels: np.ndarray, index: int) -> np.ndarray:
    return np.ones(pixels.shape[2:], np.float32)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, function in (("edges", edges), ("constant", constant)):
        monkeypatch.setitem(EXPLAINERS, name, Explainer(function, "input", "", ""))
    yield


def digits(root: Path) -> list[Case]:
    return [Case(path) for path in sorted((root / "exporters" / "samples" / "digits").glob("*.png"))]


def test_an_edge_detector_is_found_out_and_grad_cam_is_not(lenet_file: Path, root: Path, made_up: None) -> None:
    with runtime.load(lenet_file, threads=1) as model:
        found = scored(model, digits(root), ["grad-cam", "edges", "constant"])
    assert found["edges"].shuffled == pytest.approx(1)
    assert found["edges"].unchanged
    assert found["grad-cam"].shuffled is not None
    assert found["grad-cam"].shuffled < UNCHANGED
    assert not found["grad-cam"].unchanged
    assert {found[name].unchanged for name in BASELINES} == {None}


def test_a_constant_map_is_a_random_one(lenet_file: Path, root: Path, made_up: None) -> None:
    with runtime.load(lenet_file, threads=1) as model:
        cases = [Case(case.image, boxes=(Box(0, 0, 999, 999),)) for case in digits(root)]
        found = scored(model, cases, ["constant"])
    flat, random = found["constant"], found["random pixels"]
    assert flat.pointing == 0  # it points nowhere, however large the box
    assert random.pointing == 1
    assert flat.shuffled == 0
    assert not flat.unchanged
    assert flat.difference == pytest.approx(random.difference, abs=0.1)


# ---- what cannot be measured


def test_pictures_and_methods_that_do_not_fit_are_told_and_left_out(
    lenet_file: Path, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    told: list[str] = []
    with runtime.load(lenet_file, threads=1) as model:
        scoring = Scoring(model, ["cam", "saliency"], tell=told.append)
        for case in [Case(tmp_path / "bad.png"), *digits(root)[:3]]:
            for name in (*BASELINES, "cam", "saliency"):
                scoring.add(case, name)
        found = scoring.scores()
    assert scoring.images == 3
    assert list(scoring.left_out) == ["cam"]
    assert list(scoring.unread) == [str(tmp_path / "bad.png")]
    assert len(told) == 2
    assert "not an image" in told[0]
    assert "cam is left out: cam needs global average pooling" in told[1]
    assert {score.method for score in found} == {*BASELINES, "saliency"}
    assert {score.shuffled for score in found} == {None}


def test_a_gradient_that_is_zero_counts_as_a_map_that_tells_nothing(tiny: Callable[..., Path]) -> None:
    file = tiny()
    proto = onnx.load(file)
    bias = next(item for item in proto.graph.initializer if item.name == "b")
    bias.CopyFrom(numpy_helper.from_array(np.full(6, -1e6, np.float32), "b"))  # every ReLU is shut
    onnx.save(proto, file)
    with runtime.load(file) as model:
        found = scored(model, [Case(one) for one in PICTURES[:2]], ["saliency"])["saliency"]
    assert found.without_gradient == 2
    assert found.difference == pytest.approx(0)
    assert found.milliseconds is None


def test_nothing_to_measure(lenet_file: Path, tiny: Callable[..., Path], root: Path, tmp_path: Path) -> None:
    def ignore(text: str) -> None:
        pass

    with runtime.load(lenet_file, threads=1) as model:
        with pytest.raises(InvalidInput, match="no picture could be read"):
            scored(model, [Case(tmp_path / "none.png")], ["saliency"], tell=ignore)
        with pytest.raises(InvalidInput, match="no method explains it: cam needs"):
            scored(model, digits(root)[:1], ["cam"], tell=ignore)
        with pytest.raises(UnknownName, match="no layer 'x'"):
            scored(model, digits(root)[:1], ["grad-cam"], layer="x")


def test_the_twin_is_the_model_but_for_its_weights(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny(batch=2)) as model:
        with shuffled_twin(model) as twin:
            path = twin.path
            assert twin.metadata == model.metadata
            assert twin.rule == model.rule
            one, other = (next(each.scores_many([PICTURES[0]])) for each in (model, twin))
            assert path.exists()
        assert not np.allclose(one, other)
        assert not path.exists()
