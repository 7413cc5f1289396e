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
from exporters.parity import TOLERANCE
from zoo.layers import count
from zoo.models import MODELS, find
from zoo.spec import ModelSpec, Variant

Zoo = Callable[..., Any]


LARGE = 30_000_000
"""Parameters of what takes too long to export here."""


def families() -> list[tuple[str, str]]:
    """The smallest row of every paper, in each framework: its larger sisters repeat its operators.

    The large ones, and all rows at full size, are for benchmarks/catalogue.py, whose record a test below reads.
    """
    smallest: dict[tuple[str | None, str], ModelSpec] = {}
    for spec in sorted(MODELS, key=lambda spec: min(macs(variant) for variant in spec.sources.values())):
        for framework, variant in spec.sources.items():
            if variant.facts and variant.facts.trainable > LARGE:
                continue
            smallest.setdefault((spec.paper, framework), spec)
    return [(spec.name, framework) for (_, framework), spec in smallest.items()]


def macs(variant: Variant) -> int:
    assert variant.facts is not None
    return variant.facts.macs


FAMILIES = families()

# The smallest input that a network takes, where 64 pixels are too few or another size is not taken at all.
SIZES = {
    "lenet5": (28, 28), "inception_v3": (96, 96), "xception": (80, 80),
}  # fmt: skip

# What Keras' own networks become: the operators of each family, none of them left over from the conversion.
KERAS_OPERATORS = {
    "mobilenet_v3_small": "Add Conv GlobalAveragePool HardSigmoid HardSwish Mul Relu Reshape",
    "efficientnet_v2_b0": "Add Conv Div Flatten Gemm GlobalAveragePool Mul Sigmoid Sub",
    "convnext_tiny": "Add Conv Div Erf Flatten Gemm GlobalAveragePool LayerNormalization MatMul Mul Sub Transpose",
    "resnet50_v2": "Add Conv Flatten Gemm GlobalAveragePool MaxPool Pad Relu",
    "nasnet_mobile": "Add AveragePool Concat Conv Flatten Gemm GlobalAveragePool MaxPool Pad Relu Slice",
}

# Layer normalisation and attention work along the channels, which NCHW has to turn to the end for them.
CHANNELS_LAST_INSIDE = {"convnext_tiny", "swin_t", "swin_v2_t"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), FAMILIES, ids=["-".join(row) for row in FAMILIES])
def test_every_family_exports(zoo: Zoo, tmp_path: Path, name: str, framework: str) -> None:
    """At a small input; `zoo export` refuses what does not verify."""
    output, size = tmp_path / "m.onnx", SIZES.get(name, (64, 64))
    options = ["--source", framework, "--weights", "none", "--input-size", f"{size[0]}x{size[1]}"]
    done = zoo("export", name, *options, "-o", output, "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    told = json.loads(done.out)["metadata"]
    assert told["provenance"]["weights"] == "none"
    assert told["parity"]["batch_sizes"] == [1, 3]
    spec = find(name)
    assert (told["name"], told["task"], told["provenance"]["paper"]) == (name, spec.task, spec.paper)

    model = onnx.load(output)
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    assert not {"BatchNormalization", "Identity", "Constant", "Dropout"} & operators
    if framework == "keras" and name in KERAS_OPERATORS:
        assert " ".join(sorted(operators)) == KERAS_OPERATORS[name]
        if name == "convnext_tiny":  # every one of them where Keras has it, and no more turns than that takes
            kinds = [node.op_type for node in model.graph.node]
            assert (kinds.count("LayerNormalization"), kinds.count("Transpose")) == (23, 41)
    assert "Transpose" not in operators or name in CHANNELS_LAST_INSIDE or name.startswith("shufflenet")
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1 if name == "lenet5" else 3, *size]
    answer = [dim.dim_param or dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    assert answer == ["batch", 1 if spec.task == "binary" else len(told["labels"]["names"])]
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
    assert name.startswith("vit") or told["explain_layer"] in {
        output for node in model.graph.node for output in node.output
    }
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    # One weight each for a batch normalisation that is folded, and none lost. Swin looks its position biases up in a
    # table with every pair of places; the file holds what was looked up.
    room = 1.02 if name.startswith("swin") else 1.01
    facts = spec.sources[framework].facts  # type: ignore[index]
    assert facts is not None
    stored = count(model).parameters
    assert facts.trainable * 0.97 <= stored <= facts.total * room


def test_the_record_of_the_full_verification_holds(root: Path) -> None:
    """What the record says of a row and source is within the bounds, and of the row as it is today."""
    record = json.loads((root / "benchmarks" / "results" / "catalogue.json").read_text(encoding="utf-8"))
    assert list(record["rows"]) == [f"{spec.name}/{framework}" for spec in MODELS for framework in spec.sources]
    assert sum(row["seconds"] for row in record["rows"].values()) < 2 * 60 * 60
    for key, row in record["rows"].items():
        name, framework = key.split("/")
        variant = find(name).variant(framework)[1]
        assert "error" not in row
        assert row["relative_error"] <= row["tolerance"] == TOLERANCE
        assert row["builder"] == variant.builder
        assert variant.preprocess is not None
        assert row["input"] == list(variant.preprocess.size)
        assert row["macs"] == macs(variant)
        assert row["peak_memory_gb"] <= 12


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
