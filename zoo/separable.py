"""What depthwise-separable convolutions save: each beside the standard convolution that it stands for.

A K x K convolution from M to N channels costs K*K*M*N products at every place. Split into a depthwise K x K
convolution and a pointwise one it costs K*K*M + M*N, which is 1/N + 1/K^2 of that (Howard et al. 2017, MobileNets,
section 3.1). With a channel multiplier m the pair costs m times as much.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from zoo.macs import Convolution, Shapes, convolution_of, domain_of, product_of
from zoo.stand_ins import MICROSOFT, STANDARD, Shape

if TYPE_CHECKING:
    from onnx import NodeProto

# What may stand between the two: it works on each number by itself, or on each channel with stored numbers.
_BETWEEN = frozenset(
    "Relu Clip LeakyRelu PRelu Elu Selu Celu ThresholdedRelu HardSwish HardSigmoid Sigmoid Tanh Softplus Softsign Mish "
    "Gelu Swish Erf Exp Log Sqrt Neg Abs Reciprocal Add Sub Mul Div Pow Min Max Sum BatchNormalization "
    "InstanceNormalization GroupNormalization Identity Dropout Cast QuantizeLinear DequantizeLinear "
    "QLinearSigmoid QLinearLeakyRelu QLinearAdd QLinearMul QuickGelu FastGelu ImageScaler Affine".split()
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A depthwise convolution and the pointwise one behind it, without biases.

    depthwise, pointwise: names of the layers. kernel: of the depthwise one. multiplier: its outputs per input channel.
    macs, standard_macs: None where the output's shape is unknown.
    ratio: parameters / standard_parameters, which is the ratio of the MACs too: multiplier * (1/N + 1/K^2).
    """

    depthwise: str
    pointwise: str
    kernel: Shape
    strides: Shape
    channels_in: int
    multiplier: int
    channels_out: int
    parameters: int
    standard_parameters: int
    macs: int | None
    standard_macs: int | None
    ratio: float


@dataclass(frozen=True, slots=True)
class Separable:
    """All pairs of a network, and what they cost together.

    alone: depthwise convolutions that no pointwise one follows, activations and normalisation apart: a squeeze and
        excitation between them, for one, depends on the whole picture, and no single convolution can stand for that.
    network_macs, standard_network_macs: of the whole network as it is, and with a standard convolution for each pair;
        None where either is unknown.
    """

    pairs: tuple[Pair, ...]
    alone: int
    parameters: int
    standard_parameters: int
    macs: int | None
    standard_macs: int | None
    network_macs: int | None
    standard_network_macs: int | None


def compare(
    nodes: Iterable[NodeProto], shapes: Shapes, constants: Collection[str], network_macs: int | None
) -> Separable | None:
    """Find the pairs of a graph; None where it has no depthwise convolution.

    nodes: in the order they run. constants: names of the values that do not depend on the input.
    network_macs: of the whole network, None where unknown.
    """
    origins: dict[str, tuple[NodeProto, Convolution]] = {}  # value -> the depthwise convolution it is a function of
    paired: dict[str, Pair] = {}
    depthwise = 0
    for node in nodes:
        product, convolution = product_of(node), convolution_of(node, shapes)
        if product is not None and product.rule == "convolution" and convolution is not None:
            if convolution.depthwise:
                depthwise += 1
                origins[node.output[0]] = node, convolution
            elif (origin := origins.get(node.input[product.left])) and _is_plain_pointwise(convolution):
                first, wide = origin
                paired.setdefault(first.output[0], _pair(first, wide, node, convolution, shapes))
        elif node.op_type in _BETWEEN and domain_of(node) in (STANDARD, MICROSOFT):
            sources = [origins.get(name) for name in node.input if name and name not in constants]
            if sources and sources[0] is not None and all(source is sources[0] for source in sources):
                origins[node.output[0]] = sources[0]
    return _total(tuple(paired.values()), depthwise, network_macs) if depthwise else None


def _is_plain_pointwise(convolution: Convolution) -> bool:
    """One output per input place: the stride is the depthwise convolution's business."""
    return convolution.pointwise and not convolution.padded and set(convolution.strides) == {1}


def _pair(first: NodeProto, wide: Convolution, second: NodeProto, point: Convolution, shapes: Shapes) -> Pair:
    inputs, outputs = wide.groups, point.weight[0]
    parameters = prod(wide.weight) + prod(point.weight)
    standard = prod(wide.kernel) * inputs * outputs
    made = shapes.get(second.output[0])
    places = None if made is None else prod(made) // outputs
    return Pair(
        depthwise=first.name or first.output[0],
        pointwise=second.name or second.output[0],
        kernel=wide.kernel,
        strides=wide.strides,
        channels_in=inputs,
        multiplier=wide.weight[0] // inputs,
        channels_out=outputs,
        parameters=parameters,
        standard_parameters=standard,
        macs=None if places is None else places * parameters,
        standard_macs=None if places is None else places * standard,
        ratio=parameters / standard,
    )


def _total(pairs: tuple[Pair, ...], depthwise: int, network: int | None) -> Separable:
    macs, standard = _sum(pair.macs for pair in pairs), _sum(pair.standard_macs for pair in pairs)
    return Separable(
        pairs=pairs,
        alone=depthwise - len(pairs),
        parameters=sum(pair.parameters for pair in pairs),
        standard_parameters=sum(pair.standard_parameters for pair in pairs),
        macs=macs,
        standard_macs=standard,
        network_macs=network,
        standard_network_macs=None if None in (network, macs, standard) else network - macs + standard,  # type: ignore[operator]
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)
