"""Writes ONNX nodes: a tensor knows its shape and its operators, so that a rule reads like its formula.

Versions of operators are chosen here and nowhere else: the nodes belong to the opset of the model (7 or later).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InvalidArtifact
from runtime.gradients.graph import Array, Graph
from runtime.gradients.shapes import Dim, Shape

FLOAT, INT64, BOOL = 1, 7, 9
FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
OLDEST = 7


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph or of the gradient; ``a * b`` appends the node."""

    name: str
    shape: Shape
    dtype: int
    builder: Builder

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __add__(self, other: Operand) -> Tensor:
        return self.builder.add("Add", self, other)

    def __sub__(self, other: Operand) -> Tensor:
        return self.builder.add("Sub", self, other)

    def __mul__(self, other: Operand) -> Tensor:
        return self.builder.add("Mul", self, other)

    def __truediv__(self, other: Operand) -> Tensor:
        return self.builder.add("Div", self, other)

    def __matmul__(self, other: Tensor) -> Tensor:
        batch = broadcast(self.shape[:-2], other.shape[:-2])
        return self.builder.add("MatMul", self, other, shape=(*batch, self.shape[-2], other.shape[-1]))

    def __rsub__(self, other: float) -> Tensor:
        return self.builder.add("Sub", other, self)

    def __rtruediv__(self, other: float) -> Tensor:
        return self.builder.add("Div", other, self)

    def __neg__(self) -> Tensor:
        return self.builder.add("Neg", self)

    __radd__ = __add__
    __rmul__ = __mul__


