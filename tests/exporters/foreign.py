"""Small ONNX files as other tools wrote them through the years. Each is a function of nothing to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.exporters.graphs import normal

FLOAT, FLOAT16, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8

RUNTIME_OPERATORS = ' "com.microsoft": 1,'
CLASSIC = ' "ai.onnx.ml": 2,'


def model(text: str, *, opset: int = 13, ir: int = 8, domains: str = "", **weights: Any) -> onnx.ModelProto:
    """A model from ONNX's text form: graph inputs and outputs, nodes; ``weights`` become initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: [{domains} "": {opset}]> g {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items())
    return proto


def weights_as_inputs(proto: onnx.ModelProto, ir: int = 3) -> onnx.ModelProto:
    """As before IR version 4: every weight is an input too."""
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    proto.ir_version = ir
    return proto


_W, _F = normal(4, 3, 3, 3), normal(4, 5, seed=1)
_HEAD = "r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, f4)"


def plain(
    *, opset: int = 13, batch: str = "N", side: str = "8", tail: str = _HEAD, out: str | None = None, **more: Any
) -> onnx.ModelProto:
    """Conv, Relu, average, five scores: 3 x 8 x 8 pictures."""
    out = out or f"float[{batch},5] y"
    text = f"(float[{batch},3,{side},{side}] x) => ({out}) {{ c = Conv(x, w) {tail} }}"
    return model(text, opset=opset, w=_W, f4=_F, **more)


def upsample(opset: int) -> onnx.ModelProto:
    """Upsample, deprecated at 10: an attribute at 7, an input at 9."""
    up = 'u = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]>(c)'
    more: dict[str, Any] = {}
    if opset >= 9:
        up, more = 'u = Upsample<mode = "nearest">(c, s)', {"s": np.array([1, 1, 2, 2], np.float32)}
    return weights_as_inputs(plain(opset=opset, tail=f"{up} {_HEAD.replace('Relu(c)', 'Relu(u)')}", **more))


def batch_norm(spatial: int) -> onnx.ModelProto:
    """BatchNormalization of opset 7, with the attribute that 9 took away."""
    ones = np.ones(4, np.float32)
    tail = f"b = BatchNormalization<spatial = {spatial}>(c, s, h, m, v) {_HEAD.replace('Relu(c)', 'Relu(b)')}"
    return weights_as_inputs(plain(opset=7, tail=tail, s=ones, h=ones * 0.3, m=ones * 0.1, v=ones * 2))


def batch_norm_in_training() -> onnx.ModelProto:
    """BatchNormalization that normalises by the batch it is given, at a batch of 2."""
    ones = np.ones(4, np.float32)
    norm = "b, m2, v2 = BatchNormalization<training_mode = 1>(c, s, h, m, v)"
    tail = f"{norm} {_HEAD.replace('Relu(c)', 'Relu(b)')}"
    return plain(opset=15, batch="2", tail=tail, s=ones, h=ones * 0.3, m=ones * 0.1, v=ones * 2)


def dropout_with_mask() -> onnx.ModelProto:
    """Dropout that gives its mask, the mask a second output."""
    tail = _HEAD.replace("y = MatMul(f, f4)", "d, k = Dropout<ratio = 0.5>(f) y = MatMul(d, f4)")
    return plain(opset=10, tail=tail, out="float[N,5] y, bool[N,4] k")


def old_reshape() -> onnx.ModelProto:
    """Reshape of opset 1: the shape is an attribute."""
    return weights_as_inputs(
        model(
            "(float[1,3,2,2] x) => (float[1,5] y) { f = Reshape<shape = [1, 12]>(x) y = MatMul(f, w) }",
            opset=4,
            w=normal(12, 5),
        )
    )


def branches() -> onnx.ModelProto:
    """If: softmax along the old default axis in one branch, a Squeeze with an axes attribute in the other."""
    return model(
        """(float[N,3,4,4] x) => (float[N,48] y) {
            f = Flatten(x) s = ReduceMax<keepdims = 0>(x) z = Constant<value = float {100.0}>() c = Greater(s, z)
            y = If(c) <then_branch = t () => (float[N,48] a) { a = Softmax(f) },
                       else_branch = e () => (float[N,48] b) { u = Unsqueeze<axes = [0]>(f) v = Squeeze<axes = [0]>(u)
                                                                b = Relu(v) }>
        }""",
        opset=11,
    )


def loop() -> onnx.ModelProto:
    """Loop: the value doubled three times."""
    return model(
        """(float[N,3,4,4] x) => (float[N,48] y) {
            f = Flatten(x) n = Constant<value = int64 {3}>() on = Constant<value = bool {1}>()
            y = Loop(n, on, f) <body = b (int64 i, bool g, float[N,48] a) => (bool h, float[N,48] o) {
                h = Identity(g) o = Add(a, a) }>
        }""",
        opset=16,
    )


def local_function(opset: int = 15) -> onnx.ModelProto:
    """A function of the model's own."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}, "own": 1]> g (float[N,3,4,4] x) => (float[N,48] y) {{
            f = Flatten(x) y = own.Twice(f) }}
        <domain: "own", opset_import: ["": {opset}]> Twice (a) => (b) {{ b = Add(a, a) }}"""
    )


def quantized() -> onnx.ModelProto:
    """QDQ around a convolution, per tensor."""
    scale, zero = np.float32(0.1), np.uint8(128)
    return model(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear(wq, s, zw)
            c = Conv(xd, wd) cq = QuantizeLinear(c, s, z) r = DequantizeLinear(cq, s, z)
            p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, f4)
        }""",
        s=scale, z=zero, zw=np.int8(0), wq=(normal(4, 3, 3, 3) * 30).astype(np.int8), f4=_F,
    )  # fmt: skip


def pixels_in(kind: str = "uint8") -> onnx.ModelProto:
    """A TensorFlow file: NHWC pixels of 8 bits, transposed and scaled inside, 1001 classes softmaxed."""
    return model(
        f"""({kind}[N,8,8,3] x) => (float[N,1001] y) {{
            h = Cast<to = 1>(x) t = Transpose<perm = [0, 3, 1, 2]>(h) d = Div(t, k) c = Conv(d, w)
            r = Relu(c) p = GlobalAveragePool(r) f = Squeeze(p, a) l = MatMul(f, f4) y = Softmax(l)
        }}""",
        w=_W, f4=normal(4, 1001), k=np.float32(127.5), a=np.array([2, 3]),
    )  # fmt: skip


def half() -> onnx.ModelProto:
    """Everything in float16, input and output too."""
    return model(
        """(float16[N,3,8,8] x) => (float16[N,5] y) {
            c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, f4) }""",
        w=_W.astype(np.float16),
        f4=_F.astype(np.float16),
    )


def two_outputs() -> onnx.ModelProto:
    """Boxes first, scores behind."""
    return plain(tail=_HEAD + " b = Reshape(c, k)", out="float[N,36,4] b, float[N,5] y", k=np.array([-1, 36, 4]))


def tail(text: str, out: str, **more: Any) -> onnx.ModelProto:
    """The plain network to its map r of (N, 4, 6, 6), and another end."""
    return plain(tail=f"r = Relu(c) {text}", out=out, **more)
