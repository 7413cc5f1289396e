"""From the opset an exporter writes to the one that was asked for, or an error; never another one."""

from __future__ import annotations

from typing import Any

from exporters.shapes import weightless
from runtime.errors import ExportFailed

OPSETS = range(13, 24)
"""Oldest: the first with per-axis quantization. Newest: what onnxruntime 1.22 runs."""


def to_opset(proto: Any, opset: int) -> Any:
    """The cleaned model in another opset; the same object when it is in that one already.

    Converting after the cleaning is what makes it work: onnx's converter has no answer for the axes
    that ReduceMean takes as an input at 18, and no such mean is left. Raises ExportFailed.
    """
    import onnx
    import onnx.version_converter
    import onnx_ir as ir

    (given,) = (entry.version for entry in proto.opset_import if not entry.domain)
    if given == opset:
        return proto
    light = weightless(ir.from_proto(proto))
    (picture,) = (value.name for value in proto.graph.input)
    weights = {value.name for value in light.graph.input} - {picture}
    try:
        result = onnx.version_converter.convert_version(light, max(opset, 14)) if given != 14 else light
        if opset == 13:
            # 14 gave Add, Mul, Relu and others more types, nothing else; what is new in it, the checker finds.
            result.opset_import[0].version = 13
            _drop_allowzero(result.graph)
        result = onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
        onnx.checker.check_model(result, full_check=True)
    except (RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[-1][-160:]
        raise ExportFailed(f"opset {opset} cannot express the network ({reason}): choose --opset {given}") from error
    for index in reversed([i for i, value in enumerate(result.graph.input) if value.name in weights]):
        del result.graph.input[index]
    result.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in weights)
    return result


def _drop_allowzero(graph: Any) -> None:
    """An attribute that Reshape has since 14, and that only matters to a target that holds a 0."""
    from onnx import numpy_helper

    targets = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        target = targets.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is not None and 0 not in numpy_helper.to_array(target):
            for index in [i for i, attribute in enumerate(node.attribute) if attribute.name == "allowzero"]:
                del node.attribute[index]
