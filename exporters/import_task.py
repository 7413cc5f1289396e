"""What the first output of an imported graph is: a task, the form its scores need, logits or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from exporters.import_graph import is_probability
from exporters.source import numbered_labels
from runtime.errors import InvalidInput, InvalidWeights
from runtime.metadata import Labels, Metadata, Task

Array = npt.NDArray[Any]
ScoresKind = Literal["logits", "probabilities"]

INTERPRETED = ("classification", "binary", "multilabel", "features")
"""Tasks whose first output is float32 rows (N, classes)."""

_SUMS_TO_ONE = 0.02
"""How far a row of probabilities may be from 1: 8-bit outputs are multiples of 1/256."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """shape: of a Reshape that makes rows (N, classes), None where they are; 0 keeps an extent."""

    task: Task
    scores: ScoresKind
    labels: Labels | None
    shape: tuple[int, ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was seen of the first output.

    where: the file, for messages. answers: one array per run. batch: pictures per run.
    operator: what computes it. is_picture: whether the input is one. stamped: what the file said of itself.
    """

    where: str
    answers: Sequence[Array]
    batch: int
    operator: str
    is_picture: bool
    stamped: Metadata | None


def decide(seen: Evidence, *, task: str | None, scores: str | None, labels: Labels | None) -> Meaning:
    """The task asked for, checked against the output, or the one the output shows.

    Raises InvalidInput where the output cannot be what was asked for, or the labels do not fit it.
    """
    for what, value, names in (("task", task, get_args(Task)), ("scores", scores, get_args(ScoresKind))):
        if value is not None and value not in names:
            raise InvalidInput(f"unknown {what} {value!r}: choose from {', '.join(names)}")
    old = seen.stamped if seen.stamped and task in (None, seen.stamped.task) else None
    rows = _rows(seen.answers, seen.batch)
    if old is not None and old.task == "score-map":
        return _stays(seen, old, scores, labels)
    chosen = task or (old.task if old else _shown(seen, rows, labels))
    if chosen == "score-map":
        raise InvalidInput(f"{seen.where}: a score map needs its windows: `zoo export --output score-map` makes one")
    if chosen not in INTERPRETED:
        _refuse_words(seen, labels, scores, chosen)
        return Meaning("other", "logits", None, None)
    if rows is None or seen.answers[0].dtype.kind not in "fiu":
        raise InvalidInput(f"{seen.where}: {_form(seen)}: task {chosen} needs (N, classes): choose --task other")
    values, shape = rows
    if not np.isfinite(values).all():
        raise InvalidWeights(f"{seen.where}: the scores are not finite: the weights hold NaN, infinity or huge numbers")
    outputs = values.shape[-1]
    if chosen == "features":
        _refuse_words(seen, labels, scores, chosen)
        return Meaning("features", "logits", None, shape)
    if (chosen == "binary") != (outputs == 1):
        needs = "1 output" if chosen == "binary" else "2 outputs or more"
        raise InvalidInput(f"{seen.where}: {_form(seen)}: task {chosen} needs {needs}")
    fitting = _fitting(seen, labels or (old.labels if old else None), chosen, outputs)
    kind, notes = _kind(seen, values, chosen, scores or (old.scores if old else None))
    return Meaning(_as_task(chosen), kind, fitting, shape, notes)


def _rows(answers: Sequence[Array], batch: int) -> tuple[Array, tuple[int, ...] | None] | None:
    """All answers as (runs * N, classes), and the Reshape that makes rows of them; None where no form of rows fits."""
    shape = answers[0].shape
    if any(answer.shape != shape for answer in answers) or 0 in shape:
        return None
    whole = np.stack(answers)
    if shape[:1] == (batch,) and len(shape) == 2:
        return whole.reshape(-1, shape[1]), None
    if shape == (batch,) and batch > 1:  # one number per picture
        return whole.reshape(-1, 1), (0, 1)
    if len(shape) == 1 and batch == 1:  # one picture's scores without the dimension of pictures
        return whole, (1, shape[0])
    if shape[:1] == (batch,) and len(shape) > 2 and np.prod(shape[1:]) == max(shape[1:]):
        return whole.reshape(-1, max(shape[1:])), (0, max(shape[1:]))
    return None


