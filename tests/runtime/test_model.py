from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import runtime
from runtime.errors import (
    ArtifactNotFound,
    DeviceUnavailable,
    InvalidArtifact,
    InvalidImage,
    InvalidInput,
    UnsupportedSchema,
)
from runtime.image import preprocess
from runtime.metadata import Labels, Metadata, Preprocess, Provenance

Tiny = Callable[..., Path]


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_run_is_what_onnxruntime_gives(tiny: Tiny) -> None:
    path = tiny()
    batch = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"input": batch})
    with runtime.load(path) as model:
        np.testing.assert_array_equal(model.run(batch), expected)
        assert model.provider == "CPUExecutionProvider"


def test_predict_is_softmax_of_run_best_first(tiny: Tiny, photo: Image.Image) -> None:
    model = runtime.load(tiny())
    logits = model.run(preprocess(photo, model.rule))[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    answer = model.predict(photo, top=4)
    assert [guess.index for guess in answer.top] == list(np.argsort(-expected))
    np.testing.assert_allclose([guess.probability for guess in answer.top], np.sort(expected)[::-1], rtol=1e-5)
    assert answer.top[0].label == model.labels.names[answer.index] == answer.label
    assert answer.top[0].id == f"n{answer.index + 1}"


def test_every_way_to_give_a_picture_agrees(tiny: Tiny, photo: Image.Image, tmp_path: Path) -> None:
    model = runtime.load(tiny())
    path = tmp_path / "photo.png"
    photo.save(path)
    expected = model.predict(photo)
    with path.open("rb") as file:
        given = [path, str(path), path.read_bytes(), np.asarray(photo), file]
        assert all(model.predict(picture) == expected for picture in given)


def test_predict_many_keeps_order_and_batches(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(0, 250, 23)]
    one_by_one = [model.predict(picture, top=4) for picture in pictures]
    for size in (1, 4, 100):
        together = list(model.predict_many(iter(pictures), top=4, batch_size=size))
        assert [answer.index for answer in together] == [answer.index for answer in one_by_one]
    assert list(model.predict_many([])) == []


def test_fixed_batch_is_filled_up(tiny: Tiny) -> None:
    free, fixed = runtime.load(tiny("a.onnx")), runtime.load(tiny("b.onnx", batch=4))
    assert (free.batch_size, fixed.batch_size) == (None, 4)
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(0, 250, 40)]
    rows = [np.concatenate(list(model.scores_many(pictures))) for model in (free, fixed)]
    assert rows[0].shape == (7, 4)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_untrained_weights_are_marked_in_every_answer(tiny: Tiny, metadata: Metadata, photo: Image.Image) -> None:
    untrained: Provenance = replace(metadata.provenance, weights="none", seed=0)
    answer = runtime.load(tiny(provenance=untrained)).predict(photo)
    assert not answer.trained
    assert "untrained weights" in str(answer)
    assert answer.to_dict()["trained"] is False
    assert runtime.load(tiny()).predict(photo).trained


def test_foreign_file_runs_with_what_the_caller_gives(tiny: Tiny, metadata: Metadata, photo: Image.Image) -> None:
    path = tiny("foreign.onnx", stamped=False)
    with pytest.raises(InvalidArtifact, match="no edgezoo metadata"):
        runtime.load(path).predict(photo)
    with pytest.raises(InvalidArtifact, match="no labels"):
        runtime.load(path, preprocess=metadata.preprocess).predict(photo)
    model = runtime.load(path, preprocess=metadata.preprocess, labels=metadata.labels)
    assert model.predict(photo) == runtime.load(tiny("own.onnx")).predict(photo)


def test_metadata_that_does_not_fit_the_graph(tiny: Tiny, metadata: Metadata) -> None:
    with pytest.raises(InvalidArtifact, match="4 outputs but 2 labels"):
        runtime.load(tiny(labels=Labels(("a", "b"))))
    big = Preprocess(size=(16, 16), resize=16, mean=(0,) * 3, std=(1,) * 3)
    with pytest.raises(InvalidArtifact, match="does not fit its preprocessing"):
        runtime.load(tiny(preprocess=big))
    with pytest.raises(InvalidArtifact, match="does not fit its preprocessing"):
        runtime.load(tiny(preprocess=replace(metadata.preprocess, layout="NHWC")))


def test_wrong_arrays_say_what_is_taken(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    for wrong in (np.zeros((1, 3, 8, 8)), np.zeros((1, 8, 8, 3), np.float32), np.zeros((3, 8, 8), np.float32), [1.0]):
        with pytest.raises(InvalidInput, match=r"takes float32 \['any', 3, 8, 8\], not"):
            model.run(wrong)
    model.close()
    kept = [value for value in vars(model).values() if type(value).__module__.startswith("onnxruntime")]
    assert kept == []  # any object of onnxruntime's keeps the session, with its weights
    with pytest.raises(InvalidInput, match="closed"):
        model.run(np.zeros((1, 3, 8, 8), np.float32))


def test_wrong_options(tiny: Tiny, photo: Image.Image) -> None:
    model = runtime.load(tiny())
    with pytest.raises(InvalidInput, match="top"):
        model.predict(photo, top=0)
    with pytest.raises(InvalidInput, match="batch_size"):
        list(model.predict_many([photo], batch_size=0))


def test_what_cannot_be_opened(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runtime.load(tmp_path / "none.onnx")
    with pytest.raises(ArtifactNotFound):
        runtime.load(tmp_path)
    with pytest.raises(UnsupportedSchema):
        runtime.load(tiny(props={"edgezoo.schema": "99"}))
    with pytest.raises(InvalidImage):
        runtime.load(tiny()).predict(b"not a picture")


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="wheel without CUDA")
def test_absent_device_is_an_error_not_a_fallback(tiny: Tiny) -> None:
    from runtime.engines import why_unavailable

    if why_unavailable("cuda") is None:
        assert runtime.load(tiny(), device="cuda").provider == "CUDAExecutionProvider"
    else:
        with pytest.raises(DeviceUnavailable, match="use --device cpu"):
            runtime.load(tiny(), device="cuda")


def test_one_model_serves_many_threads(tiny: Tiny) -> None:
    model = runtime.load(tiny())
    pictures = [np.full((9, 9, 3), level, np.uint8) for level in range(200)]
    expected = [model.predict(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.predict, pictures)) == expected
