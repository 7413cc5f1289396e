"""Files of every task, opened and asked; and files whose graph is not what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import runtime
from runtime.errors import InferenceFailed, InvalidArtifact, InvalidInput
from runtime.image import preprocess, preprocess_whole
from runtime.metadata import Labels, Metadata, Window
from tests.conftest import tiny_proto
from tests.exporters.graphs import normal, parse

NAMES = ("red", "green", "blue", "grey")
MAP = "(float[n, 3, h, w] input) => (float[n, 4, r, c] logits) { logits = Conv <strides = [2, 3]> (input, k) }"
WINDOW = Window(size=(8, 8), stride=(2, 3), crop_error=1e-7)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, metadata: Metadata) -> Write:
    """Writes a stamped file of a task: the tiny network, another graph as text, or a proto."""

    def make(task: str, graph: str | onnx.ModelProto | None = None, weights: Any = (), **changes: Any) -> Path:
        said: dict[str, Any] = {
            "features": {"labels": None}, "other": {"labels": None}, "score-map": {"window": WINDOW},
        }.get(task, {})  # fmt: skip
        proto = parse(graph, **dict(weights)) if isinstance(graph, str) else graph or tiny_proto()
        props = replace(metadata, **{"task": task, **said, **changes}).to_props()
        for key, value in props.items():
            proto.metadata_props.add(key=key, value=value)
        path = tmp_path / "file.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return make


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (21, 33, 3), dtype=np.uint8))


KERNEL = {"k": normal(4, 3, 8, 8, seed=5)}
ONE = "(float[n, 3, 8, 8] input) => (float[n, 1] logits) { c = Conv(input, k) logits = Flatten(c) }"


# ---- classes


def test_binary(write: Write, photo: Image.Image) -> None:
    model = runtime.load(write("binary", ONE, {"k": normal(1, 3, 8, 8)}, labels=Labels(("cat", "dog"))))
    logit = float(model.run(preprocess(photo, model.rule))[0, 0])
    answer = model.predict(photo)
    assert answer.label == ("dog" if logit > 0 else "cat")
    assert answer.probability == pytest.approx(1 / (1 + np.exp(-abs(logit))))
    assert sum(guess.probability for guess in answer.top) == pytest.approx(1)


def test_multilabel(write: Write, photo: Image.Image) -> None:
    model = runtime.load(write("multilabel"))
    logits = model.run(preprocess(photo, model.rule))[0].astype(np.float64)
    answer = model.predict(photo, top=4)
    assert [guess.index for guess in answer.top] == list(np.argsort(-logits))
    expected = np.sort(1 / (1 + np.exp(-logits)))[::-1]
    np.testing.assert_allclose([guess.probability for guess in answer.top], expected, rtol=1e-5)
    assert [next(iter(model.predict_many([photo]))).label] == [answer.label]


def test_probabilities_are_not_taken_for_logits(write: Write, photo: Image.Image) -> None:
    graph = ONE.replace("Flatten(c)", "Flatten(s)").replace("logits =", "s = Sigmoid(c) logits =")
    weights = {"k": 0.1 * normal(1, 3, 8, 8)}
    two = Labels(("cat", "dog"))
    logits = runtime.load(write("binary", ONE, weights, labels=two)).predict(photo)
    probabilities = runtime.load(write("binary", graph, weights, labels=two, scores="probabilities")).predict(photo)
    assert probabilities.label == logits.label
    assert probabilities.probability == pytest.approx(logits.probability, rel=1e-5)


# ---- features


def test_features_of_one_picture_and_of_many(write: Write, photo: Image.Image, tmp_path: Path) -> None:
    model = runtime.load(write("features"))
    expected = model.run(preprocess(photo, model.rule))
    photo.save(tmp_path / "photo.png")
    with (tmp_path / "photo.png").open("rb") as file:
        one = [photo, np.asarray(photo), tmp_path / "photo.png", str(tmp_path / "photo.png"), file]
        for source in one:
            np.testing.assert_array_equal(model.features(source), expected)
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(0, 250, 23)]
    together = model.features(iter(pictures), batch_size=4)
    assert together.shape == (11, 4)
    assert together.dtype == np.float32
    # Other batches are other float32 sums.
    np.testing.assert_allclose(together, np.concatenate([model.features(p) for p in pictures]), rtol=1e-5, atol=1e-6)
    assert model.features([]).shape == (0, 4)


def test_features_with_a_frozen_batch(write: Write) -> None:
    free, fixed = runtime.load(write("features")), runtime.load(write("features", tiny_proto(4)))
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(0, 250, 50)]
    np.testing.assert_allclose(fixed.features(pictures), free.features(pictures), rtol=1e-5, atol=1e-6)


# ---- score maps


def test_score_map_is_the_network_at_every_window(write: Write, photo: Image.Image) -> None:
    path = write("score-map", MAP, KERNEL)
    model = runtime.load(path)
    found = model.score_map(photo)
    assert found.scores.shape == (4, 7, 9)  # (21 - 8) // 2 + 1, (33 - 8) // 3 + 1
    assert (found.size, found.window, found.labels.names) == ((21, 33), WINDOW, NAMES)
    picture = preprocess_whole(photo, model.rule)[0].astype(np.float64)
    for row, column in ((0, 0), (6, 8), (3, 4)):
        top, left, height, width = found.box_at(row, column)
        cut = picture[:, top : top + height, left : left + width]
        expected = (KERNEL["k"] * cut).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(found.scores[:, row, column], expected, rtol=1e-4, atol=1e-4)
    label, probability, (top, left, *_) = found.best()
    probabilities = found.probabilities()
    assert probability == probabilities.max()
    assert probabilities[NAMES.index(label), top // 2, left // 3] == probability


def test_score_map_of_a_resized_picture(write: Write, photo: Image.Image) -> None:
    model = runtime.load(write("score-map", MAP, KERNEL))
    found = model.score_map(photo, shorter=12)
    assert found.size == (12, 18)  # int(12 * 33 / 21)
    assert found.scores.shape == (4, 3, 4)
    smaller = photo.resize((18, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.scores, model.score_map(smaller).scores)
    np.testing.assert_array_equal(found.scores, model.score_map(np.asarray(smaller), shorter=12).scores)
    for shorter in (0, -5):
        with pytest.raises(InvalidInput, match="shorter must be at least 1"):
            model.score_map(photo, shorter=shorter)


def test_a_picture_smaller_than_the_window(write: Write, photo: Image.Image, tmp_path: Path) -> None:
    model = runtime.load(write("score-map", MAP, KERNEL))
    photo.save(tmp_path / "small.png")
    with pytest.raises(InvalidInput, match=r"small.png: 7 x 11 pixels .* smaller than the model's window of 8 x 8"):
        model.score_map(tmp_path / "small.png", shorter=7)
    assert model.score_map(photo, shorter=8).scores.shape == (4, 1, 2)


def test_score_map_with_a_frozen_batch(write: Write, photo: Image.Image) -> None:
    free = runtime.load(write("score-map", MAP, KERNEL)).score_map(photo)
    fixed = runtime.load(write("score-map", MAP.replace("float[n", "float[2"), KERNEL))
    assert fixed.batch_size == 2
    np.testing.assert_array_equal(fixed.score_map(photo).scores, free.scores)


def test_score_map_of_one_score_and_of_untrained_weights(write: Write, photo: Image.Image, metadata: Metadata) -> None:
    untrained = replace(metadata.provenance, weights="none", seed=0)
    path = write(
        "score-map", MAP.replace("float[n, 4", "float[n, 1"), {"k": normal(1, 3, 8, 8)},
        labels=Labels(("no", "yes")), provenance=untrained,
    )  # fmt: skip
    found = runtime.load(path).score_map(photo)
    assert (found.probabilities().shape, found.trained) == ((2, 7, 9), False)


# ---- what a file does not give


@pytest.mark.parametrize(
    ("task", "method"),
    [("features", r"gives features: use features\(\)"), ("score-map", r"gives score-map: use score_map\(\)"),
     ("other", r"gives its own outputs: use run\(\)")],
)  # fmt: skip
def test_predict_says_what_to_use_instead(write: Write, photo: Image.Image, task: str, method: str) -> None:
    model = runtime.load(write(task, *((MAP, KERNEL) if task == "score-map" else ())))
    for attempt in (lambda: model.predict(photo), lambda: list(model.predict_many([]))):
        with pytest.raises(InvalidInput, match=method):
            attempt()
    if task != "score-map":
        with pytest.raises(InvalidInput, match=method):
            _ = model.labels


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_classes_are_no_features_and_no_map(write: Write, photo: Image.Image, task: str) -> None:
    model = runtime.load(write(task))
    for attempt in (model.features, model.score_map):
        with pytest.raises(InvalidInput, match=rf"gives {task}: use predict\(\)"):
            attempt(photo)


def test_a_network_that_takes_arrays(write: Write, photo: Image.Image) -> None:
    model = runtime.load(write("classification", preprocess=None))
    assert model.run(normal(2, 3, 8, 8)).shape == (2, 4)
    for attempt in (model.predict, lambda picture: list(model.scores_many([picture]))):
        with pytest.raises(InvalidInput, match=r"takes arrays, not pictures: use run\(\)"):
            attempt(photo)


def test_every_output_by_its_name(write: Write) -> None:
    graph = (
        "(float[n, 3, 8, 8] input) => (float[n, 4, 1, 1] boxes, int64[2] about) "
        "{ boxes = Conv(input, k) about = Constant <value_ints = [7, 9]> () }"
    )
    model = runtime.load(write("other", graph, KERNEL))
    batch = normal(2, 3, 8, 8)
    outputs = model.run_all(batch)
    assert list(outputs) == ["boxes", "about"]
    np.testing.assert_array_equal(outputs["boxes"], model.run(batch))
    assert outputs["about"].tolist() == [7, 9]
    with pytest.raises(InvalidInput, match=r"takes float32 \['any', 3, 8, 8\], not"):
        model.run_all(normal(2, 8, 8, 3))
    model.close()
    with pytest.raises(InvalidInput, match="closed"):
        model.run_all(batch)


# ---- what does not fit what the file says


def test_graphs_that_do_not_fit_their_task(write: Write, metadata: Metadata) -> None:
    two = Labels(("no", "yes"))
    with pytest.raises(InvalidArtifact, match="4 outputs but 2 labels for binary"):
        runtime.load(write("binary", labels=two))
    with pytest.raises(InvalidArtifact, match="1 outputs but 4 labels for multilabel"):
        runtime.load(write("multilabel", ONE, {"k": normal(1, 3, 8, 8)}))
    with pytest.raises(InvalidArtifact, match="1 outputs but 2 labels for classification"):
        runtime.load(write("classification", ONE, {"k": normal(1, 3, 8, 8)}, labels=two))
    with pytest.raises(InvalidArtifact, match="4 outputs but 2 labels for score-map"):
        runtime.load(write("score-map", MAP, KERNEL, labels=two))
    with pytest.raises(InvalidArtifact, match="1 outputs but 3 labels for binary"):
        path = write("binary", ONE, {"k": normal(1, 3, 8, 8)}, labels=two)
        runtime.load(path, labels=Labels(("a", "b", "c")))
    with pytest.raises(InvalidArtifact, match="does not fit its preprocessing"):
        runtime.load(write("score-map", MAP, KERNEL, preprocess=replace(metadata.preprocess, layout="NHWC")))
    with pytest.raises(InvalidArtifact, match=r"does not fit its preprocessing \[3, 'any', 'any'\]"):
        runtime.load(write("score-map", MAP.replace("float[n, 3, h, w]", "float[n, 3, 8, w]"), KERNEL))


def test_a_map_that_stops_in_the_middle(write: Write, photo: Image.Image) -> None:
    graph = MAP.replace("logits = Conv", "c = Conv").replace("(input, k)", "(input, k) logits = Reshape(c, to)")
    model = runtime.load(write("score-map", graph, {**KERNEL, "to": np.array([1, 4, 5, 5])}))
    with pytest.raises(InferenceFailed):
        model.score_map(photo)
