"""The guard: an ONNX file must answer as its source framework does, or it is not written.

Pictures go both roads from the file on disk to the logits: the framework's own preprocessing and
network on one side, the artifact's on the other. So a wrong weight, a wrong mean and a frozen
batch are all caught by the same comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.source import FloatArray, Output, Scores, Source, random_arrays
from runtime.errors import InvalidWeights, ParityError
from runtime.image import preprocess
from runtime.metadata import Parity
from runtime.model import Model

TOLERANCE = 1e-4
"""Largest max|difference| / max|reference| of the logits. Float32 convolutions summed in another
order differ by some 1e-6; folding BatchNorm adds as much again; a real fault is far above."""

PREPROCESS_TOLERANCE = 1e-5
"""The same for the network's input, where both sides do three float32 operations per pixel."""

BATCH_SIZES = (1, 3)


RANDOM_INPUTS = 10


def verify(
    source: Source,
    model: Model,
    pictures: Sequence[Path],
    *,
    kind: str,
    output: Output = "scores",
    batch: int | None = None,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compare a model file with its source on real pictures, or on random arrays where the source takes no pictures.

    kind: what the pictures are, for the record. output: what the file gives; of a map, its one place at the size of
    the source's own input is compared. batch: the batch size the file is meant to be frozen to; None when any size
    must work.
    Raises ParityError naming the check that failed and by how much, and InvalidWeights where the network has no finite
    answer in its own framework.
    """
    if source.preprocess is None:
        expected = given = random_arrays(source.input_shape, RANDOM_INPUTS)
        kind = "random arrays"
    else:
        expected, given = _both_roads(source, model, pictures)
    sizes = (batch,) if batch else BATCH_SIZES
    worst = 0.0
    for size in sizes:
        for start in range(0, len(given), size):
            rows = np.arange(start, start + size) % len(given)  # the last batch wraps around
            worst = max(worst, _compare(source, model, expected[rows], given[rows], output, tolerance))
    return Parity(
        inputs=len(given),
        inputs_kind=kind,
        batch_sizes=sizes,
        max_relative_error=float(f"{worst:.1e}"),
        tolerance=tolerance,
    )


def _both_roads(source: Source, model: Model, pictures: Sequence[Path]) -> tuple[FloatArray, npt.NDArray[Any]]:
    """What the network gets in its framework, and what the file takes: of a uint8 input the pixels themselves."""
    if len(pictures) < 8:
        raise ParityError(f"verification needs at least 8 pictures, not {len(pictures)}")
    expected = np.concatenate([source.transform(path) for path in pictures])
    given = np.concatenate([preprocess(path, model.rule) for path in pictures])
    floats = given
    if model.rule.input == "uint8":  # the graph's arithmetic shows in the logits, the rule's here
        rule = replace(model.rule, input="float32", layout="NCHW")
        floats = np.concatenate([preprocess(path, rule) for path in pictures])
    if expected.shape != floats.shape:
        raise ParityError(f"preprocessing gives {floats.shape[1:]}, the framework's {expected.shape[1:]}")
    off = relative_error(floats, expected)
    if not off <= PREPROCESS_TOLERANCE:
        raise ParityError(
            f"preprocessing differs from the framework's: relative error {off:.1e} above {PREPROCESS_TOLERANCE:.0e}"
        )
    return expected, given


def _compare(
    source: Source, model: Model, expected: FloatArray, given: npt.NDArray[Any], output: Output, tolerance: float
) -> float:
    size, what = len(given), "features" if output == "features" else "logits"
    reference = source.features(expected) if output == "features" else source.forward(expected)
    try:
        answer = model.run(given)
    except Exception as error:
        raise ParityError(f"batch of {size}: the ONNX file does not run ({error})") from error
    if output == "score-map" and answer.shape[2:] == (1, 1):
        answer = answer[:, :, 0, 0]
    if answer.shape != reference.shape:
        raise ParityError(f"batch of {size}: output {answer.shape}, the framework's {reference.shape}")
    if not np.isfinite(reference).all():
        raise InvalidWeights("the framework's own output is not finite: the weights hold NaN, infinity or huge numbers")
    off = relative_error(answer, reference)
    if not off <= tolerance:  # also true for NaN
        raise ParityError(f"batch of {size}: relative error of the {what} {off:.1e} above {tolerance:.0e}")
    differ = 0 if output == "features" else _other_answers(answer, reference, source.task)
    if differ:
        raise ParityError(f"batch of {size}: top-1 differs on {differ} of {size} inputs")
    return off


def _other_answers(answer: FloatArray, reference: FloatArray, task: Scores) -> int:
    """On how many inputs another class comes first; of classes that do not exclude each other, none does."""
    if task == "multilabel":
        return 0
    if task == "binary":
        return int(((answer > 0) != (reference > 0)).sum())
    return int((answer.argmax(axis=-1) != reference.argmax(axis=-1)).sum())


def relative_error(given: FloatArray, expected: FloatArray) -> float:
    """max|given - expected| / max|expected|, in float64; infinity where the reference is all zero."""
    scale = float(np.abs(expected).max())
    difference = float(np.abs(given.astype(np.float64) - expected).max())
    return difference / scale if scale else (0.0 if difference == 0 else float("inf"))
