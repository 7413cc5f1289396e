"""One line per operator: its inputs, its attributes, and what torch calls it; ``cases_maps`` has the larger ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.runtime.gradients.case import MAP, case, f32, ints
from tests.runtime.gradients.cases_maps import CONVOLUTIONS, POOLINGS, RESIZES

torch = pytest.importorskip("torch")
F = torch.nn.functional

ACTIVATIONS = [
    case("Relu", MAP, F.relu),
    case("LeakyRelu", MAP, lambda x: F.leaky_relu(x, f32(0.1)), alpha=0.1),
    case("LeakyRelu", MAP, lambda x: F.leaky_relu(x, f32(-0.3)), alpha=-0.3, note="negative"),
    case("PRelu", ("N C H W", "C 1 1"), lambda x, a: F.prelu(x, a.reshape(-1)), wrt=(0, 1)),
    case("Elu", MAP, lambda x: F.elu(x, f32(0.7)), alpha=0.7),
    case("Celu", MAP, lambda x: F.celu(x, f32(0.7)), alpha=0.7),
    case("Selu", MAP, F.selu),
    case("ThresholdedRelu", MAP, lambda x: F.threshold(x, 0.5, 0.0), alpha=0.5),
    case("Softplus", MAP, F.softplus),
    case("Softsign", MAP, F.softsign),
    case("Clip", (MAP, np.array(-0.5), np.array(0.75)), lambda x, a, b: x.clamp(-0.5, 0.75)),
    case("Clip", MAP, lambda x: x.clamp(-0.5, 0.75), min=-0.5, max=0.75, opset=9),
    case("Clip", (MAP, "", np.array(0.75)), lambda x, b: x.clamp(max=0.75), note="above"),
    case("Sigmoid", MAP, torch.sigmoid),
    case("HardSigmoid", MAP, lambda x: (x * f32(0.2) + 0.5).clamp(0, 1), scale=3.0),
    case("HardSwish", MAP, F.hardswish, scale=3.0),
    case("Gelu", MAP, F.gelu),
    case("Gelu", MAP, lambda x: F.gelu(x, approximate="tanh"), approximate="tanh", note="tanh"),
    case("Mish", MAP, F.mish),
    case("Swish", MAP, F.silu, opset=24),
    case("QuickGelu", MAP, lambda x: x * torch.sigmoid(f32(1.702) * x), alpha=1.702, domain="com.microsoft"),
    case("Erf", MAP, torch.erf),
    case("Tanh", MAP, torch.tanh),
]
ELEMENTWISE = [
    case("Add", (MAP, "C 1 1"), torch.add, wrt=(0, 1)),
    case("Add", ("N 1 H W", "N C 1 1"), torch.add, wrt=(0, 1), note="both"),
    case("Sub", (MAP, "C 1 1"), torch.sub, wrt=(0, 1)),
    case("Mul", (MAP, "N C 1 1"), torch.mul, wrt=(0, 1)),
    case("Div", (MAP, "C 1 1"), torch.div, wrt=(0, 1), positive=True),
    case("Pow", (MAP, "C 1 1"), torch.pow, wrt=(0, 1), positive=True),
    case("Pow", (MAP, np.array(2.0)), torch.pow, note="square"),
    case("Pow", (MAP, np.array(3.0)), torch.pow, note="cube"),
    case("Sum", (MAP, "C 1 1", "1"), lambda a, b, c: a + b + c, wrt=(0, 1, 2)),
    case("Mean", (MAP, "C 1 1"), lambda a, b: (a + b) / 2, wrt=(0, 1)),
    case("Min", (MAP, "C 1 1"), torch.minimum, wrt=(0, 1)),
    case("Max", (MAP, "C 1 1"), torch.maximum, wrt=(0, 1)),
    case("Max", (MAP, "C 1 1"), torch.maximum, wrt=(0, 1), opset=8),
    case("Max", (MAP,), lambda x: x, note="single"),
    case("Where", (np.array([[True], [False]]), "2 C", "C"), torch.where, wrt=(1, 2)),
    case("Abs", MAP, torch.abs), case("Neg", MAP, torch.neg), case("Exp", MAP, torch.exp),
    case("Log", MAP, torch.log, positive=True), case("Sqrt", MAP, torch.sqrt, positive=True),
    case("Reciprocal", MAP, torch.reciprocal, positive=True), case("Sin", MAP, torch.sin),
    case("Cos", MAP, torch.cos), case("Atan", MAP, torch.atan),
    case("Identity", MAP, lambda x: x), case("Dropout", MAP, lambda x: x), case("Cast", MAP, lambda x: x, to=11),
    case("Affine", MAP, lambda x: x * f32(0.3) + 2, alpha=0.3, beta=2.0, opset=7),
    case("ImageScaler", "N 3 H W", lambda x: x * f32(0.3), scale_=0.3, bias=[0.0] * 3, opset=7),
]  # fmt: skip


REDUCTIONS = [
    case("ReduceSum", (MAP, ints(1, -1)), lambda x, a: x.sum((1, 3), keepdim=True)),
    case("ReduceSum", MAP, lambda x: x.sum((1, 3)), axes=[1, 3], keepdims=0, opset=11),
    case("ReduceSum", MAP, lambda x: x.sum().reshape(1, 1, 1, 1), note="all"),
    case("ReduceMean", (MAP, ints(2, 3)), lambda x, a: x.mean((2, 3)), keepdims=0),
    case("ReduceMean", MAP, lambda x: x.mean((2, 3), keepdim=True), axes=[-2, -1], opset=13),
    case("ReduceMax", (MAP, ints(2, 3)), lambda x, a: x.amax((2, 3)), keepdims=0),
    case("ReduceMin", MAP, lambda x: x.amin(1, keepdim=True), axes=[1], opset=11),
    case("ReduceL1", (MAP, ints(1)), lambda x, a: x.abs().sum(1, keepdim=True)),
    case("ReduceL2", (MAP, ints(1)), lambda x, a: x.norm(dim=1), keepdims=0),
    case("ReduceSumSquare", (MAP, ints(1)), lambda x, a: x.square().sum(1), keepdims=0),
    case("ReduceLogSum", (MAP, ints(1)), lambda x, a: x.sum(1).log(), keepdims=0, positive=True),
    case("ReduceLogSumExp", (MAP, ints(1, 2)), lambda x, a: x.logsumexp((1, 2)), keepdims=0),
    case("ReduceProd", (MAP, ints(1)), lambda x, a: x.prod(1), keepdims=0, positive=True),
    case("Softmax", "N L M", lambda x: x.softmax(1), axis=1),
    case("Softmax", "N L M", lambda x: x.flatten(1).softmax(1).reshape(x.shape), axis=1, opset=11,
         native=True),
    case("LogSoftmax", "N L M", lambda x: x.log_softmax(-1)),
    case("LogSoftmax", "N L M", lambda x: x.flatten(1).log_softmax(1).reshape(x.shape), axis=1, opset=11,
         native=True),
    case("LpNormalization", "N L M", lambda x: F.normalize(x, dim=1), axis=1),
    case("LpNormalization", "N L M", lambda x: F.normalize(x, p=1, dim=-1), p=1, note="p=1", native=True),
    case("CumSum", ("N L M", np.array(1)), lambda x, a: x.cumsum(1)),
    case("CumSum", ("N L M", np.array(1)), lambda x, a: x.flip(1).cumsum(1).flip(1) - x, reverse=1, exclusive=1,
         note="reverse"),
]  # fmt: skip
LINEAR = [
    case("MatMul", ("L K", "K M"), torch.matmul, wrt=(0, 1)),
    case("MatMul", ("N C L K", "C K M"), torch.matmul, wrt=(0, 1), note="batch"),
    case("MatMul", ("L K", "N K M"), torch.matmul, wrt=(0, 1), note="broadcast"),
    case("MatMul", ("K", "N K M"), torch.matmul, wrt=(0, 1), note="row"),
    case("MatMul", ("N L K", "K"), torch.matmul, wrt=(0, 1), note="column"),
    case("Gemm", ("L K", "K M", "M"), lambda a, b, c: a @ b + c, wrt=(0, 1, 2)),
    case("Gemm", ("L K", "M K", "M"), lambda a, b, c: 0.5 * a @ b.T + 2 * c, wrt=(0, 1, 2), transB=1, alpha=0.5,
         beta=2.0, note="transB"),
    case("Gemm", ("K L", "K M"), lambda a, b: a.T @ b, wrt=(0, 1), transA=1, note="transA"),
    case("Gemm", ("K L", "M K", "L 1"), lambda a, b, c: a.T @ b.T + c, wrt=(0, 1, 2), transA=1, transB=1, note="both"),
    case("Gemm", ("L K", "K M", "M"), lambda a, b, c: a @ b + c, wrt=(0, 1, 2), opset=9),
    case("Einsum", ("N C L K", "N C M K"), lambda a, b: torch.einsum("nclk,ncmk->nclm", a, b), wrt=(0, 1),
         equation="nclk, ncmk -> nclm"),
    case("Einsum", ("N L", "C"), lambda a, b: torch.einsum("nl,c->cn", a, b), wrt=(0, 1), equation="nl,c->cn",
         note="summed"),
]  # fmt: skip


def lrn(x: torch.Tensor, size: int) -> torch.Tensor:
    """As torch's local_response_norm, which divides alpha by the size as ONNX does."""
    return F.local_response_norm(x, size, f32(0.3), 0.75, 2.0)


