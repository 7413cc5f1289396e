"""How many multiply-accumulates a node costs: one row per operator that multiplies matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from runtime.errors import InvalidInput
from zoo.stand_ins import MICROSOFT, STAND_INS, STANDARD, Shape, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

Shapes = Mapping[str, Shape]
Rule = Literal["convolution", "transposed", "gemm", "matmul", "einsum", "attention"]


@dataclass(frozen=True, slots=True)
class Product:
    """An operator that multiplies: its rule, and which of its inputs the two factors are."""

    rule: Rule
    left: int = 0
    right: int = 1


# To have an operator counted, add a row.
PRODUCTS: dict[tuple[str, str], Product] = {
    (STANDARD, "Conv"): Product("convolution"),
    (STANDARD, "ConvInteger"): Product("convolution"),
    (STANDARD, "QLinearConv"): Product("convolution", 0, 3),
    (MICROSOFT, "QLinearConv"): Product("convolution", 0, 3),
    (MICROSOFT, "FusedConv"): Product("convolution"),
    (STANDARD, "ConvTranspose"): Product("transposed"),
    (STANDARD, "Gemm"): Product("gemm"),
    (MICROSOFT, "FusedGemm"): Product("gemm"),
    (MICROSOFT, "QGemm"): Product("gemm", 0, 3),
    (STANDARD, "MatMul"): Product("matmul"),
    (STANDARD, "MatMulInteger"): Product("matmul"),
    (STANDARD, "QLinearMatMul"): Product("matmul", 0, 3),
    (MICROSOFT, "FusedMatMul"): Product("matmul"),
    (MICROSOFT, "MatMulIntegerToFloat"): Product("matmul"),
    (MICROSOFT, "DynamicQuantizeMatMul"): Product("matmul"),
    (STANDARD, "Einsum"): Product("einsum"),
    (STANDARD, "Attention"): Product("attention"),
}

# They multiply matrices and have no rule: their cost is unknown. All else in ONNX works element by element.
UNCOUNTED = frozenset(
    "RNN LSTM GRU DeformConv DFT STFT LinearAttention CausalConvWithState Scan Loop If SequenceMap".split()
)

# Operators of onnxruntime's own that multiply no matrices, beside those that have a stand-in.
LIGHT = frozenset("QLinearConcat QLinearReduceMean BiasSoftmax NhwcMaxPool".split())


@dataclass(frozen=True, slots=True)
class Convolution:
    """The geometry of a convolution; ``weight`` is (channels out, channels in / groups, *kernel)."""

    weight: Shape
    groups: int
    strides: Shape
    dilations: Shape
    padded: bool

    @property
    def kernel(self) -> Shape:
        """Lengths of the kernel's axes."""
        return self.weight[2:]

    @property
    def depthwise(self) -> bool:
        """A group, and so a filter of its own, for every one of several input channels."""
        return self.groups > 1 and self.weight[1] == 1

    @property
    def pointwise(self) -> bool:
        """All channels at one place."""
        return self.groups == 1 and prod(self.kernel) == 1


def product_of(node: NodeProto) -> Product | None:
    """The row of a node; None for an operator that multiplies no matrices, or has no rule."""
    return PRODUCTS.get((domain_of(node), node.op_type))


def domain_of(node: NodeProto) -> str:
    """The operator's domain, ONNX's own under one of its two names."""
    return STANDARD if node.domain == "ai.onnx" else node.domain


def convolution_of(node: NodeProto, shapes: Shapes) -> Convolution | None:
    """The geometry of a convolution, plain or transposed; None for other nodes and for weights of unknown shape."""
    product = product_of(node)
    if product is None or product.rule not in ("convolution", "transposed"):
        return None
    weight = shapes.get(node.input[product.right])
    if weight is None or len(weight) < 3:
        return None
    given = attributes(node)
    ones = (1,) * (len(weight) - 2)
    padding = given["auto_pad"].s not in (b"NOTSET", b"VALID") if "auto_pad" in given else False
    return Convolution(
        weight=weight,
        groups=given["group"].i if "group" in given else 1,
        strides=tuple(given["strides"].ints) if "strides" in given else ones,
        dilations=tuple(given["dilations"].ints) if "dilations" in given else ones,
        padded=padding or ("pads" in given and any(given["pads"].ints)),
    )


