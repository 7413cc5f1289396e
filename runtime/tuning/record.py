"""What tuning has found of a file, kept beside it: ``model.onnx.tuned.json``, and what makes its engine start sooner.

A record holds for the bytes of the files, this machine, and these versions. One that is stale, damaged or of another
form is passed over, never trusted; the file is then tuned again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from runtime.engines import ENGINES, Runner, open_runner
from runtime.errors import OutputNotWritable
from runtime.files import sha256, write
from runtime.machine import cpu_flags, cpu_name, usable_cores
from runtime.metadata import Preprocess

SCHEMA = 1
SUFFIX, PREPARED = ".tuned.json", ".tuned.bin"

_OPENINGS, _WORTH = 3, 0.8

_PACKAGES = ("edgezoo", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a network. file: by name, in the folder of the record. options: the engine's own."""

    file: str
    engine: str
    precision: str
    threads: int
    options: tuple[tuple[str, str], ...] = ()

    def arguments(self) -> dict[str, Any]:
        """What ``runtime.model.Model`` is given for it, beside the path."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "threads": self.threads,
            "options": dict(self.options),
        }

    def __str__(self) -> str:
        said = "".join(f", {name.rpartition('.')[2]}={value}" for name, value in self.options)
        return f"{self.file}: {self.engine} {self.precision}, {self.threads} threads{said}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one setting was found to be. ms: median, with the spread of its turns, where it was timed.

    error: of the scores, largest difference over the largest of the reference. agreement: percent of the same answers,
    ``runtime.tasks.alike``; None where nobody knows what they are. top1: percent right, where labels were given.
    verdict: why it is not the one, or that it is.
    """

    setting: Setting
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    error: float | None = None
    agreement: float | None = None
    top1: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One tuning: what was asked, what was found, for what it holds.

    asked: the limits, as ``runtime.tuning.search.tune`` was given them. digests: of every file that took part.
    prepared: SHA-256 of the file that makes the chosen engine start sooner, where there is one.
    """

    asked: Mapping[str, Any]
    machine: Mapping[str, Any]
    digests: Mapping[str, str]
    reference: str
    chosen: Setting
    trials: tuple[Trial, ...]
    date: str
    prepared: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is no record of this form."""
        values = dict(data)
        if values.pop("schema") != SCHEMA:
            raise ValueError("another form")
        values["chosen"] = _setting(values["chosen"])
        values["trials"] = tuple(
            Trial(**{**trial, "setting": _setting(trial["setting"])}) for trial in values["trials"]
        )
        record = cls(**values)
        chosen = record.chosen
        if chosen.file not in record.digests or Path(chosen.file).name != chosen.file:
            raise ValueError("a file that took no part")
        if chosen.precision not in ENGINES[chosen.engine].precisions or not 1 <= chosen.threads <= 4096:
            raise ValueError("no setting")
        return record


def _setting(data: Mapping[str, Any]) -> Setting:
    return Setting(**{**data, "options": tuple((str(name), str(value)) for name, value in data["options"])})


def this_machine() -> dict[str, Any]:
    """What a measured time depends on beside the file: processor, cores, versions."""
    return {
        "cpu": cpu_name(),
        "flags": hashlib.sha256(" ".join(sorted(cpu_flags())).encode()).hexdigest()[:16],
        "cores": usable_cores(),
        "system": f"{sys.platform} {platform.machine()}",
        "versions": dict(_versions()),
    }


def _versions() -> Any:
    from importlib.metadata import PackageNotFoundError, version

    for name in _PACKAGES:
        for distribution in (name, f"{name}-gpu"):
            try:
                yield name, version(distribution)
                break
            except PackageNotFoundError:
                continue


