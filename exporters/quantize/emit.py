"""A scheme written out: QuantizeLinear and DequantizeLinear around every chosen node, as onnxruntime fuses them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporters.quantize.grids import Grid, around_zero, spanning, weight_grid, with_room_for
from exporters.quantize.network import Array, Network
from exporters.quantize.scheme import MOVES, Scheme


@dataclass(frozen=True, slots=True)
class Rounded:
    """A node's weights as they are stored: integers (outputs, rest), their scales (outputs,)."""

    integers: Array
    scales: Array
    shape: tuple[int, ...]

    def matrix(self) -> Array:
        """What the node really multiplies with, as ``Network.matrix`` gives it."""
        product: Array = self.integers * self.scales[:, None].astype(np.float64)
        return product.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Quantized:
    """proto: the QDQ model. weights: of each weighted integer node."""

    proto: Any
    weights: dict[str, Rounded]


def dequantized(tensor: str) -> str:
    """The name under which a quantized tensor can be read as float."""
    return f"{tensor}::dequantized"


def unrounded(output: str) -> str:
    """The name of what an output of the network is before it is rounded, where it is."""
    return f"{output}::unrounded"


def by_channel(tensor: str) -> str:
    """The name of the same where the scale is given once for every channel."""
    return f"{dequantized(tensor)}::channels"


def emit(network: Network, scheme: Scheme, mended: dict[str, Array] | None = None) -> Quantized:
    """The model in QDQ form, with the network's input and output. mended: gains and shifts, see ``corrections``."""
    import onnx
    from onnx import numpy_helper

    writer = _Writer(network, scheme, mended or {})
    dropped = set(scheme.absorbed.values())
    for node in network.nodes:
        if node.output[0] in dropped:
            continue
        (writer.integer if node.output[0] in scheme.chosen else writer.float)(node)
    whole = network.template
    for name in network.outputs:
        if name in writer.integers:
            writer.give_rounded(name)
    graph = onnx.helper.make_graph(
        writer.nodes,
        whole.graph.name,
        list(whole.graph.input),
        list(whole.graph.output),
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in writer.constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)
    return Quantized(model, writer.weights)


