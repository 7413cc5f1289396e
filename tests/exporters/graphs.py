"""Small graphs for the tests of the passes: written as text, run by onnxruntime with its own optimizer off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper, numpy_helper

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


def feeds_for(proto: onnx.ModelProto, batch: int) -> dict[str, Array]:
    """Normal numbers, spread to +-12 so that every branch of a clip is taken; ``batch`` for each free axis."""
    feeds = {}
    for index, value in enumerate(proto.graph.input):
        shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = (3 * normal(*shape, seed=10 * batch + index)).astype(dtype)
    return feeds


def rewritten(step: Callable[[ir.Model], None], proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model after one pass, checked to be valid."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    step(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(result, strict_mode=True), full_check=True)
    return result


def check(
    step: Callable[[ir.Model], None],
    proto: onnx.ModelProto,
    expected: str,
    *,
    atol: float,
    rtol: float = 0.0,
    runner: Callable[..., list[Array]] = run,
) -> onnx.ModelProto:
    """Rewrite; the operators must be ``expected``, in order, and the outputs the same within the tolerance."""
    result = rewritten(step, proto)
    assert " ".join(node.op_type for node in result.graph.node) == expected
    for batch in (1, 3):
        feeds = feeds_for(proto, batch)
        for before, after in zip(runner(proto, feeds), runner(result, feeds), strict=True):
            assert after.shape == before.shape and after.dtype == before.dtype
            np.testing.assert_allclose(after, before, atol=atol, rtol=rtol)
    return result


def untouched(step: Callable[[ir.Model], None], proto: onnx.ModelProto, *, runner: Callable[..., Any] = run) -> None:
    """No fusion applies: the same operators, and bit for bit the same outputs."""
    check(step, proto, " ".join(node.op_type for node in proto.graph.node), atol=0, runner=runner)
