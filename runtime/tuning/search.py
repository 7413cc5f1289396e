"""Find the fastest way to run a file on this machine that still gives its answers: measured, never assumed.

Every engine that is installed opens the file, in every precision it has, and so do the files beside it that were made
from it (int8). What answers otherwise than the float32 reference allows is out; the others run against each other, in
turns, until one is left. Then the leaders try other numbers of threads and options of their own.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.engines import ENGINES, engine_for
from runtime.errors import EdgeZooError, InvalidInput
from runtime.files import sha256
from runtime.image import ImageSource
from runtime.machine import usable_cores
from runtime.metadata import Metadata, Preprocess
from runtime.model import Model
from runtime.onnxfile import check_file, properties
from runtime.tuning.judge import Limits, Material, judge, limits_of, material_of
from runtime.tuning.race import race
from runtime.tuning.record import Record, Setting, Trial, this_machine

BUDGET_S = 20.0

# Beside the defaults, what is worth trying of each engine's own options.
VARIANTS: dict[str, tuple[Mapping[str, str], ...]] = {
    "onnxruntime": (
        {"session.intra_op.spin_duration_us": "1000"},
        {"session.intra_op.allow_spinning": "0"},
        {"session.dynamic_block_base": "4"},
    ),
    "openvino": ({"ENABLE_CPU_PINNING": "NO"},),
    "cuda": ({"enable_cuda_graph": "1"}, {"cudnn_conv_algo_search": "EXHAUSTIVE"}, {"prefer_nhwc": "1"}),
    "tensorrt": ({"trt_cuda_graph_enable": "1"},),
}

_LEADERS = 2
_EVEN = 1.02
"""What is not faster than the reference by more than this is not worth another engine."""

Progress = Callable[[str, int, int], object]


def tune(
    path: str | os.PathLike[str],
    *,
    pictures: Iterable[ImageSource] | None = None,
    truth: Sequence[int] | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    tolerance: float | None = None,
    max_drop: float | None = None,
    preprocess: Preprocess | None = None,
    budget_s: float | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Record:
    """The fastest setting for a file; ``runtime.tuning.record.remember`` keeps it for ``load(engine="auto")``.

    pictures: of the kind that the network will see; noise by default, on which no int8 file is judged.
    truth: the right output index of each picture.
    device, precision, threads: what the setting must keep to; anything that is here by default.
    tolerance: largest difference of a score from the reference's, over the largest score; 1e-2 by default.
    max_drop: in its place, percentage points of top-1 that may be lost; without ``truth``, of ``runtime.tasks.alike``.
    preprocess: for a file that carries none.
    budget_s: seconds for the timing, 20 by default; it comes after every candidate has been opened.

    The record's ``asked`` has these, and the load average for each core before it began: above a half, others were at
    work. Raises what ``load`` raises, and InvalidInput for options that do not fit.
    """
    path, budget = Path(path), BUDGET_S if budget_s is None else budget_s
    limits = limits_of(tolerance, max_drop)
    engine_for(device, None)  # is there such a device?
    if threads is not None and threads < 1:
        raise InvalidInput(f"threads {threads}: give 1 or more, or leave it out to try what is best")
    begin, load = time.perf_counter(), _load_average()
    with ExitStack() as stack:
        files = family(path)
        reference = stack.enter_context(Model(files[0], engine="onnxruntime", decode="exact", preprocess=preprocess))
        material = material_of(reference, pictures, truth)
        if max_drop is not None and material.alike is None:
            raise InvalidInput(f"{path}: is of task {reference.task}: nobody knows its answers: give a tolerance")
        wanted = material.outputs(reference)
        if material.kind == "noise":
            files = [path]
        trials: dict[Setting, Trial] = {}
        models: dict[Setting, Model] = {}
        candidates = list(_candidates(files, device=device, precision=precision, threads=threads))

        def enter(settings: Sequence[Setting], what: str) -> list[Setting]:
            able = []
            for place, setting in enumerate(settings):
                progress(f"{what} {setting.engine} {setting.precision}", place, len(settings))
                model, trials[setting] = _tried(
                    path.with_name(setting.file), setting, wanted, material, limits, preprocess
                )
                if model is not None:
                    models[setting] = stack.enter_context(model)
                    able.append(setting)
            return able

        able = enter(candidates, "opening")
        if not able:
            raise InvalidInput(_nothing(path, trials))
        left = _race(able, models, material, trials, budget * 0.6, progress)
        more = [one for leader in left[:_LEADERS] for one in _variants(leader, fixed=threads is not None)]
        able = left[:_LEADERS] + enter([one for one in more if one not in trials], "trying")
        left = _race(able, models, material, trials, budget * 0.4, progress)
        chosen = _choice(left, trials, Setting(path.name, "onnxruntime", "fp32", threads or usable_cores()))
    trials[chosen] = replace(trials[chosen], verdict="chosen")
    return Record(
        asked={
            "device": device,
            "precision": precision,
            "threads": threads,
            "tolerance": limits.tolerance,
            "max_drop": limits.max_drop,
            "budget_s": budget,
            "pictures": len(material.pictures),
            "material": material.kind,
            "load": round(load, 2),
            "took_s": round(time.perf_counter() - begin, 1),
        },
        machine=this_machine(),
        digests={file.name: sha256(file) for file in (path, *files) if file.name in {path.name, chosen.file}},
        reference=reference.path.name,
        chosen=chosen,
        trials=tuple(sorted(trials.values(), key=lambda trial: (trial.ms is None, trial.ms or 0.0))),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _load_average() -> float:
    """Of the last minute, for each core; 0 where the system does not tell."""
    return os.getloadavg()[0] / usable_cores() if hasattr(os, "getloadavg") else 0.0


def family(path: Path) -> list[Path]:
    """The float32 file first, then what was made from it and lies beside it; at least ``path`` itself."""
    check_file(path)
    told = told_by(path)
    near = {file: found for file in sorted(path.parent.glob("*.onnx")) if (found := told_by(file)) is not None}
    origin, digest = path, sha256(path)
    if told is not None and told.quantization is not None:
        digest = told.quantization.float_sha256
        floats = [file for file, found in near.items() if found.name == told.name and found.quantization is None]
        origin = next((file for file in floats if sha256(file) == digest), path)
    made = [file for file, found in near.items() if found.quantization and found.quantization.float_sha256 == digest]
    return list(dict.fromkeys([origin, path, *made]))


def told_by(path: Path) -> Metadata | None:
    """What a file says of itself; None for one that says nothing, or that cannot be read."""
    with suppress(EdgeZooError, OSError, ValueError, IndexError):
        return Metadata.from_props(properties(path)[0])
    return None


def _candidates(
    files: Sequence[Path], *, device: str | None, precision: str | None, threads: int | None
) -> Iterable[Setting]:
    for name, engine in ENGINES.items():
        if device is not None and engine.device != device:
            continue
        for kind in engine.precisions:
            if precision is None or kind == precision:
                yield from (Setting(file.name, name, kind, threads or usable_cores()) for file in files)


def _variants(leader: Setting, *, fixed: bool) -> Iterable[Setting]:
    """The same with fewer threads, and with the engine's own options."""
    fewer = [] if fixed or ENGINES[leader.engine].device != "cpu" else _halves(leader.threads)
    yield from (replace(leader, threads=count) for count in fewer)
    yield from (replace(leader, options=tuple(options.items())) for options in VARIANTS.get(leader.engine, ()))