def read(path: Path) -> Record | None:
    """The record beside a model file; None where there is none that holds here and now."""
    try:
        record = Record.from_dict(json.loads(beside(path, SUFFIX).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if record.machine != this_machine() or path.name not in record.digests:
        return None
    try:
        same = all(sha256(path.with_name(name)) == digest for name, digest in _needed(path, record).items())
    except OSError:
        return None
    return record if same else None


def _needed(path: Path, record: Record) -> dict[str, str]:
    return {name: record.digests[name] for name in {path.name, record.chosen.file}}


def remember(path: Path, record: Record) -> Record:
    """Write the record beside the model, and what makes the chosen engine start sooner, where anything does.

    Raises OutputNotWritable.
    """
    data = _sooner(path.with_name(record.chosen.file), record.chosen)
    if data is None:
        with suppress(OSError):  # one that stays behind has another digest, and is not used
            beside(path, PREPARED).unlink(missing_ok=True)
    else:
        write(beside(path, PREPARED), data)
        record = replace(record, prepared=hashlib.sha256(data).hexdigest())
    write(beside(path, SUFFIX), (json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())
    return record


def _sooner(file: Path, setting: Setting) -> bytes | None:
    """The engine's own form of the graph, where it opens in clearly less time than the file and answers the same."""
    if ENGINES[setting.engine].device != "cpu":
        return None  # what a GPU's provider has compiled cannot be written; TensorRT keeps a cache of its own
    plain, plain_ms = _opened(file, setting, None)
    shape = [size if isinstance(size, int) else 1 for size in plain.inputs[0].shape]
    if not all(isinstance(size, int) for size in plain.inputs[0].shape[1:]):
        return None
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(plain.inputs[0].dtype)
    data = plain.prepared()
    ready, ready_ms = _opened(file, setting, data)
    name, output = plain.inputs[0].name, plain.outputs[0].name
    first, again = (runner.run([output], {name: noise})[0] for runner in (plain, ready))
    same = np.allclose(first, again, rtol=0, atol=1e-5 * float(np.abs(first).max()))
    return data if same and ready_ms < _WORTH * plain_ms else None


def _opened(file: Path, setting: Setting, prepared: bytes | None) -> tuple[Runner, float]:
    """An opened file, and the least milliseconds that took in some attempts."""
    times = list[float]()
    for _ in range(_OPENINGS):
        start = time.perf_counter()
        runner = open_runner(file, **setting.arguments(), prepared=prepared)
        times.append(1000 * (time.perf_counter() - start))
    return runner, min(times)


def beside(path: Path, suffix: str) -> Path:
    """The file of that suffix which belongs to a model file."""
    return path.with_name(path.name + suffix)


def opening(
    path: str | os.PathLike[str],
    *,
    device: str | None,
    precision: str | None,
    threads: int | None,
    preprocess: Preprocess | None,
) -> tuple[Path, dict[str, Any]]:
    """The file to open and how, for ``engine="auto"``: as recorded, or as tuning finds now, which takes some seconds.

    device, precision, threads: what the setting must keep to, where they are given. preprocess: as ``load`` has it.
    """
    model = Path(path)
    record = read(model)
    limits = {"device": device, "precision": precision, "threads": threads}
    if record is None or not _within(record.chosen, limits):
        from runtime.tuning.search import tune

        record = tune(model, device=device, precision=precision, threads=threads, preprocess=preprocess)
        try:
            record = remember(model, record)
        except OutputNotWritable as error:
            warnings.warn(f"{error}: it will be tuned again the next time", stacklevel=3)
    return model.with_name(record.chosen.file), record.chosen.arguments() | {"prepared": _prepared(model, record)}


def _within(setting: Setting, limits: Mapping[str, Any]) -> bool:
    has = {"device": ENGINES[setting.engine].device, "precision": setting.precision, "threads": setting.threads}
    return all(wanted is None or has[name] == wanted for name, wanted in limits.items())


def _prepared(path: Path, record: Record) -> bytes | None:
    if record.prepared is None:
        return None
    try:
        data = beside(path, PREPARED).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == record.prepared else None
