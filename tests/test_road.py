"""The whole road: every row exports and verifies, and real weights give the figures they are known for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import runtime
from zoo.models import MODELS

VARIANTS = [(spec.name, framework) for spec in MODELS for framework in spec.sources]
Zoo = Callable[..., Any]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), VARIANTS, ids=["-".join(variant) for variant in VARIANTS])
def test_every_row_exports(zoo: Zoo, tmp_path: Path, name: str, framework: str) -> None:
    """At a small input where the network takes one; `zoo export` refuses what does not verify."""
    output = tmp_path / "m.onnx"
    size = [] if name == "lenet5" else ["--input-size", "64x64"]
    done = zoo("export", name, "--source", framework, "--weights", "none", *size, "-o", output, "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    told = json.loads(done.out)["metadata"]
    assert told["provenance"]["weights"] == "none"
    assert told["parity"]["batch_sizes"] == [1, 3]

    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert not {"BatchNormalization", "Transpose", "Identity", "Constant", "Dropout"} & set(operators)
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1 if name == "lenet5" else 3, *(told["preprocess"]["size"])]
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
    assert told["explain_layer"] in {output for node in model.graph.node for output in node.output}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    # One weight each for a batch normalisation that is folded: no more numbers than the network has.
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert stored <= told_parameters(name, framework) * 1.01


def told_parameters(name: str, framework: str) -> int:
    """Parameters the row states."""
    (spec,) = (spec for spec in MODELS if spec.name == name)
    return spec.variant(framework)[1].parameters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "vectors", "top1", "top5", "near"),
    [
        # Accuracy: full-precision reference on these 900 photos, within one photo. Vectors: mobilenetv2's were
        # computed with weights that were quantized since, so only the answer agrees.
        ("mobilenet_v2", "mobilenet_v2_torchvision.pth", "mobilenetv2", 84.56, 97.11, None),
        ("squeezenet1_1", "squeezenet1_1_onnxzoo.pth", "squeezenet1_1", 60.89, 84.56, 1e-3),
    ],
)
def test_real_weights(
    zoo: Zoo, tmp_path: Path, shared_data: Path, name: str, weights: str, vectors: str,
    top1: float, top5: float, near: float | None,
) -> None:  # fmt: skip
    output = tmp_path / "m.onnx"
    done = zoo("export", name, "--weights", shared_data / "weights" / weights, "-o", output)
    assert done.code == 0, done.err
    told = json.loads(zoo("eval", output, shared_data / "photos", "--skip", 100, "--json").out)
    assert told["images"] == 900
    assert told["top1"] == pytest.approx(top1, abs=100 / 900 + 0.005)
    assert told["top5"] == pytest.approx(top5, abs=100 / 900 + 0.005)
    with runtime.load(output) as model:
        for index in range(3):
            given, expected = (
                np.load(shared_data / "vectors" / vectors / f"{index}_{end}_0.npy") for end in ("input", "output")
            )
            answer = model.run(given.reshape(1, 3, 224, 224).astype(np.float32)).reshape(-1)
            assert answer.argmax() == expected.argmax()
            if near is not None:
                np.testing.assert_allclose(answer, expected.reshape(-1), atol=near)


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_lenet_reads_mnist(zoo: Zoo, tmp_path: Path, shared_data: Path, framework: str) -> None:
    output = tmp_path / "lenet5.onnx"
    assert zoo("export", "lenet5", "--source", framework, "-o", output).code == 0
    told = json.loads(zoo("eval", output, shared_data / "mnist", "--json").out)
    assert told["images"] == 10_000
    assert told["top1"] >= 99.0


@pytest.mark.slow
def test_sizes_and_batches(zoo: Zoo, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    options = ["--weights", "none", "--input-size", "96x160", "--batch", 2, "--opset", 17]
    done = zoo("export", "squeezenet1_1", *options, "-o", output, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)["metadata"]
    assert told["preprocess"]["size"] == [96, 160]
    assert told["parity"]["batch_sizes"] == [2]
    with runtime.load(output) as model:
        assert model.batch_size == 2
        assert model.run(np.zeros((2, 3, 96, 160), np.float32)).shape == (2, 1000)
