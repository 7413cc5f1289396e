"""A float network as the quantizer sees it: who makes a tensor, who reads it, and which weights belong where."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WEIGHTED = ("Conv", "Gemm")
"""Operators whose second input is a weight of (outputs, inputs, ...) and whose third is a bias."""


def add_biases(proto: Any) -> None:
    """Give every convolution with constant weights and no bias one of zeros: a layer like any other then."""
    from onnx import numpy_helper

    sizes = {item.name: item.dims[0] for item in proto.graph.initializer if item.dims}
    for node in proto.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2 and node.input[1] in sizes:
            node.input.append(f"{node.output[0]}::bias of zeros")
            zeros = np.zeros(sizes[node.input[1]], np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(zeros, node.input[2]))


def split_up(proto: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Put a Slice for each output in the place of every Split whose input's shape is known: a node has one output.

    onnxruntime makes Splits of them again.
    """
    from onnx import helper, numpy_helper

    sizes = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer if item.data_type == 7}
    nodes = []
    for node in proto.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "Split" else None
        axis = attribute(node, "axis", 0) % len(shape) if shape else 0
        said = len(node.input) > 1 and node.input[1] != ""
        if shape is None or axis == 0 or (node.input[1] not in sizes if said else axis != 1):
            nodes.append(node)
            continue
        step = -(-shape[axis] // len(node.output))
        ends = np.cumsum(sizes[node.input[1]]) if said else step * np.arange(1, len(node.output) + 1)
        for output, start, end in zip(node.output, [0, *ends[:-1]], ends, strict=True):
            names = [f"{output}::{kind}" for kind in ("start", "end", "axis")]
            values = (np.array([value], np.int64) for value in (start, min(end, shape[axis]), axis))
            proto.graph.initializer.extend(map(numpy_helper.from_array, values, names))
            nodes.append(helper.make_node("Slice", [node.input[0], *names], [output], name=output))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


class Network:
    """A view of a model that changes only in its weights and, through ``replace``, in single nodes.

    apart: tensors that are no maps of pictures, which nothing here is done to: what hangs on the sizes of others
        alone, and what ``observe`` finds without pictures along its first axis. Nodes of theirs are not ``weighted``.
    weights: every constant by name. Changed ones reach the model with ``proto()``.
    rounded: room for the grid of weighted nodes' weights and the shape of their matrix, by their outputs; a node's is
        dropped when its weights change.
    """

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper

        self._proto = proto
        self.weights: dict[str, Array] = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
        self.rounded: dict[str, tuple[tuple[Array, Array], tuple[int, ...]]] = {}
        self.input = next(item.name for item in proto.graph.input if item.name not in self.weights)
        self.outputs = [item.name for item in proto.graph.output]
        self.apart: set[str] = set()
        self._index()

    def _index(self) -> None:
        self.nodes = list(self._proto.graph.node)
        self._makers = {output: node for node in self.nodes for output in node.output}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)
        self._sizes: set[str] = set()
        for node in self.nodes:
            terms = self.computed(node)
            if node.op_type in ("Shape", "Size") or (terms and self._sizes.issuperset(terms)):
                self._sizes.update(node.output)
        self.apart |= self._sizes

    @property
    def template(self) -> Any:
        """The model, its weights as they were."""
        return self._proto

    def maker(self, tensor: str) -> Any | None:
        """The node that computes a tensor; None for the input and for constants."""
        return self._makers.get(tensor)

    def readers(self, tensor: str) -> list[Any]:
        """The nodes that take a tensor in, each once."""
        return self._readers[tensor]

    def only_reader(self, tensor: str) -> Any | None:
        """The node that takes a tensor in, where nothing else does and it is no output."""
        readers = self._readers[tensor]
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def computed(self, node: Any) -> list[str]:
        """The inputs of a node that are no constants."""
        return [name for name in node.input if name and name not in self.weights]

    def constant(self, node: Any, index: int) -> Array | None:
        """A constant input; None where it is computed or left out."""
        return self.weights.get(node.input[index]) if index < len(node.input) else None

    def weighted(self, node: Any) -> bool:
        """Whether a node multiplies one tensor with constant weights and adds a constant bias."""
        return (
            node.op_type in WEIGHTED
            and len(node.input) == 3
            and self.computed(node) == [node.input[0]]
            and not self.apart.intersection((node.input[0], node.output[0]))
        )

    def rectifies(self, node: Any) -> tuple[float, float] | None:
        """The (lowest, highest) value that a Relu or Clip lets through; None for other nodes."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type != "Clip":
            return None
        low, high = self.constant(node, 1), self.constant(node, 2)
        return -np.inf if low is None else float(low), np.inf if high is None else float(high)

    def matrix(self, node: Any) -> Array:
        """The weights of a weighted node as (groups, outputs per group, inputs per group, kernel positions)."""
        weights, groups = self.weights[node.input[1]].astype(np.float64), attribute(node, "group", 1)
        if node.op_type == "Gemm" and not attribute(node, "transB", 0):
            weights = weights.T
        return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)

    def set_matrix(self, node: Any, matrix: Array) -> None:
        """Put back what ``matrix`` gave, changed."""
        self.rounded.pop(node.output[0], None)
        self.weights[node.input[1]] = self.stored(node, matrix)

    def stored(self, node: Any, matrix: Array) -> Array:
        """The weights of a weighted node as they are stored, of what ``matrix`` gives."""
        shape = self.weights[node.input[1]].shape
        flat = matrix.reshape(shape[::-1]).T if self.output_axis(node) else matrix.reshape(shape)
        return np.ascontiguousarray(flat, dtype=np.float32)

    def output_axis(self, node: Any) -> int:
        """The axis of a weighted node's weights that its outputs lie on."""
        return 1 if node.op_type == "Gemm" and not attribute(node, "transB", 0) else 0

    def replace(self, node: Any, by: Sequence[Any], constants: dict[str, Array]) -> None:
        """Put nodes in the place of one, and the constants that they need."""
        place = self.nodes.index(node)
        self._proto.graph.node.remove(node)
        for offset, new in enumerate(by):
            self._proto.graph.node.insert(place + offset, new)
        self.weights |= constants
        self._index()

    def proto(self, *, extra_outputs: Sequence[str] = ()) -> Any:
        """The model with the weights as they are now, giving ``extra_outputs`` behind its own."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.helper.make_graph(
            self.nodes,
            self._proto.graph.name,
            list(self._proto.graph.input),
            [*self._proto.graph.output, *(untyped(name) for name in extra_outputs if name not in self.outputs)],
            [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in self.weights.items()],
        )
        versions = {"opset_imports": list(self._proto.opset_import), "ir_version": self._proto.ir_version}
        return onnx.helper.make_model(graph, **versions)


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, or what ONNX says it is when it is not there."""
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def untyped(name: str) -> Any:
    """A graph output whose type and shape onnxruntime works out."""
    import onnx

    return onnx.ValueInfoProto(name=name)


