"""RULES: how each operator is differentiated. This is the place to add one.

Adding a rule
-------------
1. Write a function in the file of its kind (``elementwise.py``, ``layout.py``, ...):

       def sinh(node: Node, b: Builder, g: Tensor) -> Grads:
           return [g * b.add("Cosh", node_input(node, b))]

   ``g`` is the gradient of the node's output. The answer has one entry per input, in order: its gradient, or None
   where it has none (indices, weights that nobody asks about). Tensors know ``+ - * / @``; ``b.add`` appends any other
   operator, and the builder has a method for those whose form depends on the opset.

   For y = f(x) the derivative is enough, as a row of UNARY: ``"Sinh": unary(lambda x, y, b: b.add("Cosh", x))``.

2. Add the row: ``"Sinh": elementwise.sinh``. An operator whose output does not change with small changes of its input
   goes to NON_DIFFERENTIABLE instead, with the reason.

3. Add its case to ``tests/runtime/gradients/cases.py``, one line; a test fails until there is one. It is compared with
   finite differences and with torch in float64.

What to know:
- g may be smaller than the output where it is the same along an axis: ``b.expand(g, y)`` when all of it is needed.
  What an input was broadcast by is summed by the sweep.
- Use the output rather than the input where it tells enough: a convolution then stays fused with its activation.
- A mask is ``b.above(x, bound)``: exact, and faster than comparing.
- For a form of the operator that the rule does not cover: ``raise node.unsupported("why")``.
- ``node.setting(name, index)`` reads what older opsets keep as an attribute and newer ones as an input.
"""

from __future__ import annotations

from runtime.gradients import (
    convolution,
    elementwise,
    layout,
    linear,
    normalization,
    pooling,
    quantized,
    reduction,
    resizing,
)
from runtime.gradients.elementwise import UNARY, Rule

RULES: dict[str, Rule] = {
    **UNARY,
    "Add": elementwise.add,
    "Affine": normalization.affine,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalization.batch_normalization,
    "Cast": elementwise.cast,
    "Celu": elementwise.celu,
    "Clip": elementwise.clip,
    "Concat": layout.concat,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Crop": layout.crop,
    "CumSum": reduction.cumulative_sum,
    "DepthToSpace": layout.depth_to_space,
    "DequantizeLinear": quantized.dequantize,
    "Div": elementwise.divide,
    "Dropout": elementwise.same,
    "DynamicQuantizeLinear": quantized.dynamic_quantize,
    "Einsum": linear.einsum,
    "Elu": elementwise.elu,
    "Expand": layout.expand,
    "Flatten": layout.reshape,
    "Gather": layout.gather,
    "GatherElements": layout.gather_elements,
    "Gelu": elementwise.gelu,
    "Gemm": linear.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "GroupNormalization": normalization.group_normalization,
    "HardSigmoid": elementwise.hard_sigmoid,
    "HardSwish": elementwise.hard_swish,
    "Identity": elementwise.same,
    "ImageScaler": normalization.image_scaler,
    "InstanceNormalization": normalization.instance_normalization,
    "LRN": normalization.lrn,
    "LayerNormalization": normalization.layer_normalization,
    "LeakyRelu": elementwise.leaky_relu,
    "LogSoftmax": reduction.log_softmax,
    "LpNormalization": reduction.lp_normalization,
    "LpPool": pooling.lp_pool,
    "MatMul": linear.matmul,
    "MatMulInteger": quantized.matmul_integer,
    "Max": elementwise.extreme,
    "MaxPool": pooling.max_pool,
    "Mean": elementwise.mean,
    "Min": elementwise.extreme,
    "Mish": elementwise.mish,
    "Mul": elementwise.multiply,
    "PRelu": elementwise.prelu,
    "Pad": layout.pad,
    "Pow": elementwise.power,
    "QuantizeLinear": quantized.quantize,
    "QuickGelu": elementwise.swish,
    "RMSNormalization": normalization.rms_normalization,
    "ReduceL1": reduction.reduce_l1,
    "ReduceL2": reduction.reduce_l2,
    "ReduceLogSum": reduction.reduce_log_sum,
    "ReduceLogSumExp": reduction.reduce_log_sum_exp,
    "ReduceMax": reduction.reduce_extreme,
    "ReduceMean": reduction.reduce_mean,
    "ReduceMin": reduction.reduce_extreme,
    "ReduceProd": reduction.reduce_prod,
    "ReduceSum": reduction.reduce_sum,
    "ReduceSumSquare": reduction.reduce_sum_square,
    "Relu": elementwise.relu,
    "Reshape": layout.reshape,
    "Resize": resizing.resize,
    "ScatterND": layout.scatter_nd,
    "Selu": elementwise.selu,
    "Slice": layout.slice_,
    "Softmax": reduction.softmax,
    "SpaceToDepth": layout.space_to_depth,
    "Split": layout.split,
    "Squeeze": layout.reshape,
    "Sub": elementwise.subtract,
    "Sum": elementwise.add,
    "Swish": elementwise.swish,
    "ThresholdedRelu": elementwise.thresholded_relu,
    "Tile": layout.tile,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.reshape,
    "Upsample": resizing.resize,
    "Where": elementwise.where,
}
RULES |= dict.fromkeys(quantized.FORMS, quantized.integer(RULES))

SEVERAL = {"DynamicQuantizeLinear", "Split"}
"""Operators whose rule takes the gradients of all outputs."""

_STEPS, _TRUTH, _INDICES = "it is constant between its steps", "it is true or false", "it gives positions, not values"
_SHAPES = "it depends on the shape of its input alone"

NON_DIFFERENTIABLE: dict[str, str] = {
    "And": _TRUTH,
    "ArgMax": _INDICES,
    "ArgMin": _INDICES,
    "BitShift": _STEPS,
    "Ceil": _STEPS,
    "ConstantOfShape": _SHAPES,
    "Equal": _TRUTH,
    "EyeLike": _SHAPES,
    "Floor": _STEPS,
    "Greater": _TRUTH,
    "GreaterOrEqual": _TRUTH,
    "Hardmax": _STEPS,
    "IsInf": _TRUTH,
    "IsNaN": _TRUTH,
    "Less": _TRUTH,
    "LessOrEqual": _TRUTH,
    "NonMaxSuppression": _INDICES,
    "NonZero": _INDICES,
    "Not": _TRUTH,
    "OneHot": "it reads positions, not values",
    "Or": _TRUTH,
    "Range": _STEPS,
    "Round": _STEPS,
    "Shape": _SHAPES,
    "Sign": _STEPS,
    "Size": _SHAPES,
    "Xor": _TRUTH,
}
