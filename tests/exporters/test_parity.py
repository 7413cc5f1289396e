"""The guard must let a right file pass and stop each kind of wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.artifact import stamp
from exporters.export import export
from exporters.parity import relative_error, verify
from exporters.passes import clean
from exporters.source import Recipe, Source, Weights, sample_files
from exporters.torch import load
from runtime.errors import ParityError
from runtime.metadata import Labels, Metadata, Parity
from runtime.model import Model
from tests.exporters.graphs import parse
from zoo import labels
from zoo.models import find

DIGITS = sample_files("digits")


def lenet_recipe(root: Path) -> Recipe:
    variant = find("lenet5").sources["torch"]
    return Recipe(
        name="lenet5",
        builder=variant.builder,
        preprocess=variant.preprocess,
        labels=labels.load("digits"),
        weights=Weights(kind="bundled", path=root / "zoo" / "bundled" / "lenet5.safetensors"),
        samples="digits",
    )


@pytest.fixture(scope="module")
def source(root: Path) -> Source:
    return load(lenet_recipe(root))


@pytest.fixture(scope="module")
def good(source: Source) -> onnx.ModelProto:
    return clean(source.convert(18, None), opset=18, batch=None)


Check = Callable[..., Parity]


@pytest.fixture
def check(source: Source, tmp_path: Path, metadata: Metadata) -> Check:
    """Stamps a graph with LeNet's metadata, some of it changed, and verifies the file."""

    def run(proto: onnx.ModelProto, **changes: Any) -> Parity:
        rule = replace(source.preprocess, **changes)
        stamp(proto, replace(metadata, preprocess=rule, labels=labels.load("digits")))
        path = tmp_path / "model.onnx"
        onnx.save(proto, path)
        with Model(path) as model:
            return verify(source, model, DIGITS, kind="digits")

    return run


def copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    return twin


def test_a_right_file_passes(check: Check, good: onnx.ModelProto) -> None:
    parity = check(copy(good))
    assert parity.inputs == 10
    assert parity.batch_sizes == (1, 3)
    assert 0 <= parity.max_relative_error <= 1e-4


def test_one_changed_weight(check: Check, good: onnx.ModelProto) -> None:
    damaged = copy(good)
    tensor = next(t for t in damaged.graph.initializer if t.name == "conv2.weight")
    array = numpy_helper.to_array(tensor).copy()
    array[3, 2, 1, 1] += 0.05  # one of 2400, by a twentieth of a unit
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(ParityError, match=r"batch of 1: relative error of the logits \d\.\de-0\d above 1e-04"):
        check(damaged)


