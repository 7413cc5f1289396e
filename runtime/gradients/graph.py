"""A read-only view of an ONNX graph: who makes and who reads a tensor, constants, shapes and types."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidArtifact, UnsupportedOperator
from runtime.gradients.shapes import SMALL, TYPES, Shape, ask_onnxruntime, infer, weightless

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
RULES_FILE = "runtime/gradients/rules.py"


@dataclass(frozen=True)
class Node:
    """One node of the graph, as a rule sees it."""

    proto: Any
    graph: Graph
    wanted: frozenset[str]  # the tensors whose gradient is asked for

    @property
    def op(self) -> str:
        return str(self.proto.op_type)

    @property
    def opset(self) -> int:
        return int(self.graph.opsets.get(self.proto.domain, 1))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """By name; strings as str, tensors as arrays."""
        from onnx import helper, numpy_helper

        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in self.proto.attribute}
        for name, value in values.items():
            if isinstance(value, bytes):
                values[name] = value.decode()
            elif hasattr(value, "raw_data"):
                values[name] = numpy_helper.to_array(value)
        return values

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or the operator's default."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Is this optional input there?"""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def wants(self, index: int) -> bool:
        """Is the gradient of this input asked for?"""
        return self.has(index) and self.proto.input[index] in self.wanted

    def constant(self, index: int) -> Array | None:
        """What an input always holds; None when it is computed or absent."""
        return self.graph.constant(self.proto.input[index]) if self.has(index) else None

    def setting(self, name: str, index: int, default: Any = None) -> Any:
        """A setting that older opsets keep as an attribute and newer ones as an input: a list, or ``default``."""
        if name in self.attributes:
            return self.attributes[name]
        if not self.has(index):
            return default
        value = self.constant(index)
        if value is None:
            raise self.unsupported(f"its {name} is computed while the model runs: give the input a fixed size")
        return value.tolist()

    def axes(self, rank: int, index: int = 1) -> list[int] | None:
        """The setting "axes", from 0 up; None where it is left out."""
        axes = self.setting("axes", index)
        return None if axes is None else sorted(axis % rank for axis in axes)

    def unsupported(self, why: str) -> UnsupportedOperator:
        """The error to raise for a form of the operator that the rule does not know."""
        return UnsupportedOperator(f"no gradient of {self.where}: {why} (the rules are in {RULES_FILE})")

    @property
    def where(self) -> str:
        domain = f"{self.proto.domain}." if self.proto.domain else ""
        name = self.proto.name or next(iter(self.proto.output), "")
        return f"{domain}{self.op}, opset {self.opset}, node {name!r}"


