"""The guard: what it counts, and what it lets through."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporters.quantize.guard import Measured, measure
from runtime.image import preprocess
from runtime.metadata import Labels
from runtime.model import Model
from runtime.tasks.alike import ALIKE
from tests.exporters.graphs import parse
from tests.exporters.quantize.networks import silent


def measured(**changes: Any) -> Measured:
    values: dict[str, Any] = {
        "images": 900, "agreement": 99.0, "distance": 0.05, "top1": (80.0, 79.8), "top5": (95.0, 95.0),
        "milliseconds": (4.0, 2.0),
    }  # fmt: skip
    return Measured(**values | changes)


def test_what_passes_and_what_does_not() -> None:
    assert measured().complaint(0.5) is None
    assert measured(top1=(80.0, 79.5)).complaint(0.5) is None
    assert "80.00 to 79.40 %" in (measured(top1=(80.0, 79.4)).complaint(0.5) or "")
    assert measured(top1=(80.0, 81.0)).complaint(0.0) is None
    assert "not faster" in (measured(milliseconds=(4.0, 4.0)).complaint(0.5) or "")
    assert measured(milliseconds=None).complaint(0.5) is None
    assert measured(top1=None, agreement=96.0).complaint(0.5) is None
    assert "6.0 % of the answers change" in (measured(top1=None, agreement=94.0).complaint(0.5) or "")


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
    assert "33.3 % of the labels given change" in (found.complaint(0.5) or "")


def test_features_keep_what_is_nearest(tiny: Any) -> None:
    path = tiny(task="features", labels=None)
    images = [np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8) for seed in range(10)]
    found = measure(path, path, images, None, silent)
    assert (found.agreement, found.distance, found.top1) == (100.0, 0.0, None)
    assert found.alike is ALIKE["features"]


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
