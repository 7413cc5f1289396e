"""Why a network answers as it does, on the very file that is deployed: no training framework, int8 included.

    explanation = runtime.load("model.onnx").explain("cat.jpg", method="grad-cam")
    explanation.save("cat_explained.png")

Importing this package loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.explain.attack import Attack as Attack
    from runtime.explain.attack import fgsm as fgsm
    from runtime.explain.explainers import EXPLAINERS as EXPLAINERS
    from runtime.explain.explainers import Explainer as Explainer
    from runtime.explain.explanation import Explanation as Explanation
    from runtime.explain.filters import visualise as visualise
    from runtime.explain.layers import LayerInfo as LayerInfo

# public name -> the module that defines it
PUBLIC = {
    "EXPLAINERS": "runtime.explain.explainers",
    "Attack": "runtime.explain.attack",
    "Explainer": "runtime.explain.explainers",
    "Explanation": "runtime.explain.explanation",
    "LayerInfo": "runtime.explain.layers",
    "fgsm": "runtime.explain.attack",
    "visualise": "runtime.explain.filters",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'runtime.explain' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
