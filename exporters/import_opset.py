"""The opset of an imported graph: a newer one where the converter can, its own where it cannot; said in both cases."""

from __future__ import annotations

import re
from typing import Any

from exporters.import_read import default_opset, is_large, nodes
from exporters.opset import OPSETS
from exporters.source import package_version

_OWN_IR = 8
"""IR version that a raised opset needs at least: 13 came with 7, local functions with 8; onnxruntime 1.22 reads 10."""


def raised(proto: Any, wanted: int | None) -> tuple[Any, str]:
    """The model at ``wanted``, or at the first of OPSETS where it is older, and what was done.

    The model itself, with "kept at opset 9: why", where that cannot be. proto: external tensors loaded.
    """
    import onnx
    import onnx.version_converter

    opset = default_opset(proto)
    target = wanted or max(opset, OPSETS.start)
    if target == opset:
        return proto, ""
    if obstacle := _obstacle(proto, asked=wanted is not None):
        return proto, f"kept at opset {opset}: {obstacle}"
    try:
        result = onnx.version_converter.convert_version(proto, target)
    except (RuntimeError, ValueError, TypeError, onnx.shape_inference.InferenceError) as error:
        return proto, f"kept at opset {opset}: {_reason(str(error), opset, target)}"
    if default_opset(result) != target:
        return proto, f"kept at opset {opset}: the converter left it there"
    del result.metadata_props[:]
    result.metadata_props.extend(proto.metadata_props)
    return result, f"opset {opset} -> {target} (onnx.version_converter of onnx {package_version('onnx')})"


def modern_ir(proto: Any) -> None:
    """An IR version in which weights need not be inputs (4), and that the opset allows."""
    proto.ir_version = max(proto.ir_version, 4 if default_opset(proto) < OPSETS.start else _OWN_IR)


def _obstacle(proto: Any, *, asked: bool) -> str:
    if proto.functions:
        return "the converter drops the file's own functions"
    inner = next((node.op_type for node in nodes(proto) if any(a.g.node or a.graphs for a in node.attribute)), None)
    if inner and not asked:
        # What a branch computes that no verification run takes could change unseen.
        return f"{inner} may hold branches that no verification run takes (--opset raises it all the same)"
    if is_large(proto):
        return "the converter takes no model above 2 GiB"
    return ""


def _reason(said: str, opset: int, target: int) -> str:
    """What the converter could not do, in words; its own where they are not known."""
    said = " ".join(said.split())
    # Its format strings are not filled in: operator, old and new opset stand behind them in one word.
    for pattern in (rf"%lld\.(\w+?){opset}{target}$", r"No Adapter .* for (\w+)", r"optype (\w+)"):
        if found := re.search(pattern, said):
            return f"the converter has no rule for {found[1]}"
    said = said.rpartition(" failed: ")[2]  # behind where in its sources it gave up
    return f"the converter fails ({said[-160:]})" if said else "the converter fails"
