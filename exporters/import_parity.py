"""The guard of an import: the written file must answer as the file it was made from, output for output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters import parity
from exporters.import_graph import in_training, is_half, is_quantized
from exporters.import_read import Foreign, nodes
from exporters.source import FloatArray, Samples, sample_files
from runtime.engines import open_session
from runtime.errors import InvalidArtifact, InvalidInput, ParityError
from runtime.image import preprocess
from runtime.metadata import Parity, Preprocess

Array = npt.NDArray[Any]

TOLERANCE = 1e-5
"""Largest max|difference| / max|reference|: the same operators in the same order, up to what onnxruntime fuses."""

QUANTIZED_TOLERANCE = 0.02
"""The same where the graph rounds to 8 bits: a step is 0.4 % of the largest value, and a few may fall the other way."""

HALF_TOLERANCE = 1e-3
"""The same where any of it is float16, which keeps 11 bits: a Cast behind may spare onnxruntime a rounding."""

_BATCH_MATES = 0.05
"""How far an answer may depend on what else is in the batch, as the scales of dynamic quantization make it."""

_TWICE = 2  # runs that are repeated, to see whether they give the same
_ARRAYS = 4  # random inputs, where there are no pictures
_EXTENTS = (64, 16, 224, 1)  # tried for free dimensions, in this order
_RANDOM = (
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """arrays: (1, ...) float32 each, exact in the input's own type; kind: what they are."""

    arrays: tuple[FloatArray, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Original:
    """What the file as it was given answers.

    written: what a file made of it is to be run on, as ``dtype``: the same inputs, or the pixels that they come from.
    answers: by batch size, for each run every output. freeze: the only batch that works where the file leaves it
    free, else None. tolerance: how far a written file may be from it.
    """

    inputs: Inputs
    written: Inputs
    dtype: npt.DTypeLike
    answers: dict[int, list[list[Array]]]
    freeze: int | None
    tolerance: float
    notes: tuple[str, ...]

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that were run, the largest last."""
        return tuple(sorted(self.answers))


def make_inputs(given: Foreign, rule: Preprocess | None) -> Inputs:
    """The bundled pictures through ``rule``, or seeded random arrays of the input's shape where there is none.

    Raises InvalidInput for a rule whose values the input's type cannot hold, and for free dimensions that run at no
    extent tried.
    """
    dtype = given.input.dtype
    if rule is not None:
        if dtype.kind in "iub":
            _check_whole_numbers(given, rule)
        pictures = [preprocess(path, rule) for path in _samples(rule)]
        return Inputs(tuple(_exact(array, dtype) for array in pictures), f"{_kind(rule)} (exporters/samples)")
    random, shape = np.random.default_rng(0), given.input.shape
    extents = (1,) if not any(isinstance(extent, str) for extent in shape[1:]) else _EXTENTS
    said = ""
    for extent in extents:
        fixed = tuple(extent if isinstance(size, str) else size for size in shape[1:])
        # Whole numbers may be indices into a table: 0 and 1 are in every one.
        arrays = [
            _exact(random.normal(size=(1, *fixed)) if dtype.kind == "f" else random.integers(0, 2, (1, *fixed)), dtype)
            for _ in range(_ARRAYS)
        ]
        arrays = [array if shape else array[0] for array in arrays]
        try:
            first = given.input.shape[0] if shape else 1
            given.session.run(None, {given.input.name: feed(arrays, 0, first if isinstance(first, int) else 1, dtype)})
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base
            said = _said(error)
        else:
            return Inputs(tuple(arrays), "random arrays, seed 0")
    raise InvalidInput(f"{given.path}: does not run on an input of {list(shape)}: {said}")


def feed(arrays: Sequence[FloatArray], start: int, batch: int, dtype: npt.DTypeLike) -> Array:
    """``batch`` of the inputs from ``start`` on, wrapping around, in an element type."""
    if arrays[0].ndim == 0:
        return np.asarray(arrays[start % len(arrays)]).astype(dtype)
    rows = [arrays[index % len(arrays)] for index in range(start, start + batch)]
    return np.concatenate(rows).astype(dtype)


def run(
    session: Any, inputs: Inputs, batch: int, dtype: npt.DTypeLike, *, limit: int | None = None
) -> list[list[Array]]:
    """Every output of every input, ``batch`` at a time, ``limit`` times at most. Raises whatever onnxruntime raises."""
    (name,) = (value.name for value in session.get_inputs())
    answers = []
    for start in range(0, len(inputs.arrays), batch)[:limit]:
        outputs = session.run(None, {name: feed(inputs.arrays, start, batch, dtype)})
        answers.append([np.array(output) for output in outputs])
    return answers


def run_original(given: Foreign, rule: Preprocess | None, first: int, pixels: Preprocess | None = None) -> Original:
    """Run the file as it is, at a batch of 1 and of 3 where it leaves that free.

    first: position of the output with the scores. pixels: the rule of a file that is to take uint8 instead. Raises
    InvalidInput or InvalidArtifact where it does not run, or answers the same input differently each time.
    """
    inputs, shape = make_inputs(given, rule), given.input.shape
    fixed = shape[0] if shape and isinstance(shape[0], int) else None
    batches = (fixed,) if fixed or not shape else (1, 3)
    answers: dict[int, list[list[Array]]] = {}
    freeze, notes = None, []
    for size in batches:
        try:
            answers[size or 1] = run(given.session, inputs, size or 1, given.input.dtype)
        except Exception as error:
            if size != 3:
                raise InvalidInput(f"{given.path}: does not run on its own input: {_said(error)}") from error
            freeze = 1
            notes.append("leaves the batch free, but does not run 3 at a time")
    if freeze is None and 3 in answers and (why := _tied(answers[1], answers[3], first)):
        freeze, _ = 1, answers.pop(3)
        notes.append(why)
    if in_training(given.proto):
        notes.append("BatchNormalization is in training mode, so answers depend on the batch: better export it again")
    _check_deterministic(given, inputs, answers)
    tolerance = HALF_TOLERANCE if is_half(given.proto) else TOLERANCE
    tolerance = QUANTIZED_TOLERANCE if is_quantized(given.proto) else tolerance
    if pixels is None:
        return Original(inputs, inputs, np.float32, answers, freeze, tolerance, tuple(notes))
    levels = tuple(_exact(preprocess(path, pixels), np.dtype(np.uint8)) for path in _samples(pixels))
    # The network's input is rounded otherwise, as between a framework and its export.
    tolerance = max(tolerance, parity.TOLERANCE)
    return Original(inputs, Inputs(levels, inputs.kind), np.uint8, answers, freeze, tolerance, tuple(notes))


def check_written(path: Path, original: Original, expected: Mapping[int, Sequence[Sequence[Array]]]) -> Parity:
    """Compare a written file with what the original answered, as ``expected`` by batch size.

    Raises ParityError where it does not open, does not run, or answers otherwise.
    """
    worst = 0.0
    try:
        session = open_session(path)
        for size, runs in expected.items():
            answers = run(session, original.written, size, original.dtype, limit=len(runs))
            worst = max(worst, _compare(answers, runs, original.tolerance))
    except ParityError:
        raise
    except Exception as error:
        raise ParityError(f"the written file does not run: {_said(error)}") from error
    return Parity(
        inputs=len(original.inputs.arrays),
        inputs_kind=original.inputs.kind,
        batch_sizes=original.batches,
        max_relative_error=float(f"{worst:.1e}"),
        tolerance=original.tolerance,
    )


def _tied(alone: Sequence[Sequence[Array]], together: Sequence[Sequence[Array]], first: int) -> str:
    """Why a batch of 3 is not three answers; "" where it is."""
    one, three = alone[0][first], together[0][first]
    if (one.ndim == 1 and one.size > 1) or (one.shape[:1] == (1,) and three.shape != (3, *one.shape[1:])):
        return "leaves the batch free, but answers 3 inputs as one"
    if one.shape[:1] == (1,) and one.dtype.kind == "f":
        rows = np.concatenate([answer[first] for answer in alone[:3]])
        if not difference(three, rows) <= _BATCH_MATES:
            return "leaves the batch free, but answers an input by what else is in the batch"
    return ""


def _check_deterministic(given: Foreign, inputs: Inputs, answers: Mapping[int, Sequence[Sequence[Array]]]) -> None:
    size, before = next(iter(answers.items()))
    again = run(given.session, inputs, size, given.input.dtype, limit=_TWICE)
    try:
        _compare(again, before[:_TWICE], TOLERANCE)
    except ParityError as error:
        found = sorted({node.op_type for node in nodes(given.proto)} & set(_RANDOM))
        cause = f" ({', '.join(found)})" if found else ""
        raise InvalidArtifact(
            f"{given.path}: answers the same input differently each time{cause}: "
            "nothing can be verified; export it in inference mode"
        ) from error


def _compare(answers: Sequence[Sequence[Array]], expected: Sequence[Sequence[Array]], tolerance: float) -> float:
    """The largest difference over all runs and outputs. Raises ParityError above ``tolerance``."""
    worst = 0.0
    for number, (given, wanted) in enumerate(zip(answers, expected, strict=True)):
        for index, (new, old) in enumerate(zip(given, wanted, strict=True)):
            off = difference(new, old)
            if not off <= tolerance:
                raise ParityError(
                    f"output {index} of run {number} differs from the file's own: relative error {off:.1e} above "
                    f"{tolerance:.0e}, {new.dtype} {list(new.shape)} for {old.dtype} {list(old.shape)}"
                )
            worst = max(worst, off)
    return worst


def difference(new: Array, old: Array) -> float:
    """max|new - old| / max|old|; infinity for another shape, or where one is NaN or infinite and the other is not."""
    if new.shape != old.shape:
        return float("inf")
    if new.size == 0:
        return 0.0
    if old.dtype.kind not in "fiu" or new.dtype.kind not in "fiu":
        return 0.0 if np.array_equal(new, old) else float("inf")
    a, b = new.astype(np.float64), old.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    scale = float(np.abs(b[finite]).max(initial=0.0))
    off = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    return off / scale if scale else (0.0 if off == 0 else float("inf"))


def _kind(rule: Preprocess) -> Samples:
    return "digits" if rule.color == "L" else "photos"


def _samples(rule: Preprocess) -> list[Path]:
    return sample_files(_kind(rule))


def _exact(array: Array, dtype: np.dtype[Any]) -> FloatArray:
    """As float32, each value one that the input's own type holds too: float16 rounds here, once, for both files."""
    return array.astype(dtype).astype(np.float32)


def _check_whole_numbers(given: Foreign, rule: Preprocess) -> None:
    dtype = given.input.dtype
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for mean, std in zip(rule.mean, rule.std, strict=True):
        values = (np.arange(256) * rule.scale - mean) / std
        if values.min() < low or values.max() > high or np.abs(values - np.rint(values)).max() > 1e-3:
            raise InvalidInput(
                f"{given.path}: takes {dtype} pixels, its preprocessing must give whole numbers from {low} to {high}: "
                "--preprocess 0-255 leaves pixels as they are"
            )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[-200:] or type(error).__name__