class Graph:
    """Lookups over a model that stays as it is."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opsets = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}
        self.opset = self.opsets.get("", 1)
        graph = model.graph
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in reads(node):
                self.readers[name].append(node)
        self.inputs = [value.name for value in graph.input]
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = [value.name for value in graph.output]
        self._types: dict[str, tuple[int, Shape | None]] = {}
        self._constants: dict[str, Array | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.maker or name in self.initializers or name in self.inputs

    def shape(self, name: str) -> Shape:
        """Extents of a tensor; raises InvalidArtifact where not even their number is known."""
        shape = self._type(name)[1]
        if shape is None:
            raise InvalidArtifact(f"the shape of tensor {name!r} is not known: give the model's input a fixed size")
        return shape

    def dtype(self, name: str) -> int:
        """An onnx.TensorProto element type."""
        return self._type(name)[0]

    def constant(self, name: str) -> Array | None:
        """What a tensor always holds, also where small nodes compute it from constants and shapes."""
        if name not in self._constants:
            self._constants[name] = self._evaluate(name)
        return self._constants[name]

    def dequantized(self, name: str) -> str | None:
        """The float to read instead of one that only QuantizeLinear reads, and that an integer kernel never makes."""
        readers = self.readers.get(name, [])
        if name in self.outputs or name not in self.maker or not readers:
            return None
        if any(reader.op_type != "QuantizeLinear" or reader.input[0] != name for reader in readers):
            return None
        for quantize in readers:
            for reader in self.readers.get(quantize.output[0], []):
                if reader.op_type == "DequantizeLinear" and list(reader.input[1:]) == list(quantize.input[1:]):
                    return str(reader.output[0])
        return None

    def is_dequantized(self, name: str) -> bool:
        """Does a tensor hold what integers stand for?"""
        return name in self.maker and self.maker[name].op_type == "DequantizeLinear"

    def _evaluate(self, name: str) -> Array | None:
        from onnx import numpy_helper

        if name in self.initializers:
            # One that is an input too is only a default, but before IR version 4 all had to be.
            fixed = name not in self.inputs or self.model.ir_version < 4
            return numpy_helper.to_array(self.initializers[name]) if fixed else None
        node = self.maker.get(name)
        if node is None or node.domain or any(attribute.HasField("g") for attribute in node.attribute):
            return None
        if node.op_type == "Shape":
            extents = self.shape(node.input[0])
            known = [extent for extent in extents if isinstance(extent, int)]
            attributes = Node(node, self, frozenset()).attributes
            whole = np.array(known, np.int64)[attributes.get("start", 0) : attributes.get("end")]
            return whole if len(known) == len(extents) else None
        given = [self.constant(entry) if entry else np.empty(0) for entry in node.input]
        if any(array is None or array.nbytes > SMALL for array in given):
            return None
        return _run(node, given, self.opset, name)

    def _type(self, name: str) -> tuple[int, Shape | None]:
        if not self._types:
            self._infer()
        if name not in self._types:
            raise InvalidArtifact(f"no tensor {name!r} in the model, or its type is not known")
        return self._types[name]

    def _infer(self) -> None:
        """Types and shapes: as onnx infers them, with what this view can compute, then as onnxruntime knows them."""
        bare = weightless(self.model)
        self._types = infer(bare, self.model)
        while self._unknown() and (found := self._shape_constants(bare)):
            known = {tensor.name for tensor in found}
            left = [node for node in bare.graph.node if not known.intersection(node.output)]
            del bare.graph.node[:]
            bare.graph.node.extend(left)
            bare.graph.initializer.extend(found)
            self._types |= infer(bare, self.model)
        if unknown := self._unknown():
            self._types |= ask_onnxruntime(self.model, unknown)

    def _unknown(self) -> list[str]:
        return [name for name in self.maker if self._types.get(name, (0, None))[1] is None]

    def _shape_constants(self, bare: Any) -> list[Any]:
        """The integers that nodes of unknown shape read, where they can be computed; onnx does so for new opsets."""
        from onnx import numpy_helper

        self._constants.clear()
        read = {
            name
            for node in bare.graph.node
            if any(self._types.get(output, (0, None))[1] is None for output in node.output)
            for name in node.input[1:]
            if name in self.maker and self._types.get(name, (0,))[0] == TYPES["int64"]
        }
        values = {name: self.constant(name) for name in read}
        return [numpy_helper.from_array(value, name) for name, value in values.items() if value is not None]


def reads(node: Any) -> list[str]:
    """What a node reads: its inputs, and what the branches of an If or a Loop take from outside."""
    from onnx import AttributeProto

    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for branch in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            made = {value.name for value in branch.input} | {tensor.name for tensor in branch.initializer}
            for inner in branch.node:
                names += [name for name in reads(inner) if name not in made]
                made.update(inner.output)
            names += [value.name for value in branch.output if value.name not in made]
    return names


def _run(node: Any, given: Iterable[Array | None], opset: int, name: str) -> Array | None:
    """One node on constants, by ONNX's own reference; None where that does not know it."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {entry: array for entry, array in zip(node.input, given, strict=True) if entry and array is not None}
    values = [helper.make_tensor_value_info(entry, 0, None) for entry in feeds]
    graph = helper.make_graph([node], "constant", values, [helper.make_tensor_value_info(name, 0, None)])
    try:
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        (made,) = ReferenceEvaluator(model).run([name], feeds)
        return np.asarray(made)
    except Exception:  # noqa: BLE001 - whatever it is, the tensor is not known beforehand
        return None
