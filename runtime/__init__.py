"""Runs edgezoo files with numpy, onnxruntime and Pillow alone; no training framework, ever.

``runtime.load("model.onnx").predict("cat.jpg")``. Importing this package loads none of the
three: names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.errors import EdgeZooError as EdgeZooError
    from runtime.metadata import Labels as Labels
    from runtime.metadata import Metadata as Metadata
    from runtime.metadata import Preprocess as Preprocess
    from runtime.model import Model as Model
    from runtime.model import load as load
    from runtime.tasks.classification import Classification as Classification
    from runtime.tasks.classification import Guess as Guess
    from runtime.tasks.score_map import ScoreMap as ScoreMap
    from runtime.tuning.search import tune as tune

# public name -> the module that defines it
PUBLIC = {
    "Classification": "runtime.tasks.classification",
    "EdgeZooError": "runtime.errors",
    "Guess": "runtime.tasks.classification",
    "Labels": "runtime.metadata",
    "Metadata": "runtime.metadata",
    "Model": "runtime.model",
    "Preprocess": "runtime.metadata",
    "ScoreMap": "runtime.tasks.score_map",
    "load": "runtime.model",
    "tune": "runtime.tuning.search",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'runtime' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
