"""onnxscript's optimizer: constants folded, dead and repeated nodes dropped, BatchNorm and Pad within convolutions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir


def fold(model: ir.Model) -> None:
    """Fold constants, drop dead and repeated nodes. What is a function becomes its operators."""
    import onnx_ir.passes.common as common
    import onnxscript.optimizer

    common.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model, onnx_shape_inference=True, **_folding())
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.OutputFixPass()(model)
    common.NameFixPass()(model)


def optimize(model: ir.Model) -> None:
    """The same, and fold BatchNorm and Pad into convolutions: onnxscript's optimizer and its rewrite rules."""
    import onnxscript.optimizer

    onnxscript.optimizer.optimize_ir(model, **_folding())


def _folding() -> dict[str, Any]:
    """Weights that are only laid out anew are folded whatever their size; masks are built on a ConstantOfShape."""
    should_fold = lambda node: True if node.op_type == "ConstantOfShape" else None  # noqa: E731
    return {"input_size_limit": sys.maxsize, "should_fold": should_fold}
