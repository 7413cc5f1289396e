"""The documented door: ``zoo.load("model.onnx").predict("cat.jpg")``.

Re-exports the public names of ``runtime``, each looked up when it is first used, so that
``import zoo`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import runtime

if TYPE_CHECKING:
    from runtime import Classification as Classification
    from runtime import EdgeZooError as EdgeZooError
    from runtime import Guess as Guess
    from runtime import Labels as Labels
    from runtime import Metadata as Metadata
    from runtime import Model as Model
    from runtime import Preprocess as Preprocess
    from runtime import ScoreMap as ScoreMap
    from runtime import load as load
    from runtime import tune as tune


def __getattr__(name: str) -> Any:
    if name not in runtime.PUBLIC:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(runtime, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *runtime.PUBLIC])
