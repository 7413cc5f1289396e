"""Closing a model gives its memory back, to the system too."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

SCRIPT = """
import json, pathlib, sys
from runtime.model import Model

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

small, large = sys.argv[1:]
Model(small).close()  # what loading onnxruntime itself takes
before = resident()
model = Model(large)
opened = resident()
model.close()
print(json.dumps([before, opened, resident()]))
"""


def chain(path: Path, layers: int) -> Path:
    """Weights of 1 MB each: glibc takes them from its heap, and keeps that when they are freed."""
    random = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(random.standard_normal((512, 512)).astype(np.float32), f"w{index}")
        for index in range(layers)
    ]
    nodes = [onnx.helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"]) for index in range(layers)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["N", 512]) for name in ("x0", f"x{layers}")]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_close_gives_the_weights_back(tmp_path: Path, root: Path) -> None:
    files = [chain(tmp_path / "small.onnx", 1), chain(tmp_path / "large.onnx", 128)]
    # In a process of its own: here, the heap has room left from other tests.
    done = subprocess.run([sys.executable, "-c", SCRIPT, *files], cwd=root, capture_output=True, text=True, check=True)
    before, opened, closed = json.loads(done.stdout)
    assert opened - before > 100  # MB
    assert closed - before < 40