Operand = Tensor | float


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an element-wise result; two names are taken for one extent."""
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_widest(extents) for extents in zip(*aligned, strict=True))


def extents(x: Tensor, start: int = 0, *, axes: Sequence[int] | None = None) -> tuple[int, ...]:
    """The extents of some axes, by default all from ``start`` on; raises InvalidArtifact where one is not known."""
    asked = range(start, x.rank) if axes is None else axes
    known = tuple(extent for axis in asked if isinstance(extent := x.shape[axis], int))
    if len(known) != len(asked):
        raise InvalidArtifact(f"tensor {x.name!r} has the shape {x.shape}: give the model's input a fixed size")
    return known


def _widest(extents: tuple[Dim, ...]) -> Dim:
    above = [extent for extent in extents if extent != 1]
    return next((extent for extent in above if isinstance(extent, int)), above[0] if above else 1)


class Builder:
    """Collects the nodes to append."""

    def __init__(self, graph: Graph, prefix: str = "gradient") -> None:
        if graph.opset < OLDEST:
            raise InvalidArtifact(f"opset {graph.opset}: gradients need {OLDEST} or later: export the model again")
        self.graph, self.opset = graph, graph.opset
        self.nodes: list[Any] = []
        self.made: dict[str, Tensor] = {}
        self.scaled: dict[str, tuple[Tensor, str]] = {}  # what is a tensor times a scale
        self.sources: frozenset[str] = frozenset()  # whose gradients are asked for: no rule may pass them by
        self.wanted_too: set[str] = set()  # of the tensors made here, those that a rule differentiates again
        self._names = (name for n in itertools.count() if (name := f"{prefix}::{n}") not in graph)

    # ---- tensors

    def tensor(self, name: str) -> Tensor:
        """A tensor of the model; of one that is quantized at once, what the integers say of it."""
        if name in self.made:
            return self.made[name]
        return self.exact(self.graph.dequantized(name) or name)

    def exact(self, name: str) -> Tensor:
        """A tensor of the model itself, for rules that compare it."""
        return Tensor(name, self.graph.shape(name), self.graph.dtype(name), self)

    def constant(self, value: Any, dtype: int = INT64) -> Tensor:
        """A new constant of this ONNX element type."""
        from onnx import helper, numpy_helper

        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(dtype))
        return self.add("Constant", shape=array.shape, dtype=dtype, value=numpy_helper.from_array(array))

    def add(
        self, kind: str, *inputs: Operand | None, shape: Shape | None = None, dtype: int | None = None,
        **attributes: Any,
    ) -> Tensor:  # fmt: skip
        """Append a node; by default its result is broadcast from the inputs and has the type of the first."""
        tensors = [entry for entry in inputs if isinstance(entry, Tensor)]
        shape = broadcast(*(entry.shape for entry in tensors)) if shape is None else shape
        return self.several(kind, *inputs, shapes=[shape], dtype=dtype, **attributes)[0]

    def several(
        self, kind: str, *inputs: Operand | None, shapes: Sequence[Shape], dtype: int | None = None, **attributes: Any
    ) -> list[Tensor]:
        """Append a node with a result for each shape."""
        from onnx import helper

        kinds = [entry.dtype for entry in inputs if isinstance(entry, Tensor)]
        given = [self.constant(entry, kinds[0]) if isinstance(entry, int | float) else entry for entry in inputs]
        made = [Tensor(next(self._names), shape, dtype or kinds[0], self) for shape in shapes]
        names = [entry.name if entry else "" for entry in given]
        results = [tensor.name for tensor in made]
        self.made |= dict(zip(results, made, strict=True))
        self.nodes.append(helper.make_node(kind, names, results, name=results[0], **attributes))
        return made

    # ---- operators whose form depends on the opset

    def reduce(self, kind: str, x: Tensor, axes: Sequence[int], *, keep: bool = True) -> Tensor:
        """ReduceSum and its sisters."""
        if not axes:
            return x
        axes = sorted(axes)
        shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape) if keep or axis not in axes)
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return self.add(kind, x, self.constant(axes), shape=shape, keepdims=int(keep))
        return self.add(kind, x, shape=shape, axes=list(axes), keepdims=int(keep))

    def sum(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The sum over axes, which stay with extent 1."""
        return self.reduce("ReduceSum", x, axes)

    def mean(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """The mean over axes, which stay with extent 1."""
        return self.reduce("ReduceMean", x, axes)

    def reshape(self, x: Tensor, shape: Shape, like: Tensor | None = None) -> Tensor:
        """The same numbers in another shape; ``like`` has that shape, for where it is known at run time alone."""
        if x.shape == shape and None not in shape:
            return x
        unknown = [extent for extent in shape if not isinstance(extent, int)]
        if len(unknown) <= 1 and 0 not in shape:
            target = self.constant([extent if isinstance(extent, int) else -1 for extent in shape])
        elif like is not None:
            target = self.add("Shape", like, shape=(like.rank,), dtype=INT64)
        else:
            raise InvalidArtifact(
                f"a gradient of shape {shape} has several unknown extents: fix the model's input size"
            )
        return self.add("Reshape", x, target, shape=shape)

    def expand(self, x: Tensor, like: Tensor) -> Tensor:
        """Broadcast to the shape of another tensor."""
        if x.shape == like.shape and (None not in x.shape):
            return x
        if all(isinstance(extent, int) for extent in like.shape):
            target = self.constant(like.shape)
        else:
            target = self.add("Shape", like, shape=(like.rank,), dtype=INT64)
        if self.opset >= 8:
            return self.add("Expand", x, target, shape=like.shape)
        zeros = like - like  # of a finite activation
        return self.add("Add", x, zeros, shape=like.shape)

    def pad(self, x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
        """A constant border; negative extents cut."""
        if not any(before) and not any(after):
            return x
        shape = tuple(
            extent + low + high if isinstance(extent, int) else extent
            for extent, low, high in zip(x.shape, before, after, strict=True)
        )
        pads = [*before, *after]
        if self.opset < 11:
            return self.add("Pad", x, shape=shape, pads=pads, value=value)
        border = [self.constant(value, x.dtype)] if value else []
        return self.add("Pad", x, self.constant(pads), *border, shape=shape)

    def slice(self, x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> Tensor:
        """A contiguous part along axes of known extent."""
        if all(start == 0 and end == x.shape[axis] for start, end, axis in zip(starts, ends, axes, strict=True)):
            return x
        extents = dict(zip(axes, (end - start for start, end in zip(starts, ends, strict=True)), strict=True))
        shape = tuple(extents.get(axis, extent) for axis, extent in enumerate(x.shape))
        if self.opset < 10:
            return self.add("Slice", x, shape=shape, starts=list(starts), ends=list(ends), axes=list(axes))
        return self.add("Slice", x, *(self.constant(list(part)) for part in (starts, ends, axes)), shape=shape)

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> list[Tensor]:
        """Parts along one axis."""
        if len(sizes) == 1:
            return [x]
        shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
        if self.opset < 13:
            return self.several("Split", x, shapes=shapes, axis=axis, split=list(sizes))
        return self.several("Split", x, self.constant(list(sizes)), shapes=shapes, axis=axis)

    # ---- plain ones

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        if list(order) == list(range(x.rank)):
            return x
        return self.add("Transpose", x, shape=tuple(x.shape[axis] for axis in order), perm=list(order))

    def concat(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        extents = [part.shape[axis] for part in parts]
        whole = sum(extents) if all(isinstance(extent, int) for extent in extents) else None  # type: ignore[arg-type]
        shape = (*parts[0].shape[:axis], whole, *parts[0].shape[axis + 1 :])
        return self.add("Concat", *parts, shape=shape, axis=axis)

    def gather(self, x: Tensor, indices: Array, axis: int) -> Tensor:
        """Rows of one axis, by constant indices; also what turns an axis round at any opset."""
        shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
        return self.add("Gather", x, self.constant(indices), shape=shape, axis=axis)

    def repeat(self, x: Tensor, times: Sequence[int]) -> Tensor:
        """Every pixel as often as this along each axis in space; opset 13 or later."""
        shape = (*x.shape[:2], *(extent * count for extent, count in zip(extents(x, 2), times, strict=True)))
        return self.add(
            "Resize", x, None, self.constant([1, 1, *times], FLOAT), shape=shape, mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    def cast(self, x: Tensor, dtype: int) -> Tensor:
        return x if x.dtype == dtype else self.add("Cast", x, dtype=dtype, to=dtype)

    def add_up(self, terms: Sequence[Tensor]) -> Tensor:
        """The sum of tensors that broadcast together."""
        if len(terms) == 1:
            return terms[0]
        if len({term.shape for term in terms}) > 1 or len(terms) == 2:
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return total
        return self.add("Sum", *terms)

    # ---- masks: 1 where a comparison holds, 0 elsewhere, in the type of x

    def above(self, x: Tensor, bound: float = 0.0) -> Tensor:
        """[x > bound], exact.

        HardSigmoid with a slope so steep that nothing lies on it is four times as fast as Greater and Cast. The slope
        is a power of two: its product with x is exact, so the offset cancels at the bound alone.
        """
        return self._steep(x, bound, 1) if self._fast(x, bound) else self.compare("Greater", x, bound)

    def below(self, x: Tensor, bound: float = 0.0) -> Tensor:
        """[x < bound], exact."""
        return self._steep(x, bound, -1) if self._fast(x, bound) else self.compare("Less", x, bound)

    def is_zero(self, x: Tensor) -> Tensor:
        """[x == 0], of what is never negative."""
        return self.add("HardSigmoid", x, alpha=-(2.0**126), beta=1.0) if x.dtype == FLOAT else 1.0 - self.above(x)

    def compare(self, kind: str, x: Tensor, y: Operand) -> Tensor:
        """A comparison as a number; Equal of floats needs opset 11."""
        return self.cast(self.add(kind, x, y, dtype=BOOL), x.dtype)

    def _fast(self, x: Tensor, bound: float) -> bool:
        return x.dtype == FLOAT and abs(bound) < 2**60 and float(np.float32(bound)) == bound

    def _steep(self, x: Tensor, bound: float, sign: int) -> Tensor:
        slope = sign * 2.0 ** (126 - max(math.frexp(bound)[1], 0))
        return self.add("HardSigmoid", x, alpha=slope, beta=-bound * slope)
