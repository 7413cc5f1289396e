from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from exporters.opset import OPSETS, to_opset
from runtime.errors import ExportFailed

PICTURES = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def run(proto: onnx.ModelProto) -> np.ndarray:
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"input": PICTURES})[0]


def version(proto: onnx.ModelProto) -> int:
    (found,) = (entry.version for entry in proto.opset_import if not entry.domain)
    return int(found)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_computes_the_same(tiny_model: onnx.ModelProto, opset: int) -> None:
    names = [output for node in tiny_model.graph.node for output in node.output]
    expected = run(tiny_model)
    result = to_opset(tiny_model, opset)
    assert version(result) == opset
    assert [output for node in result.graph.node for output in node.output] == names
    np.testing.assert_array_equal(run(result), expected)


def test_allowzero_goes_where_it_means_nothing(tiny_model: onnx.ModelProto) -> None:
    flatten = next(node for node in tiny_model.graph.node if node.op_type == "Flatten")
    index = list(tiny_model.graph.node).index(flatten)
    tiny_model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 6]), "target"))
    reshape = onnx.helper.make_node("Reshape", [flatten.input[0], "target"], flatten.output, allowzero=1)
    tiny_model.graph.node.remove(flatten)
    tiny_model.graph.node.insert(index, reshape)
    np.testing.assert_array_equal(run(to_opset(tiny_model, 13)), run(tiny_model))


def test_the_same_opset_is_left_alone(tiny_model: onnx.ModelProto) -> None:
    assert to_opset(tiny_model, 18) is tiny_model


def test_what_an_opset_does_not_have_is_an_error(tiny_model: onnx.ModelProto) -> None:
    relu = next(node for node in tiny_model.graph.node if node.op_type == "Relu")
    relu.op_type = "HardSwish"  # new in opset 14
    assert version(to_opset(tiny_model, 14)) == 14
    with pytest.raises(ExportFailed, match=r"opset 13 cannot express the network .*: choose --opset 18"):
        to_opset(tiny_model, 13)
