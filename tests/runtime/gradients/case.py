"""What a case is: an operator, its inputs, its attributes, and what torch calls it.

Shapes are written in letters, of which each stands for a small extent that hypothesis chooses; digits are themselves.
An array is an input that stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]
SEED_EXTENTS = {"N": (1, 3), "C": (1, 4), "K": (1, 4), "L": (2, 6), "M": (2, 6), "H": (5, 9), "W": (5, 9), "D": (4, 6)}


@dataclass(frozen=True)
class Case:
    """oracle: the same function of torch tensors. wrt: the inputs to differentiate. positive: values in 0.2 .. 2.

    native: onnxruntime runs it in float64; ONNX's reference computes another function.
    """

    op: str
    inputs: tuple[str | Array, ...]
    oracle: Callable[..., torch.Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    wrt: tuple[int, ...] = (0,)
    positive: bool = False
    outputs: int = 1
    domain: str = ""
    native: bool = False
    scale: float = 1.0
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}-{self.opset}{'-' if self.note else ''}{self.note}"


def case(op: str, inputs: str | tuple[str | Array, ...], oracle: Callable[..., torch.Tensor], **rest: Any) -> Case:
    """A case; what is no field of one is an attribute of the operator."""
    known = {key: rest.pop(key) for key in list(rest) if key in Case.__dataclass_fields__}
    inputs = tuple(inputs.split(", ")) if isinstance(inputs, str) else inputs
    return Case(op, inputs, oracle, rest, **known)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def f32(value: float) -> float:
    """An attribute as the file keeps it."""
    return float(np.float32(value))


MAP = "N C H W"
