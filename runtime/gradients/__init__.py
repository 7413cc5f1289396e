"""Exact gradients of an ONNX model, as ordinary ONNX nodes: any onnxruntime runs them, no training framework needed.

    model = add_gradients(onnx.load("model.onnx"), ["conv5"], seed=ByIndex())
    session.run(["logits", "conv5::gradient"], {"input": x, "class_index": [207]})

Importing this package loads nothing; ``onnx`` is needed to call it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.errors import NoGradient as NoGradient
    from runtime.errors import UnsupportedOperator as UnsupportedOperator
    from runtime.gradients.append import add_gradients as add_gradients
    from runtime.gradients.append import gradient_name as gradient_name
    from runtime.gradients.append import readable as readable
    from runtime.gradients.request import on_request as on_request
    from runtime.gradients.seeds import ByIndex as ByIndex
    from runtime.gradients.seeds import ByTensor as ByTensor
    from runtime.gradients.seeds import ByWeights as ByWeights

# public name -> the module that defines it
PUBLIC = {
    "ByIndex": "runtime.gradients.seeds",
    "ByTensor": "runtime.gradients.seeds",
    "ByWeights": "runtime.gradients.seeds",
    "NoGradient": "runtime.errors",
    "UnsupportedOperator": "runtime.errors",
    "add_gradients": "runtime.gradients.append",
    "gradient_name": "runtime.gradients.append",
    "on_request": "runtime.gradients.request",
    "readable": "runtime.gradients.append",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'runtime.gradients' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
