"""Runs graphs in float64, for which onnxruntime's CPU provider has no convolutions: ONNX's reference, or torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

torch = pytest.importorskip("torch")
F = torch.nn.functional

Array = np.ndarray[Any, Any]


class Conv(OpRun):
    """torch's: ONNX's reference takes seconds for one network."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):  # type: ignore[no-untyped-def]
        assert auto_pad in (None, "NOTSET", b"NOTSET")
        rank = x.ndim - 2
        pads = pads or [0] * 2 * rank
        around = [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[rank + axis])]
        kernel = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        given = [None if entry is None else torch.tensor(entry) for entry in (x, w, b)]
        made = kernel(F.pad(given[0], around), *given[1:], strides or 1, 0, dilations or 1, group or 1)
        return (made.numpy(),)


class ConvTranspose(OpRun):
    """torch's, cut to ONNX's pads: ONNX's reference knows no groups."""

    def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, output_padding=None,
             output_shape=None, pads=None, strides=None):  # type: ignore[no-untyped-def]  # fmt: skip
        rank = x.ndim - 2
        strides, pads, extra = strides or [1] * rank, pads or [0] * 2 * rank, output_padding or [0] * rank
        kernel = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        given = [None if entry is None else torch.tensor(entry) for entry in (x, w, b)]
        made = kernel(*given, strides, groups=group or 1, dilation=dilations or 1)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = [made.shape[2 + axis] - x.shape[2 + axis] * strides[axis] for axis in range(rank)]
            small, large = [entry // 2 for entry in total], [entry - entry // 2 for entry in total]
            pads = [*small, *large] if auto_pad == "SAME_UPPER" else [*large, *small]
        around = [cut for axis in reversed(range(rank)) for cut in (-pads[axis], extra[axis] - pads[rank + axis])]
        return (F.pad(made, around).numpy(),)


class Erf(OpRun):
    """ONNX's reference rounds to float32."""

    def _run(self, x):  # type: ignore[no-untyped-def]
        return (torch.erf(torch.from_numpy(np.asarray(x))).numpy(),)


class Gelu(OpRun):
    """As Erf."""

    def _run(self, x, approximate=None):  # type: ignore[no-untyped-def]
        return (F.gelu(torch.from_numpy(np.asarray(x)), approximate=approximate or "none").numpy(),)


class Pad(OpRun):
    """ONNX's reference knows no negative pads."""

    def _run(self, x, pads, value=None, axes=None, mode=None):  # type: ignore[no-untyped-def]
        cuts = tuple(
            slice(max(-low, 0), size - max(-high, 0))
            for size, low, high in zip(x.shape, pads[: x.ndim], pads[x.ndim :], strict=True)
        )
        around = [(max(low, 0), max(high, 0)) for low, high in zip(pads[: x.ndim], pads[x.ndim :], strict=True)]
        fill = {} if mode not in (None, "constant") else {"constant_values": 0 if value is None else value}
        return (np.pad(x[cuts], around, mode=mode or "constant", **fill),)


class LRN(OpRun):
    """ONNX's reference is wrong where the window passes the last channel."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):  # type: ignore[no-untyped-def]
        low = (size - 1) // 2
        squares = np.pad(x * x, [(0, 0), (low, size - 1 - low), (0, 0), (0, 0)])
        sums = sum(squares[:, start : start + x.shape[1]] for start in range(size))
        return (x / (bias + alpha / size * sums) ** beta,)


def run64(model: onnx.ModelProto, feeds: dict[str, Array], *, native: bool = False) -> list[Array]:
    """The outputs of a float64 model; ``native`` where onnxruntime has all kernels in float64."""
    if native:
        return [np.asarray(made) for made in session(model).run(None, feeds)]
    explicit = all(
        attribute.s in (b"", b"NOTSET") for node in model.graph.node for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "auto_pad"
    )  # fmt: skip
    operators: list[Any] = [ConvTranspose, Erf, Gelu, Pad, LRN, *([Conv] if explicit else [])]
    return [np.asarray(made) for made in ReferenceEvaluator(model, new_ops=operators).run(None, feeds)]


def session(model: onnx.ModelProto, *, threads: int = 1, optimized: str = "") -> onnxruntime.InferenceSession:
    """On onnxruntime's CPU provider; ``optimized`` is where it writes what it made of the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if optimized:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float64."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        if tensor.data_type == 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(float), tensor.name))
    for node in made.graph.node:
        if node.op_type == "ConstantOfShape" and not node.attribute:  # float32 zeros
            zero = onnx.numpy_helper.from_array(np.zeros(1))
            node.attribute.append(onnx.helper.make_attribute("value", zero))
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == 1:
                value = onnx.numpy_helper.to_array(attribute.t).astype(float)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(value, attribute.t.name))
            elif attribute.name == "to" and attribute.i == 1:
                attribute.i = 11
    for value in (*made.graph.input, *made.graph.output):
        if value.type.tensor_type.elem_type == 1:
            value.type.tensor_type.elem_type = 11
    del made.graph.value_info[:]
    return made


def graph(*nodes: Any, outputs: tuple[str, ...] = ("y",), opset: int = 18, shape: Any = ("n", 4)) -> onnx.ModelProto:
    """A model of these nodes, with the input x and a weight w, the unit matrix."""
    made = helper.make_graph(
        list(nodes), "small", [helper.make_tensor_value_info("x", 1, list(shape))],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node whose name is "the KIND"."""
    return helper.make_node(kind, inputs.split(), outputs.split(), name=f"the {kind}", **attributes)