@dataclass(slots=True)
class _Writer:
    network: Network
    scheme: Scheme
    mended: dict[str, Array]
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    integers: dict[str, str] = field(default_factory=dict)  # tensor -> its integers
    floats: dict[str, str] = field(default_factory=dict)  # tensor -> it in float
    weights: dict[str, Rounded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.floats[self.network.input] = self.network.input

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, array: Any) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def grid(self, tensor: str, grid: Grid) -> list[str]:
        grid = grid.signed() if self.scheme.style.signed else grid
        scale = self.constant(f"{tensor}::scale", np.float32(grid.scale))
        return [scale, self.constant(f"{tensor}::zero", grid.dtype(grid.zero_point))]

    def quantize(self, tensor: str) -> str:
        """The integers of a tensor; made where it is float."""
        if tensor not in self.integers:
            grid = self.grid(tensor, self.scheme.grids[tensor])
            self.integers[tensor] = self.add("QuantizeLinear", [self.floats[tensor], *grid], f"{tensor}::quantized")
        return self.integers[tensor]

    def read(self, tensor: str) -> str:
        """A quantized tensor, as float."""
        name = dequantized(tensor)
        if name not in self.floats:
            grid = self.grid(tensor, self.scheme.grids[tensor])
            self.floats[name] = self.add("DequantizeLinear", [self.quantize(tensor), *grid], name)
        return name

    def give_rounded(self, output: str) -> None:
        """Let an output of the network be what its integers say."""
        from onnx import helper

        for node in self.nodes:  # the one that makes the float, and the one that rounds it
            node.input[:] = [unrounded(name) if name == output else name for name in node.input]
            node.output[:] = [unrounded(name) if name == output else name for name in node.output]
        self.nodes.append(helper.make_node("Identity", [self.read(output)], [output], name=f"{output}::given"))

    def read_by_channel(self, tensor: str, channels: int) -> str:
        """As ``read``, with the scale once for every channel.

        onnxruntime rounds the weights of a float layer that stands between two quantized tensors, all outputs on one
        scale, which is worse than anything done here (weight_bias_quantization.cc); not where scales are per channel.
        """
        name = by_channel(tensor)
        if name not in self.floats:
            scale, zero = (self.constants[made] for made in self.grid(tensor, self.scheme.grids[tensor]))
            grid = [self.constant(f"{name}::scale", np.full(channels, scale))]
            grid.append(self.constant(f"{name}::zero", np.full(channels, zero)))
            self.floats[name] = self.add("DequantizeLinear", [self.quantize(tensor), *grid], name, axis=1)
        return name

    def float(self, node: Any) -> None:
        """A node as it is, on what its inputs are in float."""
        kept, output = copy.deepcopy(node), node.output[0]
        if output in self.mended:
            gain, shift = self.mended[output]
            matrix, bias = self.network.matrix(node), self.network.weights[node.input[2]]
            scaled = self.network.stored(node, matrix * gain.reshape(*matrix.shape[:2], 1, 1))
            kept.input[1] = self.constant(f"{output}::weight", scaled)
            kept.input[2] = self.constant(f"{output}::bias", (gain * bias + shift).astype(np.float32))
        for index, name in enumerate(kept.input):
            if name in self.constants:
                continue
            if name in self.network.weights:
                self.constant(name, self.network.weights[name])
            elif name in self.floats:
                kept.input[index] = name
            elif name and self.network.weighted(node):
                groups, _, inputs, _ = self.network.matrix(node).shape
                kept.input[index] = self.read_by_channel(name, groups * inputs)
            elif name:
                kept.input[index] = self.read(name)
        self.nodes.append(kept)
        self.floats |= {name: name for name in node.output}

    def integer(self, node: Any) -> None:
        """A node between DequantizeLinear and QuantizeLinear, in the form that becomes one integer kernel."""
        result, given = self.scheme.result(node), node.input[0]
        alone = node.op_type in ("HardSigmoid", "HardSwish") and self.network.only_reader(given) is not None
        if alone and node.op_type == "HardSigmoid" and self.scheme.grids[result].zero_point == 0:
            self.integers[result] = self.quantize(given)  # read with another scale
            return
        kept = copy.deepcopy(node)
        if alone and node.op_type == "HardSwish":
            kept = self._hard_swish(node)
        elif self.network.weighted(node):
            kept.input[:] = [self.read(given), *self._weights(node)]
        elif node.op_type in MOVES - {"Concat"}:
            rest = [self.constant(name, self.network.weights[name]) if name else name for name in node.input[1:]]
            kept.input[:] = [self.read(given), *rest]
        else:
            kept.input[:] = [self._operand(node, name) for name in node.input]
        if result == node.output[0] or not self.scheme.style.symmetric:
            kept.output[0] = result
            self.nodes.append(kept)
        else:  # the rectifier stands between the node and its grid
            self.nodes.append(kept)
            self.floats |= {node.output[0]: node.output[0]}
            self.float(next(iter(self.network.readers(node.output[0]))))
        self.floats[result] = result
        if result in self.scheme.grids:
            self.quantize(result)
            del self.floats[result]  # readers in float take what the integers say

    def _operand(self, node: Any, name: str) -> str:
        if not name or name not in self.network.weights:
            return self.read(name) if name else name
        array = self.network.weights[name]
        low, high = float(array.min()), float(array.max())
        grid = around_zero(max(-low, high)) if self.scheme.style.symmetric else spanning(low, high)
        grid = grid.signed() if self.scheme.style.signed else grid
        stored = self.constant(f"{name}::quantized", grid.integers(array))
        key = dequantized(name)
        if not any(made.output[0] == key for made in self.nodes):
            self.add("DequantizeLinear", [stored, *self.grid(name, grid)], key)
        return key

    def _weights(self, node: Any) -> list[str]:
        """Weights as int8 and bias as int32, dequantized: what the integer convolution is recognised by."""
        network, output, bits = self.network, node.output[0], self.scheme.style.weight_bits
        gain, shift = self.mended.get(output, (1.0, 0.0))
        bias = gain * network.weights[node.input[2]].astype(np.float64) + shift
        scale = self.scheme.grids[node.input[0]].scale
        if output not in network.rounded:  # what takes the time in a large network; it does not depend on the scheme
            matrix = network.matrix(node)
            network.rounded[output] = weight_grid(matrix.reshape(len(bias), -1), bits=bits), matrix.shape
        grid, parts = network.rounded[output]
        integers, scales = grid
        if not self.scheme.style.symmetric:  # there the bias is float
            integers, scales = with_room_for(bias, grid, lambda: network.matrix(node), scale, bits=bits)
        scales = (scales * gain).astype(np.float32)
        self.weights[output] = Rounded(integers, scales, parts)
        axis, shape = self.network.output_axis(node), self.network.weights[node.input[1]].shape
        stored = integers.reshape(shape[::-1]).T if axis else integers.reshape(shape)
        weight = self._stored(f"{output}::weight", stored, scales, axis)
        if self.scheme.style.symmetric:
            return [weight, self.constant(f"{output}::bias", bias.astype(np.float32))]
        steps = (np.float32(scale) * scales).astype(np.float32)
        return [weight, self._stored(f"{output}::bias", np.round(bias / steps).astype(np.int32), steps, 0)]

    def _stored(self, name: str, integers: Array, scales: Array, axis: int) -> str:
        zeros = self.constant(f"{name}::zero", np.zeros(len(scales), integers.dtype))
        inputs = [self.constant(name, integers), self.constant(f"{name}::scale", scales), zeros]
        return self.add("DequantizeLinear", inputs, dequantized(name), axis=axis)

    def _hard_swish(self, node: Any) -> Any:
        """x * clip(x + 3, 0, 6) / 6 on integers: Clip costs a tenth of what a table look-up does.

        The grid of x begins at -3, where both become 0; its integers, cut off at 3 and read with a sixth of the scale
        from another zero point, are the second factor.
        """
        from onnx import helper

        given, result = node.input[0], node.output[0]
        integers, grid = self.quantize(given), self.scheme.grids[given]
        least = -128 if self.scheme.style.signed else 0
        top = grid.zero_point + round(3 / grid.scale)
        if top < 255:
            end = self.constant(f"{result}::top", (np.int8 if self.scheme.style.signed else np.uint8)(top + least))
            integers = self.add("Clip", [integers, "", end], f"{result}::gate")
        gate = Grid(grid.scale / 6, grid.zero_point - round(3 / grid.scale))
        read = self.add(
            "DequantizeLinear", [integers, *self.grid(f"{result}::gate", gate)], dequantized(f"{result}::gate")
        )
        return helper.make_node("Mul", [self.read(given), read], [result], name=node.name)
