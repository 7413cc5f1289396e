"""Small graphs for the tests of the passes: written as text, run by onnxruntime with its own optimizer off."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

Array = np.ndarray[Any, Any]


def parse(text: str, *, opset: int = 18, **weights: Any) -> onnx.ModelProto:
    """A model from ONNX's own text form; ``weights`` become its initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> test {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return proto


def normal(*shape: int, seed: int = 0) -> Array:
    """Seeded standard normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(proto: onnx.ModelProto, feeds: dict[str, Array], *, optimized: bool = False) -> list[Array]:
    """Every output, by onnxruntime; ``optimized`` lets it rewrite the graph, as it does in use."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, feeds)
    return outputs