NORMS = [
    case("BatchNormalization", (MAP, "C", "C", "C", "C"), lambda x, s, b, m, v: F.batch_norm(x, m, v, s, b),
         positive=True),
    case("InstanceNormalization", (MAP, "C", "C"), lambda x, s, b: F.instance_norm(x, weight=s, bias=b)),
    case("LayerNormalization", ("N L M", "M", "M"), lambda x, s, b: F.layer_norm(x, x.shape[2:], s, b)),
    case("LayerNormalization", ("N L M", "L M"), lambda x, s: F.layer_norm(x, x.shape[1:], s), axis=1, note="two axes"),
    case("GroupNormalization", ("N 4 H W", "4", "4"), lambda x, s, b: F.group_norm(x, 2, s, b), num_groups=2,
         opset=21, stash_type=1),
    case("GroupNormalization", ("N 4 H W", "2", "2"), lambda x, s, b: F.group_norm(x, 2, s.repeat_interleave(2),
         b.repeat_interleave(2)), num_groups=2, opset=18),
    case("RMSNormalization", ("N L M", "M"), lambda x, s: F.rms_norm(x, x.shape[2:], s, 1e-5), opset=23),
    case("LRN", "N 6 H W", lambda x: lrn(x, 3), size=3, alpha=0.3, bias=2.0),
    case("LRN", "N 6 H W", lambda x: lrn(x, 5), size=5, alpha=0.3, bias=2.0, note="wide"),
]  # fmt: skip


