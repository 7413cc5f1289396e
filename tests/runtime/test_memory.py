"""Closing a model gives its memory back, to the system too."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.model import Model


def _resident() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_close_gives_the_weights_back(tmp_path: Path) -> None:
    # Many weights of 1 MB: glibc takes them from its heap, and keeps that when they are freed.
    nodes, weights = [], []
    for index in range(128):
        array = np.random.default_rng(index).standard_normal((512, 512)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(array, f"w{index}"))
        nodes.append(onnx.helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"]))
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["N", 512]) for name in ("x0", "x128")]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path / "large.onnx"
    onnx.save(model, path)
    Model(path).close()  # what loading onnxruntime itself takes
    del model, weights, nodes, array
    before = _resident()
    opened = Model(path)
    while_open = _resident()
    opened.close()
    assert while_open - before > 100  # MB
    assert _resident() - before < 30