def _halves(count: int) -> list[int]:
    found = []
    while count > 1:
        count //= 2
        found.append(count)
    return found


def _tried(
    file: Path,
    setting: Setting,
    wanted: Mapping[str, npt.NDArray[np.float32]],
    material: Material,
    limits: Limits,
    preprocess: Preprocess | None,
) -> tuple[Model | None, Trial]:
    """The opened model where it answers as it should, and what was found."""
    try:
        model = Model(file, **setting.arguments(), decode="exact", preprocess=preprocess)
    except EdgeZooError as error:
        return None, Trial(setting, verdict=str(error))
    try:
        trial = judge(Trial(setting), material.outputs(model), wanted, material, limits)
    except EdgeZooError as error:
        trial = Trial(setting, verdict=str(error))
    if trial.verdict:
        model.close()
        return None, trial
    return model, trial


def _race(
    able: Sequence[Setting],
    models: Mapping[Setting, Model],
    material: Material,
    trials: dict[Setting, Trial],
    seconds: float,
    progress: Progress,
) -> list[Setting]:
    """The settings, fastest first; their times go into the trials."""
    runs: dict[Setting, Callable[[], object]] = {}
    for setting in able:
        model = models[setting]
        runs[setting] = partial(model.run, material.batches(model)[0])
    for setting, times in race(runs, seconds, progress).items():
        middle, low, high = float(np.median(times)), min(times), max(times)
        trials[setting] = replace(trials[setting], ms=middle, low=low, high=high)
    return sorted(able, key=lambda setting: trials[setting].ms or 0.0)


def _choice(left: Sequence[Setting], trials: Mapping[Setting, Trial], plain: Setting) -> Setting:
    """The fastest; the plain way where it is as good as that."""
    best, own = trials[left[0]].ms, trials[plain].ms if plain in trials else None
    return plain if best is not None and own is not None and own <= _EVEN * best else left[0]


def _nothing(path: Path, trials: Mapping[Setting, Trial]) -> str:
    reasons = "; ".join(dict.fromkeys(trial.verdict for trial in trials.values()))
    return f"{path}: nothing here runs it as asked ({reasons or 'no engine for that'}): allow more"
