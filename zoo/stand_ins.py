"""What takes the place of an operator at which onnx's shape inference stops, or goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto

Shape = tuple[int, ...]

STANDARD, MICROSOFT = "", "com.microsoft"

# (domain, operator) -> the ONNX operator that makes the same shape, and which of the inputs it takes.
# To let the inference pass an operator, add a row.
STAND_INS: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {
    (MICROSOFT, "FusedConv"): ("Conv", (0, 1)),
    (MICROSOFT, "FusedGemm"): ("Gemm", (0, 1)),
    (MICROSOFT, "FusedMatMul"): ("MatMul", (0, 1)),
    (MICROSOFT, "QGemm"): ("Gemm", (0, 3)),
    (MICROSOFT, "MatMulIntegerToFloat"): ("MatMul", (0, 1)),
    (MICROSOFT, "DynamicQuantizeMatMul"): ("MatMul", (0, 1)),
    (MICROSOFT, "QLinearConv"): ("QLinearConv", (0, 1, 2, 3, 4, 5, 6, 7)),
    (MICROSOFT, "QLinearAdd"): ("Add", (0, 3)),
    (MICROSOFT, "QLinearMul"): ("Mul", (0, 3)),
    (MICROSOFT, "QLinearWhere"): ("Where", (0, 1, 4)),
    (MICROSOFT, "QLinearAveragePool"): ("AveragePool", (0,)),
    (MICROSOFT, "QLinearGlobalAveragePool"): ("GlobalAveragePool", (0,)),
    (MICROSOFT, "QLinearSigmoid"): ("Identity", (0,)),
    (MICROSOFT, "QLinearLeakyRelu"): ("Identity", (0,)),
    (MICROSOFT, "QLinearSoftmax"): ("Identity", (0,)),
    (MICROSOFT, "QuantizeLinear"): ("QuantizeLinear", (0, 1, 2)),
    (MICROSOFT, "DequantizeLinear"): ("DequantizeLinear", (0, 1, 2)),
    (MICROSOFT, "Gelu"): ("Identity", (0,)),
    (MICROSOFT, "FastGelu"): ("Identity", (0,)),
    (MICROSOFT, "BiasGelu"): ("Add", (0, 1)),
    (MICROSOFT, "SkipLayerNormalization"): ("Add", (0, 1)),
    (MICROSOFT, "QuickGelu"): ("Identity", (0,)),
    # Experimental operators of ONNX 1.0 to 1.2, which onnxruntime still runs.
    (STANDARD, "ImageScaler"): ("Identity", (0,)),
    (STANDARD, "Affine"): ("Identity", (0,)),
    (STANDARD, "ScaledTanh"): ("Identity", (0,)),
    (STANDARD, "ParametricSoftplus"): ("Identity", (0,)),
}


def attributes(node: NodeProto) -> dict[str, AttributeProto]:
    """A node's attributes by name."""
    return {attribute.name: attribute for attribute in node.attribute}


def stand_in(node: NodeProto, opset: int) -> None:
    """Turn a node that the inference does not know into one of the same shape, where there is one."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    given = attributes(node)
    if domain == STANDARD and node.op_type == "Crop" and opset < 11 and "scale" not in given and "border" in given:
        left, top, right, bottom = given["border"].ints
        become(node, "Pad", (0,), pads=[0, 0, -top, -left, 0, 0, -bottom, -right])
    elif domain == MICROSOFT and node.op_type == "QLinearConcat":
        become(node, "Concat", tuple(range(2, len(node.input), 3)))
    elif domain == MICROSOFT and node.op_type == "FusedMatMul" and ("transA" in given or "transB" in given):
        flags = [given[name].i if name in given else 0 for name in ("transA", "transB", "transBatchA", "transBatchB")]
        if not any(flags[2:]):
            equation = f"...{'ji' if flags[0] else 'ij'},...{'kj' if flags[1] else 'jk'}->...ik"
            become(node, "Einsum", (0, 1), equation=equation)
    elif (domain, node.op_type) in STAND_INS and not ("channels_last" in given and given["channels_last"].i):
        operator, inputs = STAND_INS[domain, node.op_type]
        become(node, operator, inputs)


def become(node: NodeProto, operator: str, inputs: tuple[int, ...], **values: Any) -> None:
    """Make a node another operator, of these of its inputs; its attributes stay unless new ones are given."""
    from onnx import helper

    kept = [node.input[index] for index in inputs if index < len(node.input)]
    del node.input[:]
    node.input.extend(kept)
    node.op_type, node.domain = operator, ""
    if values:
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


def settle_pools(graph: GraphProto, shapes: dict[str, Shape]) -> bool:
    """Up to opset 21 onnx's inference lets a ceil_mode pool begin a window in the padding, which no engine does.

    Along such an axis the size is the one without ceil_mode. Mends every such pool; whether there was one.
    """
    from onnx import helper

    changed = False
    for node in graph.node:
        given = attributes(node)
        source, made = shapes.get(node.input[0] if node.input else ""), shapes.get(node.output[0])
        if node.op_type not in ("MaxPool", "AveragePool") or "ceil_mode" not in given or not given["ceil_mode"].i:
            continue
        if source is None or made is None or ("auto_pad" in given and given["auto_pad"].s != b"NOTSET"):
            continue
        rank = len(source) - 2
        strides = list(given["strides"].ints) if "strides" in given else [1] * rank
        pads = list(given["pads"].ints) if "pads" in given else [0] * 2 * rank
        empty = [(made[a + 2] - 1) * strides[a] >= source[a + 2] + pads[a] for a in range(rank)]
        if any(empty):
            changed = True
            # Rounding down with stride - 1 more at the end is rounding up.
            ends = [pad if dry else pad + step - 1 for pad, step, dry in zip(pads[rank:], strides, empty, strict=True)]
            values = {"kernel_shape": list(given["kernel_shape"].ints), "strides": strides, "pads": pads[:rank] + ends}
            if "dilations" in given:
                values["dilations"] = list(given["dilations"].ints)
            del node.attribute[:]
            node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    return changed
