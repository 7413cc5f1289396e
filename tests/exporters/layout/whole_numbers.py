"""Graphs of small whole numbers: float32 sums of those are exact in whatever order a layout adds them.

So every comparison in these tests is for equality, by onnxruntime with its own optimizer off.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper

Arrays = dict[str, np.ndarray[Any, Any]]

NHWC, NCHW = "perm = [0, 2, 3, 1]", "perm = [0, 3, 1, 2]"


def feeds_for(proto: onnx.ModelProto, batch: int) -> Arrays:
    rng = np.random.default_rng(batch)
    feeds = {}
    for value in proto.graph.input:
        shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = rng.integers(-8, 9, shape).astype(dtype)
    return feeds


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)