@pytest.mark.parametrize(
    "wrong",
    [{"mean": (0.5,)}, {"std": (0.5,)}, {"scale": 1.0}, {"interpolation": "nearest"}, {"resize": (32, 32)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_preprocessing(check: Check, good: onnx.ModelProto, wrong: dict[str, Any]) -> None:
    with pytest.raises(ParityError, match="preprocessing differs from the framework's"):
        check(copy(good), **wrong)


def test_frozen_batch(check: Check, source: Source) -> None:
    with pytest.raises(ParityError, match="batch of 3"):
        check(clean(source.convert(18, 1), opset=18, batch=1))


def test_frozen_batch_behind_a_free_input(check: Check, good: onnx.ModelProto) -> None:
    damaged = copy(good)
    flatten = next(node for node in damaged.graph.node if node.op_type in ("Flatten", "Reshape"))
    damaged.graph.initializer.append(numpy_helper.from_array(np.array([1, 400]), "frozen"))
    index = list(damaged.graph.node).index(flatten)
    reshape = onnx.helper.make_node("Reshape", [flatten.input[0], "frozen"], flatten.output, "frozen")
    damaged.graph.node.remove(flatten)
    damaged.graph.node.insert(index, reshape)
    del damaged.graph.value_info[:]
    with pytest.raises(ParityError, match="batch of 3"):
        check(damaged)


def test_swapped_classes(check: Check, good: onnx.ModelProto) -> None:
    damaged = copy(good)
    for name in ("fc3.weight", "fc3.bias"):
        tensor = next(t for t in damaged.graph.initializer if t.name == name)
        array = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
        tensor.CopyFrom(numpy_helper.from_array(array, name))
    with pytest.raises(ParityError):
        check(damaged)


def test_not_finite(check: Check, good: onnx.ModelProto) -> None:
    damaged = copy(good)
    tensor = next(t for t in damaged.graph.initializer if t.name == "fc3.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, np.float32), tensor.name))
    with pytest.raises(ParityError, match="nan"):
        check(damaged)


def test_too_few_pictures(source: Source, lenet_file: Path) -> None:
    with Model(lenet_file) as model, pytest.raises(ParityError, match="at least 8"):
        verify(source, model, DIGITS[:7], kind="digits")


# ---- what is compared, by output and task


def other(source: Source, tmp_path: Path, metadata: Metadata, body: str, task: str, **weights: Any) -> Model:
    """A model file of another task beside LeNet's preprocessing."""
    names = None if task == "features" else Labels(("no", "yes") if task == "binary" else ("a", "b", "c"))
    outputs = {"binary": 1, "features": 4}.get(task, 3)
    proto = parse(f"(float[n, 1, 28, 28] input) => (float[n, {outputs}] logits) {{ {body} }}", **weights)
    stamp(proto, replace(metadata, task=task, preprocess=source.preprocess, labels=names))
    path = tmp_path / "other.onnx"
    onnx.save(proto, path)
    return Model(path)


POOLED = "p = AveragePool <kernel_shape = [14, 14], strides = [14, 14]> (input) "


def pooled(batch: Any) -> Any:
    return batch.reshape(-1, 2, 14, 2, 14).mean(axis=(2, 4)).reshape(-1, 4)


def test_features_are_compared_with_features(source: Source, tmp_path: Path, metadata: Metadata) -> None:
    with other(source, tmp_path, metadata, POOLED + "logits = Flatten(p)", "features") as model:
        right = replace(source, features=pooled, forward=lambda _: pytest.fail("the scores do not matter"))
        assert verify(right, model, DIGITS, kind="digits", output="features").max_relative_error <= 1e-5
        wrong = replace(source, features=lambda batch: pooled(batch)[:, ::-1])
        with pytest.raises(ParityError, match="batch of 1: relative error of the features"):
            verify(wrong, model, DIGITS, kind="digits", output="features")
        with pytest.raises(ParityError, match=r"output \(1, 4\), the framework's \(1, 10\)"):
            verify(replace(source, features=source.forward), model, DIGITS, kind="digits", output="features")


def test_the_answer_of_a_binary_is_a_sign(source: Source, tmp_path: Path, metadata: Metadata) -> None:
    body = POOLED + "f = Flatten(p) m = MatMul(f, w) logits = Mul(m, s)"
    weights = {"w": np.full((4, 1), 0.25, np.float32)}

    def forward(batch: Any) -> Any:
        return pooled(batch).mean(axis=1, keepdims=True)

    binary = replace(source, task="binary", forward=forward)
    with other(source, tmp_path, metadata, body, "binary", s=np.float32(1), **weights) as model:
        assert verify(binary, model, DIGITS, kind="digits").inputs == 10
    with (
        other(source, tmp_path, metadata, body, "binary", s=np.float32(-1), **weights) as model,
        pytest.raises(ParityError, match="relative error of the logits"),
    ):
        verify(binary, model, DIGITS, kind="digits")
    # Where the error is allowed to be anything the sign still counts.
    with (
        other(source, tmp_path, metadata, body, "binary", s=np.float32(-1), **weights) as model,
        pytest.raises(ParityError, match="top-1 differs on 1 of 1 inputs"),
    ):
        verify(binary, model, DIGITS, kind="digits", tolerance=10)


def test_independent_classes_have_no_first(source: Source, tmp_path: Path, metadata: Metadata) -> None:
    body = POOLED + "f = Flatten(p) logits = MatMul(f, w)"
    weights = np.array([[1, 1, 0]] * 4, np.float32)

    def forward(batch: Any) -> Any:  # the two equal classes in the other order, by less than the tolerance
        return pooled(batch) @ (weights + np.array([0, 1e-6, 0], np.float32))

    with other(source, tmp_path, metadata, body, "multilabel", w=weights) as model:
        assert verify(replace(source, task="multilabel", forward=forward), model, DIGITS, kind="digits").inputs == 10
        with pytest.raises(ParityError, match="top-1 differs"):
            verify(replace(source, forward=forward), model, DIGITS, kind="digits")


def test_a_network_that_takes_no_pictures(source: Source, tmp_path: Path, metadata: Metadata) -> None:
    body = POOLED + "logits = Flatten(p)"
    seen: list[Any] = []

    def features(batch: Any) -> Any:
        seen.append(batch)
        return pooled(batch)

    arrays = replace(source, preprocess=None, transform=lambda _: pytest.fail("no pictures"), features=features)
    with other(arrays, tmp_path, metadata, body, "features") as model:
        parity = verify(arrays, model, [], kind="digits", output="features")
        again = verify(arrays, model, [], kind="digits", output="features", batch=4)
    assert (parity.inputs, parity.inputs_kind, parity.batch_sizes) == (10, "random arrays", (1, 3))
    assert (again.batch_sizes, again.max_relative_error <= 1e-5) == ((4,), True)
    assert all(batch.shape[1:] == (1, 28, 28) and batch.dtype == np.float32 for batch in seen)
    every = np.concatenate(seen)
    assert -1 <= every.min() < -0.99
    assert 0.99 < every.max() <= 1


def test_export_that_fails_the_guard_leaves_no_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(proto: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
        proto = clean(proto, **options)
        tensor = next(t for t in proto.graph.initializer if t.name == "fc3.bias")
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) + np.eye(1, 10, dtype="f")[0], tensor.name)
        )
        return proto

    monkeypatch.setattr("exporters.export.clean", damage)
    output = tmp_path / "lenet5.onnx"
    output.write_bytes(b"an older file")
    with pytest.raises(ParityError):
        export(lenet_recipe(root), "torch", output)
    assert output.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [output]


def test_relative_error() -> None:
    one = np.ones((1, 4), np.float32)
    assert relative_error(one, one) == 0
    assert relative_error(one * 1.5, one) == pytest.approx(0.5)
    assert relative_error(one, one * 0) == float("inf")
    assert np.isnan(relative_error(one * np.nan, one))
