"""From raw scores to answers: one module of pure functions per task."""

from __future__ import annotations

from collections.abc import Callable

from runtime.tasks.binary import classify_binary
from runtime.tasks.classification import Classification, classify
from runtime.tasks.multilabel import classify_multilabel

ANSWERS: dict[str, Callable[..., list[Classification]]] = {
    "classification": classify,
    "binary": classify_binary,
    "multilabel": classify_multilabel,
}
"""Task -> (scores, labels, *, top, logits, trained) -> one answer per picture. A task not here has no classes."""

METHODS = {"features": "features()", "score-map": "score_map()"}
"""Task -> the method of Model for it, where that is not predict(); of every other, run()."""