def take(index: Any) -> Callable[..., torch.Tensor]:
    return lambda x, *rest: x[index]


MOVES = [
    case("Reshape", ("2 6 N", ints(3, 4, -1)), lambda x, s: x.reshape(3, 4, -1)),
    case("Flatten", MAP, lambda x: x.flatten(2).flatten(0, 1), axis=2),
    case("Squeeze", ("N 1 M 1", ints(1, -1)), lambda x, a: x.squeeze(3).squeeze(1)),
    case("Squeeze", "N 1 M 1", lambda x: x.squeeze(3).squeeze(1), axes=[1, 3], opset=11),
    case("Unsqueeze", ("N M", ints(0, 2)), lambda x, a: x[None, :, None]),
    case("Transpose", MAP, lambda x: x.permute(2, 0, 3, 1), perm=[2, 0, 3, 1]),
    case("Transpose", MAP, lambda x: x.permute(3, 2, 1, 0), note="default"),
    case("Expand", ("N 1 M", ints(2, 1, 4, 1)), lambda x, s: x.expand(2, -1, 4, -1)),
    case("Tile", ("N M", ints(2, 3)), lambda x, r: x.repeat(2, 3)),
    case("Concat", ("N L", "N M"), lambda *xs: torch.cat(xs, 1), axis=1, wrt=(0, 1)),
    case("Concat", ("N L", "N M", "N 2"), lambda *xs: torch.cat(xs, -1), axis=-1, wrt=(1,), note="one"),
    case("Concat", ("N L", "N M"), lambda *xs: torch.cat(xs, 1), axis=1, wrt=(0, 1), opset=11),
    case("Split", ("N 5", ints(2, 3)), lambda x, s: x[:, 2:], axis=1, outputs=2),
    case("Split", "N 6", lambda x: x[:, 4:], axis=1, outputs=3, num_outputs=3, note="equal"),
    case("Split", "N 5", lambda x: x[:, 2:], axis=1, split=[2, 3], outputs=2, opset=11),
    case("Slice", (MAP, ints(1, -3), ints(2**62, -1), ints(2, 3)), take(np.s_[:, :, 1:, -3:-1])),
    case("Slice", (MAP, ints(0, 1), ints(9, 9), ints(2, 3), ints(2, 3)), take(np.s_[:, :, ::2, 1::3]), note="steps"),
    case("Slice", (MAP, ints(-1), ints(-99), ints(3), ints(-2)), lambda x, *r: x.flip(3)[..., ::2], note="backwards"),
    case("Slice", MAP, take(np.s_[:, :, 1:3]), starts=[1], ends=[3], axes=[2], opset=9),
    case("Pad", (MAP, ints(0, 0, 1, 2, 0, 0, 3, 0)), lambda x, p: F.pad(x, (2, 0, 1, 3))),
    case("Pad", (MAP, ints(0, 0, -1, 2, 0, 0, 3, -2)), lambda x, p: F.pad(x, (2, -2, -1, 3)), note="cut"),
    case("Pad", (MAP, ints(0, 0, 1, 2, 0, 0, 3, 0)), lambda x, p: F.pad(x, (2, 0, 1, 3), "reflect"), mode="reflect",
         note="reflect"),
    case("Pad", (MAP, ints(0, 0, 1, 2, 0, 0, 3, 0)), lambda x, p: F.pad(x, (2, 0, 1, 3), "replicate"), mode="edge",
         note="edge"),
    case("Pad", MAP, lambda x: F.pad(x, (2, 0, 1, 3), "reflect"), mode="reflect", pads=[0, 0, 1, 2, 0, 0, 3, 0],
         opset=7),
    case("Crop", MAP, take(np.s_[:, :, 2:-1, 1:-1]), border=[1, 2, 1, 1], opset=7),
    case("Gather", (MAP, np.array(1)), take(np.s_[:, :, 1]), axis=2),
    case("Gather", (MAP, np.array([[2, 0, 2], [-1, 2, 1]])), take((slice(None), slice(None), np.array([[2, 0, 2],
         [-1, 2, 1]]))), axis=2, note="repeated"),
    case("GatherElements", ("4 3", np.array([[0, 3, 3], [0, 1, -1]])), lambda x, i: x.gather(0, i % 4)),
    case("ScatterND", ("4 N", np.array([[2], [0]]), "2 N"), lambda x, i, u: x.index_copy(0, i[:, 0], u), wrt=(0, 2)),
    case("DepthToSpace", "N 8 H W", lambda x: F.pixel_shuffle(x, 2), blocksize=2, mode="CRD"),
    case("DepthToSpace", "N 8 H W", lambda x: F.pixel_shuffle(x.reshape(len(x), 4, 2, *x.shape[2:]).transpose(1, 2)
         .flatten(1, 2), 2), blocksize=2, note="DCR"),
    case("SpaceToDepth", "N C 4 6", lambda x: F.pixel_unshuffle(x, 2).reshape(len(x), -1, 4, 2, 3).transpose(1, 2)
         .flatten(1, 2), blocksize=2),
]  # fmt: skip

CASES = [*ACTIVATIONS, *ELEMENTWISE, *CONVOLUTIONS, *POOLINGS, *REDUCTIONS, *LINEAR, *NORMS, *MOVES, *RESIZES]