def _shown(seen: Evidence, rows: tuple[Array, Any] | None, labels: Labels | None) -> str:
    if not seen.is_picture or rows is None or seen.answers[0].dtype.kind not in "fu":
        return "other"
    outputs = rows[0].shape[-1]
    sigmoid = "Sigmoid" in seen.operator
    if outputs == 1:
        return "binary" if sigmoid or (labels and len(labels.names) == 2) else "other"
    return "multilabel" if sigmoid else "classification"


def _kind(seen: Evidence, values: Array, task: str, asked: str | None) -> tuple[ScoresKind, tuple[str, ...]]:
    within = bool(values.min() >= -1e-6 and values.max() <= 1 + 1e-6)
    if asked is not None:
        if asked == "probabilities" and not within:
            low, high = float(values.min()), float(values.max())
            raise InvalidInput(f"{seen.where}: the scores go from {low:.3g} to {high:.3g}: they are no probabilities")
        return ("probabilities" if asked == "probabilities" else "logits"), ()
    summed = within and bool(np.abs(values.astype(np.float64).sum(axis=-1) - 1).max() <= _SUMS_TO_ONE)
    softmax = is_probability(seen.operator) and "Softmax" in seen.operator
    if task == "classification":
        if softmax and not summed:
            raise InvalidInput(
                f"{seen.where}: ends in Softmax, but not over the classes: say --scores logits or probabilities"
            )
        if summed and not softmax:
            return "probabilities", ("the scores of every picture add up to 1: taken for probabilities",)
        return ("probabilities" if summed or (within and "Sigmoid" in seen.operator) else "logits"), ()
    if "Sigmoid" in seen.operator and within:
        return "probabilities", ()
    return "logits", (("all scores lie in 0..1: --scores probabilities, if they are",) if within else ())


def _fitting(seen: Evidence, labels: Labels | None, task: str, outputs: int) -> Labels:
    if labels is None:
        return numbered_labels(task, outputs)
    needed = 2 if task == "binary" else outputs
    if len(labels.names) != needed:
        hint = "give one name per output, in their order"
        if needed == len(labels.names) + 1:
            hint = "one more, as TensorFlow's 1001 classes have: put a line for the background first"
        if task == "binary":
            hint = "first what a low score means, then what a high one does"
        what = f"{outputs} outputs" if task != "binary" else "one output for 2 labels"
        raise InvalidInput(f"{seen.where}: {what}, but {len(labels.names)} labels: {hint}")
    return labels


def _stays(seen: Evidence, old: Metadata, scores: str | None, labels: Labels | None) -> Meaning:
    """A score map that edgezoo made stays one; only its labels may be replaced."""
    if scores is not None and scores != old.scores:
        raise InvalidInput(f"{seen.where}: is a score map of {old.scores}: leave --scores out")
    assert old.labels is not None
    if labels is not None and len(labels.names) != len(old.labels.names):
        raise InvalidInput(f"{seen.where}: {len(old.labels.names)} classes, but {len(labels.names)} labels")
    return Meaning(old.task, old.scores, labels or old.labels, None)


def _refuse_words(seen: Evidence, labels: Labels | None, scores: str | None, task: str) -> None:
    for option, given in (("--labels", labels), ("--scores", scores)):
        if given is not None:
            raise InvalidInput(
                f"{seen.where}: {_form(seen)}, of task {task}, which has no classes: leave {option} out, or give --task"
            )


def _form(seen: Evidence) -> str:
    return f"the first output is {seen.answers[0].dtype} {list(seen.answers[0].shape)} for {seen.batch} in a run"


def _as_task(name: str) -> Task:
    found: Task = next(task for task in get_args(Task) if task == name)
    return found
