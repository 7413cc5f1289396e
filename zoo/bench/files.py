"""The files that are measured: what is not in the cache is exported and quantized first, in processes of their own."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from runtime.files import sha256 as read_sha256
from zoo.bench.child import Answer, Child
from zoo.bench.rows import Subject

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_PACKAGES = {
    "torch": ("edgezoo", "torch", "torchvision", "timm", "onnxscript", "onnx"),
    "keras": ("edgezoo", "keras", "tensorflow", "tf2onnx", "onnx"),
}
_EXPORTS_OF_A_PROCESS = 6  # frameworks keep some of what they made
_MEMORY_OF_TWO = 14 * 2**30  # bytes; the largest networks of MISSION take 5 GB each while they are exported


@dataclass(frozen=True, slots=True)
class File:
    """A file to measure, or why there is none. weights: as ``zoo export`` knows them; "file": the user's own."""

    path: Path
    weights: str | None = None
    precision: str = "fp32"
    calibrated_on: str | None = None
    problem: str | None = None


def floats(subjects: Sequence[Subject], folder: Path, weights: str, progress: Progress) -> dict[Subject, File]:
    """The float32 file of each network, exported into the folder where it is not there yet.

    weights: "auto" (bundled, else published ones in the framework's cache, else none), "imagenet" or "none".
    """
    found = {subject: own(subject.path) if subject.path else _kept(subject, folder, weights) for subject in subjects}
    missing = [subject for subject, file in found.items() if file is None]
    # The largest first: the end is then not one process at work on the largest, and another with nothing to do.
    missing.sort(key=_size, reverse=True)
    jobs: dict[Subject, Answer] = {
        subject: {
            "target": subject.target,
            "source": subject.source,
            "choices": _choices(subject, weights),
            "output": str(folder / f"{_stem(subject)}.part.onnx"),
        }
        for subject in missing
    }
    for subject, answer in _done(jobs, progress):
        part = Path(jobs[subject]["output"])
        if "problem" in answer:
            found[subject] = File(part, problem=f"not exported: {answer['problem']}")
            continue
        path = folder / f"{_stem(subject)}-{answer['weights']}.onnx"
        part.replace(path)
        found[subject] = File(path, answer["weights"])
    return {subject: file for subject, file in found.items() if file}


def smaller(
    file: File, folder: Path, precision: str, device: str, data: Path | None, labels: Path | None, maker: Child
) -> File:
    """The int8 or fp16 file of a float32 one, made on the user's pictures, or where there are none on noise."""
    if file.problem:
        return file
    ground = "noise" if data is None else "pictures"
    calibrated = ground if precision == "int8" else None
    key = _digest(sha256(file.path), *_versions("edgezoo", "onnx", "numpy"), _machine(), _listing(data), device)
    path = folder / f"{file.path.stem}-{precision}-{device}-{key}.onnx"
    made = replace(file, path=path, calibrated_on=calibrated, precision=precision)
    if path.is_file():
        return made
    job = {
        "file": str(file.path), "output": str(path), "precision": precision, "device": device,
        "data": data and str(data), "labels": labels and str(labels),
    }  # fmt: skip
    answer = maker.ask(job)
    return replace(made, problem=f"no {precision} file: {answer['problem']}") if "problem" in answer else made


def own(path: Path) -> File:
    """A file of the user's, and what it says of itself."""
    from runtime.errors import EdgeZooError
    from runtime.model import load

    try:
        with load(path) as model:
            told = model.metadata
    except EdgeZooError as error:
        return File(path, "file", problem=" ".join(str(error).split()))
    quantized = told.quantization if told else None
    return File(
        path,
        "none" if told and not told.trained else "file",
        precision=quantized.precision if quantized else "fp32",
        calibrated_on=quantized.calibrated_on if quantized else None,
    )


def sha256(path: Path) -> str:
    """Of a file, which is read again only where it has changed."""
    return _sha256(path, path.stat().st_mtime_ns)


@functools.cache
def _sha256(path: Path, changed: int) -> str:
    return read_sha256(path)


def _kept(subject: Subject, folder: Path, weights: str) -> File | None:
    for choice in _choices(subject, weights):
        kind = "imagenet" if choice == "cached" else choice
        path = folder / f"{_stem(subject)}-{kind}.onnx"
        if path.is_file():
            return File(path, kind)
    return None


def _choices(subject: Subject, weights: str) -> list[str]:
    """Weights to try, the first that is at hand to be taken."""
    variant = subject.variant
    if weights != "auto":
        return [weights]
    if variant is None:
        return ["cached", "none"]
    return [*(["bundled"] if variant.bundled else []), *(["cached"] if variant.hub else []), "none"]


def _stem(subject: Subject) -> str:
    builder = subject.variant.builder if subject.variant else subject.target
    return f"{subject.name}-{subject.source}-{_digest(builder, *_versions(*_PACKAGES[subject.source]))}"


def _versions(*packages: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    def one(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"no {name}"

    return [one(name) for name in packages]


def _machine() -> str:
    """What a search for the fastest depends on."""
    from runtime.machine import report

    machine = report()
    return f"{machine.cpu} {machine.cores_usable} {machine.onnxruntimes}"


def _listing(data: Path | None) -> str:
    """Names and sizes of the pictures: enough to know them again."""
    if data is None:
        return ""
    files = sorted(data.rglob("*")) if data.is_dir() else [data]
    return _digest(*(f"{file} {file.stat().st_size}" for file in files if file.is_file()))


def _size(subject: Subject) -> float:
    variant = subject.variant
    return variant.facts.macs if variant and variant.facts else 0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _done(jobs: dict[Subject, Answer], progress: Progress) -> Iterator[tuple[Subject, Answer]]:
    """Each job's answer as it comes, from two processes where the machine has room for them."""
    from runtime.machine import report

    machine = report()
    roomy = machine.cores_usable > 1 and (machine.memory_bytes or 0) >= _MEMORY_OF_TWO
    todo: SimpleQueue[Subject] = SimpleQueue()
    done: SimpleQueue[tuple[Subject, Answer]] = SimpleQueue()
    for subject in jobs:
        todo.put(subject)
    for _ in range(min(2 if roomy else 1, len(jobs))):
        threading.Thread(target=_work, args=(jobs, todo, done), daemon=True).start()
    for count in range(len(jobs)):
        progress("exporting", count, len(jobs))
        yield done.get()


def _work(jobs: dict[Subject, Answer], todo: SimpleQueue[Subject], done: SimpleQueue[tuple[Subject, Answer]]) -> None:
    while True:
        with Child("zoo.bench.make") as child:
            for _ in range(_EXPORTS_OF_A_PROCESS):
                try:
                    subject = todo.get_nowait()
                except Empty:
                    return
                answer = child.ask(jobs[subject])
                done.put((subject, answer))
                if "problem" in answer:
                    break  # the process may be gone
