"""The guard: what it counts, and what it lets through."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.quantize.guard import Limits, Measured, measure
from runtime.image import preprocess
from runtime.metadata import Labels, Window
from runtime.model import Model
from runtime.tasks.alike import ALIKE
from tests.exporters.graphs import parse
from tests.exporters.quantize.networks import silent


def measured(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "images": 900, "agreement": 99.0, "distances": {"logits": 0.05}, "top1": (80.0, 79.8), "top5": (95.0, 95.0),
        "milliseconds": (4.0, 2.0),
    }  # fmt: skip
    return Measured(**values | changes)


def test_what_passes_and_what_does_not() -> None:
    assert measured().complaint(Limits()) is None
    assert measured(top1=(80.0, 79.5)).complaint(Limits()) is None
    assert "80.00 to 79.40 %" in (measured(top1=(80.0, 79.4)).complaint(Limits()) or "")
    assert measured(top1=(80.0, 81.0)).complaint(Limits(0.0)) is None
    assert "not faster" in (measured(milliseconds=(4.0, 4.0)).complaint(Limits()) or "")
    assert measured(milliseconds=None).complaint(Limits()) is None
    assert measured(top1=None, agreement=96.0).complaint(Limits()) is None
    assert "6.0 % of the answers change" in (measured(top1=None, agreement=94.0).complaint(Limits()) or "")


def test_outputs_may_not_be_farther_apart_than_allowed() -> None:
    far: dict[str, Any] = {"agreement": None, "alike": None, "top1": None, "distances": {"boxes": 0.2, "scores": 0.05}}
    assert measured(**far).complaint(Limits(max_distance=0.2)) is None
    said = measured(**far).complaint(Limits(max_distance=0.1)) or ""
    assert "boxes is 0.200 apart on 900 pictures, 0.1 allowed" in said
    assert measured(**far | {"distances": {"y": float("nan")}}).complaint(Limits(max_distance=0.1))
    assert measured(**far).said() == ("", "on 900 pictures boxes 0.200, scores 0.050 apart")
    # Beside answers that are counted, both count.
    assert "logits is 0.050 apart" in (measured().complaint(Limits(0.5, 0.01)) or "")


@pytest.mark.parametrize("batch", ["batch", 4])
def test_two_files_are_compared(tiny: Any, tmp_path: Path, batch: int | str) -> None:
    one = tiny(batch=batch)
    proto = onnx.load(one)
    bias = next(item for item in proto.graph.initializer if item.name == "fb")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 0, 0, 1e3], np.float32), "fb"))
    other = tmp_path / "other.onnx"
    onnx.save(proto, other)
    images = [np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8) for seed in range(10)]
    with Model(one) as model:
        pixels = np.concatenate([preprocess(image, model.rule) for image in images])
        right = [int(np.argmax(model.run(np.repeat(row[None], model.batch_size or 1, axis=0))[0])) for row in pixels]
    same = measure(one, one, images, right, silent)
    assert (same.images, same.agreement, same.distance, same.top1) == (10, 100.0, 0.0, (100.0, 100.0))
    found = measure(one, other, images, right, silent)
    now = 100 * right.count(3) / 10
    assert (found.agreement, found.top1, found.top5) == (now, (100.0, now), (100.0, 100.0))
    assert found.distance > 1
    assert measure(one, other, images, None, silent).top1 is None


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_labels_are_compared_one_by_one(tiny: Any, tmp_path: Path, scores: str) -> None:
    """Raising one class for all pictures, which softmax would tell of all of them, changes that label alone."""

    def always(name: str, *given: float) -> Path:
        path = tiny(name, task="multilabel", scores=scores)
        proto = onnx.load(path)
        values = np.array(given) if scores == "logits" else 1 / (1 + np.exp(-np.array(given)))
        made = parse(
            "(float[batch,3,8,8] input) => (float[batch,4] logits) {"
            "mean = ReduceMean <keepdims = 0> (input, axes)  none = Mul (mean, zero)  column = Unsqueeze (none, last)"
            "logits = Add (column, given) }",
            axes=np.array([1, 2, 3]), zero=np.float32(0), given=values.astype(np.float32)[None], last=np.array([1]),
        )  # fmt: skip
        made.metadata_props.extend(proto.metadata_props)
        onnx.save(made, path)
        return path

    images = [np.full((12, 12, 3), level, np.uint8) for level in (0, 255)]
    one, other = always("one.onnx", 2.0, 1.0, -1.0, -9.0), always("other.onnx", 2.0, 1.0, 0.5, -9.0)
    found = measure(one, other, images, [0, 1], silent)
    assert found.agreement == pytest.approx(200 / 3)  # of three labels two
    assert (found.top1, found.top5) == (None, None)  # one class is not what a picture shows
    assert found.distance == pytest.approx(1.5 / np.sqrt(4 + 1 + 1 + 81), rel=1e-3)
    assert "33.3 % of the labels given change" in (found.complaint(Limits()) or "")


def test_features_keep_what_is_nearest(tiny: Any) -> None:
    path = tiny(task="features", labels=None)
    images = [np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8) for seed in range(10)]
    found = measure(path, path, images, None, silent)
    assert (found.agreement, found.distance, found.top1) == (100.0, 0.0, None)
    assert found.alike is ALIKE["features"]


def test_outputs_that_nobody_knows_are_held_apart_one_by_one(tiny: Any, tmp_path: Path) -> None:
    def file(name: str, factor: float) -> Path:
        path = tiny(name, task="other", labels=None)
        made = parse(
            "(float[batch,3,8,8] input) => (float[batch,3,1,1] mean, float[batch,3,8,8] map)"
            "{ mean = GlobalAveragePool (input)  map = Mul (input, k) }",
            k=np.float32(factor),
        )
        made.metadata_props.extend(onnx.load(path).metadata_props)
        onnx.save(made, path)
        return path

    images = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8) for seed in range(19)]
    one, other = file("one.onnx", 1.0), file("other.onnx", 1.1)
    found = measure(one, other, images, [0] * 19, silent)
    with Model(one) as model:
        pixels = np.concatenate([preprocess(image, model.rule) for image in images]).astype(np.float64)
    own = pixels - pixels.mean(axis=0)  # what they all have in common tells nothing
    assert found.distances == pytest.approx(
        {"mean": 0.0, "map": 0.1 * np.linalg.norm(pixels) / np.linalg.norm(own)}, abs=1e-5
    )
    assert (found.agreement, found.top1, found.alike) == (None, None, None)


def test_a_score_map_is_measured_at_every_place(tiny: Any, tmp_path: Path) -> None:
    """On the whole of each picture: 2 x 4 places of one that is as long again as it is high."""

    def file(name: str, last: float) -> Path:
        path = tiny(name, task="score-map", window=Window(size=(8, 8), stride=(4, 4), crop_error=0.0))
        made = parse(
            "(float[batch,3,h,w] input) => (float[batch,4,r,c] logits) {"
            "mean = AveragePool <kernel_shape = [8, 8], strides = [4, 4]> (input)  plane = ReduceMean (mean, one)"
            "none = Mul (plane, zero)  last = Greater (plane, zero)  on = Where (last, high, none)"
            "logits = Concat <axis = 1> (none, none, none, on) }",
            one=np.array([1]), zero=np.float32(0), high=np.float32(last),
        )  # fmt: skip
        made.metadata_props.extend(onnx.load(path).metadata_props)
        onnx.save(made, path)
        return path

    half = np.zeros((12, 24, 3), np.uint8)
    half[:, 12:] = 255
    found = measure(file("one.onnx", 1.0), file("other.onnx", -1.0), [half, half], [0, 0], silent)
    with Model(tmp_path / "one.onnx") as model:
        assert isinstance(model.rule.resize, int)
        bright = model.score_map(half, shorter=model.rule.resize).scores[3] > 0
    assert 0 < bright.mean() < 1
    assert found.agreement == pytest.approx(100 * (1 - bright.mean()))
    assert (found.top1, found.images) == (None, 2)


@pytest.mark.parametrize(("scores", "agreement"), [("logits", 100.0), ("probabilities", 50.0)])
def test_the_middle_of_one_score_is_what_the_scores_are(
    tiny: Any, tmp_path: Path, scores: str, agreement: float
) -> None:
    """0.4 and 0.6 are two answers if they are probabilities, and one if they are logits."""

    def always(*values: float) -> Path:
        path = tiny(f"{values}.onnx", task="binary", labels=Labels(names=("no", "yes")), scores=scores)
        proto = onnx.load(path)
        bright = parse(
            "(float[batch,3,8,8] input) => (float[batch,1] logits) {"
            "mean = ReduceMean <keepdims = 0> (input, axes)  on = Greater (mean, zero)"
            "flat = Where (on, one, other)  logits = Unsqueeze (flat, last) }",
            axes=np.array([1, 2, 3]), zero=np.float32(0), one=np.float32(values[0]), other=np.float32(values[1]),
            last=np.array([1]),
        )  # fmt: skip
        bright.metadata_props.extend(proto.metadata_props)
        onnx.save(bright, path)
        return path

    images = [np.full((12, 12, 3), level, np.uint8) for level in (0, 255)]
    found = measure(always(0.9, 0.4), always(0.9, 0.6), images, [0, 1], silent)
    assert found.agreement == agreement
    assert found.top1 == ((100.0, 50.0) if scores == "probabilities" else (50.0, 50.0))
