"""What a gradient is taken of: one class, or a weighted sum of an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InvalidInput
from runtime.gradients.builder import BOOL, INT64, Builder, Tensor


@dataclass(frozen=True, slots=True)
class ByIndex:
    """One entry of ``of`` along ``axis``, summed over all further axes: the class to explain.

    input: a new graph input, int64 of shape (batch,) or (1,); a negative index asks for the largest entry.
    default: of that input, so that it may be left out; None for no default.
    """

    input: str = "class_index"
    axis: int = 1
    default: int | None = None


@dataclass(frozen=True, slots=True)
class ByWeights:
    """A sum of the whole of ``of``; the new graph input of this name holds the weights, shaped like ``of``."""

    input: str = "seed"


@dataclass(frozen=True, slots=True)
class ByTensor:
    """As ByWeights, with a tensor of the graph as the weights."""

    name: str


Seed = ByIndex | ByWeights | ByTensor


def make_seed(seed: Seed, of: Tensor, builder: Builder) -> tuple[Tensor, list[Any], list[Any]]:
    """The seed as a tensor, the graph inputs it needs, and their defaults."""
    from onnx import helper, numpy_helper

    if isinstance(seed, ByTensor):
        return builder.tensor(seed.name), [], []
    if seed.input in builder.graph:
        raise InvalidInput(f"the model has a tensor {seed.input!r} already: give the seed's input another name")
    if isinstance(seed, ByWeights):
        tensor = Tensor(seed.input, of.shape, of.dtype, builder)
        return tensor, [helper.make_tensor_value_info(seed.input, of.dtype, list(of.shape))], []
    fixed = seed.default is not None
    given = Tensor(seed.input, (1,) if fixed else ("index_batch",), INT64, builder)
    value = helper.make_tensor_value_info(seed.input, INT64, ["index_batch"])
    defaults = [numpy_helper.from_array(np.array([seed.default], np.int64), seed.input)] if fixed else []
    return _one_hot(given, of, seed.axis, builder), [value], defaults


def _one_hot(index: Tensor, of: Tensor, axis: int, b: Builder) -> Tensor:
    """1 at the class, 0 elsewhere, of a shape that broadcasts to ``of``."""
    if not -of.rank <= axis < of.rank or of.rank < 2:
        raise InvalidInput(f"{of.name!r} has the shape {of.shape} and no classes along axis {axis}")
    axis %= of.rank
    classes = of.shape[axis]
    if not isinstance(classes, int):
        raise InvalidInput(f"{of.name!r} has the shape {of.shape}: the number of classes has to be fixed")
    column = b.add("Reshape", index, b.constant([-1] + [1] * (of.rank - 1)), shape=(of.shape[0], *[1] * (of.rank - 1)))
    if b.opset >= 9:
        size = (*of.shape[:axis], 1, *of.shape[axis + 1 :])
        top = b.add("ArgMax", of, shape=size, dtype=INT64, axis=axis, keepdims=1)
        asked = b.add("Less", column, b.constant(0), dtype=BOOL)
        column = b.add("Where", asked, top, column, dtype=INT64)
    # Looked up in a list of all classes, so that onnxruntime refuses an index beyond them.
    column = b.add("Gather", b.constant(np.arange(classes)), column, shape=column.shape)
    places = b.constant(np.arange(classes).reshape(-1, *[1] * (of.rank - 1 - axis)))
    return b.cast(b.add("Equal", places, column, dtype=BOOL), of.dtype)