def macs_of(node: NodeProto, shapes: Shapes) -> int | None:
    """Multiply-accumulates of one run of a node; None where a shape is unknown or the operator has no rule.

    Raises InvalidInput where the factors do not fit: the input has a size that the network does not take.
    """
    product = product_of(node)
    if product is None:
        return 0 if _is_light(node) else None
    left, right, made = (
        shapes.get(name) for name in (node.input[product.left], node.input[product.right], node.output[0])
    )
    return _RULES[product.rule](node, left, right, made, shapes)


# ---- the rules: node, shapes of the two factors and of the output, all shapes -> multiply-accumulates

_Rule = Callable[["NodeProto", Shape | None, Shape | None, Shape | None, Shapes], int | None]


def _convolution(
    node: NodeProto, left: Shape | None, right: Shape | None, made: Shape | None, shapes: Shapes
) -> int | None:
    """Every output number is a sum over one filter."""
    return None if made is None or not right else prod(made) * prod(right[1:])


def _transposed(
    node: NodeProto, left: Shape | None, right: Shape | None, made: Shape | None, shapes: Shapes
) -> int | None:
    """Every input number is spread over one filter. right: (channels in, channels out / groups, *kernel)."""
    return None if left is None or not right else prod(left) * prod(right[1:])


def _gemm(node: NodeProto, left: Shape | None, right: Shape | None, made: Shape | None, shapes: Shapes) -> int | None:
    given = attributes(node)
    swapped = [name in given and given[name].i != 0 for name in ("transA", "transB")]
    return _sum_over(node, made, left and left[0 if swapped[0] else -1], right and right[-1 if swapped[1] else 0])


def _matmul(node: NodeProto, left: Shape | None, right: Shape | None, made: Shape | None, shapes: Shapes) -> int | None:
    given = attributes(node)
    if any(name in given and given[name].i for name in ("transBatchA", "transBatchB")):
        return None
    swapped = [name in given and given[name].i != 0 for name in ("transA", "transB")]
    rows = right and right[-1 if swapped[1] or len(right) == 1 else -2]
    return _sum_over(node, made, left and left[-2 if swapped[0] and len(left) > 1 else -1], rows)


def _einsum(node: NodeProto, left: Shape | None, right: Shape | None, made: Shape | None, shapes: Shapes) -> int | None:
    """Two operands without an ellipsis; the product of all index lengths, if any index is summed over."""
    terms, arrow, result = attributes(node)["equation"].s.decode().replace(" ", "").partition("->")
    operands = [shapes.get(name) for name in node.input]
    names = terms.split(",")
    if len(operands) == 1:
        return 0
    if len(operands) != 2 or "." in terms or not arrow or None in operands:
        return None
    lengths = {
        name: length
        for term, shape in zip(names, operands, strict=True)
        for name, length in zip(term, shape or (), strict=True)
    }
    return prod(lengths.values()) if set(lengths) - set(result) else 0


def _attention(
    node: NodeProto, query: Shape | None, key: Shape | None, made: Shape | None, shapes: Shapes
) -> int | None:
    """Queries times keys, and the result times values, without a mask's savings; with a cache it is unknown."""
    value = shapes.get(node.input[2])
    if query is None or key is None or value is None or any(node.input[4:6]):
        return None
    if len(query) == 4:  # (batch, heads, length, dimensions)
        return query[0] * query[1] * query[2] * key[2] * (query[3] + value[3])
    given = attributes(node)  # (batch, length, heads * dimensions)
    heads, groups = given["q_num_heads"].i, given["kv_num_heads"].i
    return int(query[0] * query[1] * key[1] * (query[2] + heads * (value[2] // groups)))


_RULES: dict[Rule, _Rule] = {
    "convolution": _convolution,
    "transposed": _transposed,
    "gemm": _gemm,
    "matmul": _matmul,
    "einsum": _einsum,
    "attention": _attention,
}


# ---- helpers


def _sum_over(node: NodeProto, made: Shape | None, left: int | Shape | None, right: int | Shape | None) -> int | None:
    """Every output number is a sum over the axis that both factors share."""
    lengths = {length for length in (left, right) if isinstance(length, int)}
    if len(lengths) == 2:
        raise InvalidInput(
            f"layer {node.name or node.output[0]} takes {right} numbers and would get {left}: "
            "the network does not take inputs of this size"
        )
    return None if made is None or not lengths else prod(made) * lengths.pop()


def _is_light(node: NodeProto) -> bool:
    from onnx import defs

    domain = domain_of(node)
    if (domain, node.op_type) in STAND_INS or (domain == MICROSOFT and node.op_type in LIGHT):
        return True
    known = domain == STANDARD and (defs.has(node.op_type) or node.op_type == "Crop")
    return known and node.op_type not in UNCOUNTED
