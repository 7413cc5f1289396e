"""Small classifiers that slide, as text, and what runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from exporters.passes import clean
from tests.exporters.graphs import Array, normal, parse, run

SIDE = 20


def network(body: str, *, side: int = SIDE, batch: str | int = "n", **weights: Any) -> onnx.ModelProto:
    """A cleaned model of three-channel pictures x -> y; w1, w2, ... are weights of the shapes given."""
    text = f"(float[{batch}, 3, {side}, {side}] x) => (float[{batch}, 5] y) {{ {body} }}"
    arrays = {
        name: normal(*value, seed=index) if isinstance(value, tuple) else value
        for index, (name, value) in enumerate(weights.items())
    }
    return clean(parse(text, **arrays), opset=18, batch=batch if isinstance(batch, int) else None)


def answers(proto: onnx.ModelProto, pictures: Array) -> Array:
    return run(proto, {"input": pictures})[0]


LENET = {
    "body": """c1 = Conv(x, w1, b1) r1 = Relu(c1) p1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r1)
        c2 = Conv(p1, w2) r2 = Relu(c2) p2 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r2)
        f = Flatten(p2) g = Gemm <transB = 1> (f, w3, b3) r3 = Relu(g) y = Gemm(r3, w4)""",
    "w1": (6, 3, 5, 5), "b1": (6,), "w2": (4, 6, 3, 3), "w3": (8, 36), "b3": (8,), "w4": (8, 5),
}  # fmt: skip

UNPADDED: dict[str, dict[str, Any]] = {
    "lenet": LENET,
    "odd strides": {
        "body": """c1 = Conv <strides = [3, 2]> (x, w1) a = AveragePool <kernel_shape = [2, 2]> (c1)
            c2 = Conv <strides = [1, 2], dilations = [2, 1]> (a, w2) r = Relu(c2) g = GlobalAveragePool(r)
            f = Flatten(g) y = Gemm(f, w3)""",
        "w1": (6, 3, 3, 3), "w2": (4, 6, 2, 2), "w3": (4, 5),
    },
    "convolution at the top": {
        "body": "c = Conv(x, w1) r = Relu(c) d = Conv(r, w2) g = GlobalAveragePool(d) y = Flatten(g)",
        "w1": (6, 3, 3, 3), "w2": (5, 6, 1, 1),
    },
    "convolved to one place": {
        "body": "c = Conv <strides = [4, 4]> (x, w1) r = Relu(c) d = Conv(r, w2) y = Flatten(d)",
        "w1": (6, 3, 4, 4), "w2": (5, 6, 5, 5),
    },
    "two poolings joined": {
        "body": """c = Conv(x, w1) a = ReduceMax <keepdims = 0> (c, axes) m = ReduceMean <keepdims = 0> (c, axes)
            j = Concat <axis = -1> (a, m) s = Mul(j, w2) y = Gemm(s, w3)""",
        "w1": (6, 3, 5, 5), "w2": (12,), "w3": (12, 5), "axes": np.array([2, 3]),
    },
    "largest of the map": {
        "body": "c = Conv <group = 3, strides = [2, 2]> (x, w1) g = GlobalMaxPool(c) f = Flatten(g) y = Gemm(f, w2)",
        "w1": (6, 1, 5, 5), "w2": (6, 5),
    },
    "channels shuffled": {
        "body": """c = Conv <strides = [2, 2]> (x, w1) s = Reshape(c, five) t = Transpose <perm = [0, 2, 1, 3, 4]> (s)
            u = Reshape(t, four) d = Conv(u, w2) g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, w3)""",
        "w1": (6, 3, 3, 3), "w2": (4, 6, 3, 3), "w3": (4, 5),
        "five": np.array([-1, 2, 3, 9, 9]), "four": np.array([-1, 6, 9, 9]),
    },
    "channels taken apart": {
        "body": """c = Conv(x, w1) n = LRN <size = 3, alpha = 0.5> (c) a, b = Split <axis = 1> (n, halves)
            s = Slice(c, zero, two, one) g = Gather <axis = 1> (c, two) p = PRelu(a, slope)
            h = Mul(b, slope) j = Concat <axis = 1> (p, h, s, g) q = GlobalAveragePool(j) f = Flatten(q)
            y = Gemm(f, w2)""",
        "w1": (6, 3, 3, 3), "w2": (9, 5), "slope": (3, 1, 1), "halves": np.array([3, 3]),
        "zero": np.array([0]), "two": np.array([2]), "one": np.array([1]),
    },
    "residual": {
        "body": """c = Conv <strides = [2, 2]> (x, w1) r = Relu(c) d = Conv(r, w2) e = Conv(r, w3) a = Add(d, e)
            q = GlobalAveragePool(a) f = Flatten(q) m = MatMul(f, w4) b = Add(m, b4) z = HardSwish(b)
            y = Gemm(z, w5)""",
        "w1": (6, 3, 3, 3), "w2": (4, 6, 3, 3), "w3": (4, 6, 3, 3), "w4": (4, 7), "b4": (7,), "w5": (7, 5),
    },
    "cropped": {
        "body": """p = Pad(x, pads) c = Conv <strides = [2, 2]> (p, w1) q = GlobalAveragePool(c) f = Flatten(q)
            y = Gemm <alpha = 0.5, beta = 2.0> (f, w2, b2)""",
        "w1": (6, 3, 3, 3), "w2": (6, 5), "b2": (5,), "pads": np.array([0, 0, -1, -2, 0, 0, -1, 0]),
    },
}  # fmt: skip
"""No layer sees beyond its map: the network on a window cut out is what the map must say."""

PADDED: dict[str, dict[str, Any]] = {
    "pads": {
        "body": """c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1) r = Relu(c)
            d = Conv <pads = [0, 1, 1, 0]> (r, w2) g = GlobalAveragePool(d) f = Flatten(g) y = Gemm(f, w3)""",
        "w1": (6, 3, 3, 3), "w2": (4, 6, 2, 2), "w3": (4, 5),
    },
    "as much as at the native size": {
        "body": """c = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w1)
            d = Conv <auto_pad = "SAME_LOWER"> (c, w2) v = Conv <auto_pad = "VALID"> (d, w3)
            f = Flatten(v) y = Gemm(f, w4)""",
        "w1": (4, 3, 3, 3), "w2": (3, 4, 4, 4), "w3": (3, 3, 3, 3), "w4": (192, 5),
    },
    "beyond the border": {
        "body": """c = Conv(x, w1, b1) m = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (c)
            p = Pad(m, pads) g = GlobalAveragePool(p) f = Flatten(g) y = Gemm(f, w2)""",
        "w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
    },
    "average of the padding": {
        "body": """c = Conv <strides = [2, 2]> (x, w1)
            a = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (c)
            g = GlobalAveragePool(a) f = Flatten(g) y = Gemm(f, w2)""",
        "w1": (4, 3, 3, 3), "w2": (4, 5),
    },
}  # fmt: skip
