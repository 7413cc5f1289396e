"""Outputs behind a switch: empty until they are asked for, and not computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.errors import InvalidInput
from runtime.gradients import ByIndex, add_gradients, on_request
from tests.runtime.gradients.running import session

X = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
ASKED = ["relu", "relu::gradient", "input::gradient"]


@pytest.fixture
def baked(tiny_model: onnx.ModelProto) -> onnx.ModelProto:
    made = add_gradients(tiny_model, ["relu", "input"], keep=["relu"], seed=ByIndex(default=-1))
    return on_request(made, ASKED)


def test_the_plain_prediction_is_what_it_was(baked: onnx.ModelProto, tiny_model: onnx.ModelProto) -> None:
    onnx.checker.check_model(baked, full_check=True)
    ready = session(baked)
    assert [value.name for value in ready.get_inputs()] == ["input"]
    assert {value.name for value in ready.get_overridable_initializers()} == {"class_index", "explain"}
    assert [value.name for value in ready.get_outputs()] == ["logits", *ASKED]
    logits, *rest = ready.run(None, {"input": X})
    np.testing.assert_array_equal(logits, session(tiny_model).run(None, {"input": X})[0])
    assert [array.shape for array in rest] == [(0, 6, 8, 8), (0, 6, 8, 8), (0, 3, 8, 8)]


def test_asked_for_they_are_what_they_would_be_without_the_switch(
    baked: onnx.ModelProto, tiny_model: onnx.ModelProto
) -> None:
    feeds = {"input": X, "class_index": np.array([2, 1, 0])}
    open_ = session(add_gradients(tiny_model, ["relu", "input"], keep=["relu"])).run(None, feeds)
    for ours, theirs in zip(session(baked).run(None, {**feeds, "explain": np.array(True)}), open_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)  # float32, fused in another way


def test_the_gradient_s_nodes_are_all_inside(baked: onnx.ModelProto, tmp_path: Path) -> None:
    """Also once onnxruntime has optimised: outside are the forward nodes, changes of memory layout and the If."""
    session(baked, optimized=str(tmp_path / "o.onnx"))
    graph = onnx.load(tmp_path / "o.onnx").graph
    outside = {node.op_type for node in graph.node}
    assert outside <= {"Conv", "FusedConv", "Relu", "GlobalAveragePool", "Flatten", "Reshape", "Gemm", "If",
                       "ReorderInput", "ReorderOutput", "Identity"}, outside  # fmt: skip
    switch = next(node for node in graph.node if node.op_type == "If")
    inside = {node.op_type for attribute in switch.attribute for node in attribute.g.node}
    assert {"HardSigmoid", "Conv", "Mul"} <= inside
    assert "Transpose" not in inside  # the turned weights were folded


def test_what_cannot_be_switched(tiny_model: onnx.ModelProto) -> None:
    with pytest.raises(InvalidInput, match="no output 'relu': it has logits"):
        on_request(tiny_model, ["relu"])
    made = add_gradients(tiny_model, ["relu"])
    with pytest.raises(InvalidInput, match="tensor 'relu' already"):
        on_request(made, ["relu::gradient"], switch="relu")
    made.ir_version = 3
    with pytest.raises(InvalidInput, match="IR version 4"):
        on_request(made, ["relu::gradient"])
