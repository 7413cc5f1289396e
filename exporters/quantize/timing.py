"""Which of several models is the faster: run in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines import Runner, open_runner
from runtime.rest import rest

Array = npt.NDArray[Any]

_SETTLE_RUNS, _SETTLE_S = 3, 0.005  # of each turn, not counted: threads wake up, at first on one core, and so do caches
_RUNS, _TURN_S = 4, 0.01  # of a turn, that are counted: as many, and as long, at least
_MOST_TURNS = 15
_LEAST_TURNS = 4


def milliseconds(
    models: Sequence[bytes | str],
    picture: Array | Sequence[Array],
    *,
    engine: str = "onnxruntime",
    budget_s: float = 6.0,
    undisturbed: bool = False,
) -> list[float]:
    """The median time of one run of each model.

    picture: what all of them take, or what each of them does.
    undisturbed: the shortest instead, to choose by: where others take a core now and then, medians change places.
    engine: of ``runtime.engines``, in float32 where a model is.
    budget_s: seconds for all of them together; what is slow has fewer turns, at least four.
    """
    with TemporaryDirectory() as folder:
        runners = [
            open_runner(_file(model, Path(folder, f"{place}.onnx")), engine=engine)
            for place, model in enumerate(models)
        ]
        pictures = [picture] * len(runners) if isinstance(picture, np.ndarray) else picture
        runs = [_run(runner, one) for runner, one in zip(runners, pictures, strict=True)]
        samples: list[list[float]] = [[] for _ in runs]
        start = time.perf_counter()
        for turn in range(_MOST_TURNS):
            if turn >= _LEAST_TURNS and time.perf_counter() - start > budget_s:
                break
            for run, taken in zip(runs, samples, strict=True):
                taken += _turn(run)
        for runner in runners:
            runner.close()  # some engines have the file mapped
    return [1000 * float(min(taken) if undisturbed else np.median(taken)) for taken in samples]


def _file(model: bytes | str, unless: Path) -> str:
    """Where a model lies: a path, or the bytes of one, which are left at ``unless``."""
    if isinstance(model, str):
        return model
    unless.write_bytes(model)
    return str(unless)


def _run(runner: Runner, picture: Array) -> Callable[[], object]:
    return partial(runner.run, [port.name for port in runner.outputs], {runner.inputs[0].name: picture})


def _turn(run: Callable[[], object]) -> list[float]:
    rest()  # the threads of the model before spin on, on this one's cores
    begin, runs = time.perf_counter(), 0
    while runs < _SETTLE_RUNS or time.perf_counter() - begin < _SETTLE_S:
        run()
        runs += 1
    taken: list[float] = []
    while len(taken) < _RUNS or sum(taken) < _TURN_S:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken
