"""What a SavedModel may compute: operators of networks, and nothing that touches files, network, devices or Python.

A SavedModel is a program of TensorFlow operators. ReadFile, WriteFile, PyFunc and some hundred others do what an image
classifier has no business doing; more come with each release. So this is a list of what is allowed. It is held
against the functions that are run, the signature and all that it calls: what training and saving need stays unused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporters.weights_file import TRUST
from runtime.errors import InvalidWeights

ALLOWED = frozenset(
    # calls and plumbing
    "Assert Const Identity IdentityN NoOp PartitionedCall Placeholder PreventGradient ReadVariableOp Snapshot "
    "StatefulPartitionedCall StopGradient "
    # arithmetic, one number at a time
    "Abs Add AddN AddV2 BiasAdd Cast Ceil ClipByValue Cos Div DivNoNan Equal Erf Erfc Exp Expm1 Floor FloorDiv "
    "FloorMod Greater GreaterEqual Inv IsFinite IsInf IsNan Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr "
    "Maximum Minimum Mod Mul MulNoNan Neg NotEqual Pow RealDiv Reciprocal Round Rsqrt Select SelectV2 Sigmoid Sign Sin "
    "Softplus Softsign Sqrt Square SquaredDifference Sub Tanh TruncateDiv Xdivy "
    # activations
    "Elu LeakyRelu LogSoftmax Relu Relu6 Selu Softmax "
    # sums and reductions
    "All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BatchMatMulV3 Cumsum Einsum L2Loss MatMul Max Mean Min Prod Sum "
    "TopKV2 "
    # convolutions, pooling, normalization, pictures
    "AvgPool BatchToSpaceND Conv2D Conv2DBackpropInput DepthToSpace DepthwiseConv2dNative Dilation2D FusedBatchNorm "
    "FusedBatchNormV2 FusedBatchNormV3 LRN MaxPool MaxPoolV2 ResizeArea ResizeBicubic ResizeBilinear "
    "ResizeNearestNeighbor ScaleAndTranslate SpaceToBatchND SpaceToDepth CropAndResize "
    # shapes
    "BroadcastArgs BroadcastTo Concat ConcatV2 EnsureShape ExpandDims Fill Gather GatherNd GatherV2 InvertPermutation "
    "MirrorPad OneHot OnesLike Pack Pad PadV2 Range Rank Reshape Reverse ReverseV2 Shape ShapeN Size Slice Split "
    "SplitV Squeeze StridedSlice Tile Transpose Unpack Where ZerosLike".split()
)

_OBJECTS = frozenset(
    (None, "user_object", "variable", "function", "bare_concrete_function", "constant", "captured_tensor")
)
"""Kinds of objects whose loading runs nothing. A table is a "resource", whose loading runs its initializer."""


def check(meta_graph: Any, *, where: str) -> None:
    """Check what loading and running a SavedModel's signatures would execute.

    meta_graph: a MetaGraphDef as parsed from saved_model.pb.
    Raises InvalidWeights naming the operator or object that is not allowed.
    """
    objects = meta_graph.object_graph_def.nodes
    for item in objects:
        kind = item.WhichOneof("kind")
        if kind not in _OBJECTS or item.saveable_objects or item.registered_saver:
            what = f"a {kind}" if kind not in _OBJECTS else f"a {kind} with a loader of its own"
            raise InvalidWeights(f"{where}: refused, it holds {what}: an image classifier has none; {TRUST}")
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    for name in sorted(_reached(set(_signatures(objects)), functions)):
        for node in functions[name].node_def:
            if node.op not in ALLOWED:
                raise InvalidWeights(
                    f"{where}: refused, its operator {node.op} ({node.name}) is not one of a network: {TRUST}"
                )


def _signatures(objects: Any) -> Iterator[str]:
    """The names of the functions that the root's signatures are."""
    for child in objects[0].children if len(objects) else ():
        if child.local_name != "signatures":
            continue
        for entry in objects[child.node_id].children:
            item = objects[entry.node_id]
            yield item.bare_concrete_function.concrete_function_name
            yield from item.function.concrete_functions


def _reached(names: set[str], functions: dict[str, Any]) -> set[str]:
    """These functions and all that their nodes name, through however many calls."""
    reached: set[str] = set()
    waiting = names & set(functions)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        for node in functions[name].node_def:
            named = {value.func.name for value in node.attr.values() if value.HasField("func")}
            named |= {function.name for value in node.attr.values() for function in value.list.func} | {node.op}
            waiting |= (named & set(functions)) - reached
    return reached