def cut(proto: Any, outputs: Sequence[str], *, known: Mapping[str, Array] | None = None) -> Any:
    """The part of a model that these tensors need, giving them.

    known: tensors that it takes in instead of computing them, a batch of each.
    """
    import onnx

    known = known or {}
    makers = {output: node for node in proto.graph.node for output in node.output}
    needed, pending, met = set(), list(outputs), set()
    while pending:
        name = pending.pop()
        node = None if name in known else makers.get(name)
        if node is None:
            met.add(name)
        elif node.output[0] not in needed:
            needed.add(node.output[0])
            pending.extend(node.input)
    nodes = [node for node in proto.graph.node if node.output[0] in needed]
    for index, node in enumerate(nodes):
        if met & known.keys() & set(node.output):  # what it gives beside a tensor that is known
            nodes[index] = copy.deepcopy(node)
            nodes[index].output[:] = [f"{name}::again" if name in known else name for name in node.output]
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in known.items()}
    taken = [
        onnx.helper.make_tensor_value_info(name, kinds[name], [None, *array.shape[1:]])
        for name, array in known.items()
        if name in met
    ]
    graph = onnx.helper.make_graph(
        nodes,
        proto.graph.name,
        [*taken, *(item for item in proto.graph.input if item.name in met)],
        [untyped(name) for name in outputs],
        [item for item in proto.graph.initializer if item.name in met],
    )
    return onnx.helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
