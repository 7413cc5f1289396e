"""What Keras 2 made layers of without being told: plain TensorFlow operations, by name. To add one, add a row.

``tf.nn.relu(x)`` or ``x / 127.5`` between layers became a layer "TFOpLambda" (TensorFlow 2.4 and later), or
"TensorFlowOpLayer" with the operation as text (2.0 to 2.3). ``preprocess_input`` inside a model is made of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.errors import InvalidWeights

Operation = Callable[..., Any]


def operation_of(entry: dict[str, Any], *, where: str) -> Operation | None:
    """The operation that a layer's configuration stands for; None for a layer that is none.

    Raises InvalidWeights for an operation that has no row.
    """
    kind, values = entry["class_name"], entry["config"]
    if kind in ("TFOpLambda", "SlicingOpLambda", "ClassMethod"):
        name = str(values.get("function"))
        found = _operations().get(name)
        if found is None:
            raise InvalidWeights(f"{where}: holds the operation tf.{name}, which is not supported")
        return lambda x, **options: found(x, **{key: value for key, value in options.items() if key != "name"})
    if kind == "TensorFlowOpLayer":
        return _by_node(values, where)
    return None


def _by_node(values: dict[str, Any], where: str) -> Operation:
    """An operation as TensorFlow 2.0 to 2.3 wrote it: a node of a graph, with constants by place."""
    text = values["node_def"]
    name = text.get("op") if isinstance(text, dict) else re.search(r'(?m)^op: "(\w+)"', str(text))
    name = name if isinstance(name, str | None) else name.group(1)
    found = {
        "AddV2": "math.add", "Add": "math.add", "Sub": "math.subtract", "Mul": "math.multiply",
        "RealDiv": "math.truediv", "BiasAdd": "nn.bias_add", "Relu": "nn.relu", "Relu6": "nn.relu6",
        "Sigmoid": "math.sigmoid", "Softmax": "nn.softmax",
    }.get(str(name))  # fmt: skip
    if found is None:
        raise InvalidWeights(f"{where}: holds the TensorFlow operation {name}, which is not supported")
    operation, constants = _operations()[found], {int(place): value for place, value in values["constants"].items()}

    def call(x: Any, **_: Any) -> Any:
        given = iter(x if isinstance(x, list) else [x])
        count = len(constants) + (len(x) if isinstance(x, list) else 1)
        return operation(*(constants[place] if place in constants else next(given) for place in range(count)))

    return call


def _operations() -> dict[str, Operation]:
    from keras import ops

    def constant(value: Any) -> Any:
        return np.asarray(value, np.float32) if isinstance(value, list) else value

    def two(operation: Operation) -> Operation:
        return lambda x, y: operation(constant(x), constant(y))

    def reduced(operation: Operation) -> Operation:
        return lambda input_tensor, axis=None, keepdims=False: operation(input_tensor, axis=axis, keepdims=keepdims)

    add, divide = two(lambda x, y: ops.add(x, y)), two(lambda x, y: ops.true_divide(x, y))
    subtract, multiply = two(lambda x, y: ops.subtract(x, y)), two(lambda x, y: ops.multiply(x, y))
    return {
        "math.truediv": divide, "math.divide": divide, "realdiv": divide, "__operators__.truediv": divide,
        "math.subtract": subtract, "__operators__.sub": subtract,
        "math.multiply": multiply, "__operators__.mul": multiply,
        "math.add": add, "__operators__.add": add,
        "math.maximum": two(ops.maximum), "math.minimum": two(ops.minimum),
        "math.negative": ops.negative, "math.abs": ops.absolute, "math.square": ops.square, "math.sqrt": ops.sqrt,
        "math.sigmoid": ops.sigmoid, "nn.sigmoid": ops.sigmoid, "math.tanh": ops.tanh, "nn.tanh": ops.tanh,
        "nn.relu": ops.relu, "nn.relu6": ops.relu6, "nn.elu": ops.elu, "nn.silu": _silu, "nn.swish": _silu,
        "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
        "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, axis=-1 if axis is None else axis),
        "nn.bias_add": _bias_add,
        "math.reduce_mean": reduced(ops.mean), "math.reduce_max": reduced(ops.max), "math.reduce_sum": reduced(ops.sum),
        "concat": lambda values, axis=-1: ops.concatenate(values, axis=axis),
        "reshape": lambda tensor, shape: ops.reshape(tensor, shape),
        "squeeze": lambda input, axis=None: ops.squeeze(input, axis=axis),
        "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
        "transpose": lambda a, perm=None: ops.transpose(a, axes=perm),
        "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
        "cast": _cast, "identity": lambda input: input, "stop_gradient": lambda input: input,
        "__operators__.getitem": _slice,
        "pad": lambda tensor, paddings: ops.pad(tensor, paddings),
    }  # fmt: skip


def _silu(features: Any, beta: float = 1.0) -> Any:
    from keras import ops

    return ops.silu(features) if beta == 1 else features * ops.sigmoid(features * beta)


def _bias_add(value: Any, bias: Any, data_format: str | None = None) -> Any:
    from keras import ops

    if data_format not in (None, "NHWC", "N...C"):
        raise ValueError(f"bias_add with {data_format}")
    return ops.add(value, np.asarray(bias, np.float32) if isinstance(bias, list) else bias)


def _cast(x: Any, dtype: str) -> Any:
    if dtype != "float32":
        raise ValueError(f"a cast to {dtype}")
    return x


def _slice(x: Any, slice_spec: Any) -> Any:
    """``x[...]`` with what the configuration has for slices and an ellipsis."""
    spec = [
        ... if item == {"class_name": "__ellipsis__"} else slice(item["start"], item["stop"], item["step"])
        if isinstance(item, dict)
        else item
        for item in (slice_spec if isinstance(slice_spec, list) else [slice_spec])
    ]  # fmt: skip
    return x[tuple(spec)]
