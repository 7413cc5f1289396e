"""Open an ONNX file on the device that was asked for, or say why that cannot be.

Strict in both: a device that cannot be used is an error and never another device, and a file
that is not a whole ONNX model, or that reaches outside its folder, never becomes a session.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import ArtifactNotFound, DeviceUnavailable, InvalidArtifact, InvalidInput
from runtime.machine import installed_onnxruntimes, load_onnxruntime, usable_cores

if TYPE_CHECKING:
    import onnxruntime

_NVIDIA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Engine:
    """The onnxruntime execution provider behind one device, and what it needs.

    install: the command that installs an onnxruntime built with this provider.
    options: the provider's own, under the names onnxruntime documents.
    driver: shared library without which the device cannot work; looked for first.
    library: name part of the provider's own library; None where it is built in.
    libraries: the command that installs what the provider's library links against.
    """

    provider: str
    install: str
    options: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None
    library: str | None = None
    libraries: str | None = None


# To add a device, add a row; `open_session`, `why_unavailable` and the machine's report take it from here.
ENGINES: dict[str, Engine] = {
    "cpu": Engine("CPUExecutionProvider", install='pip install "edgezoo[cpu]"'),
    "cuda": Engine(
        "CUDAExecutionProvider",
        install='pip install "edgezoo[gpu]"',
        # The provider's default times every convolution algorithm again on each new input shape.
        options={"cudnn_conv_algo_search": "HEURISTIC"},
        driver=_NVIDIA_DRIVER,
        library="cuda",
        libraries='pip install "onnxruntime-gpu[cuda,cudnn]"',
    ),
}

_FATAL, _WARNING = 4, 2  # onnxruntime's severities: nothing but a crash; its default
# A model that copies one number (Identity, opset 13): what every device that works can open.
_PROBE = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def open_session(
    model: str | os.PathLike[str] | bytes, *, device: str = "cpu", threads: int | None = None
) -> onnxruntime.InferenceSession:
    """An onnxruntime session for a model file, or for the bytes of one, on exactly this device.

    device: a key of ENGINES. threads: of one inference; by default all usable cores.

    Raises InvalidInput for an unknown device, ArtifactNotFound or InvalidArtifact for a file that
    cannot be opened, DeviceUnavailable for a device that cannot be used, and MissingDependency.
    """
    engine = _engine(device)
    if threads is not None and threads < 1:
        raise InvalidInput(f"threads {threads}: give 1 or more, or leave it out to use all usable cores")
    where = "model bytes" if isinstance(model, bytes) else os.fspath(model)
    if isinstance(model, bytes):
        _check(model, where, None)
    else:
        _check_file(Path(where))
    ort = load_onnxruntime()
    if reason := _missing(ort, engine):
        raise _unavailable(device, reason)
    try:
        session = _create(ort, engine, model if isinstance(model, bytes) else where, threads or usable_cores())
    except _failures(ort) as error:
        raise _blame(ort, device, where, error) from error
    if engine.provider not in session.get_providers():
        raise _unavailable(device, _diagnose(ort, engine))
    if not session.get_outputs():
        raise InvalidArtifact(f"{where}: the model has no outputs: export it again")
    return session


def why_unavailable(device: str) -> str | None:
    """Why this device cannot be used here, with the remedy; None when a small model opened on it.

    Raises InvalidInput for an unknown device and MissingDependency without onnxruntime.
    """
    engine, ort = _engine(device), load_onnxruntime()
    if reason := _missing(ort, engine):
        return reason
    try:
        session = _create(ort, engine, _PROBE, threads=1)
    except _failures(ort) as error:
        return _diagnose(ort, engine, error)
    return None if engine.provider in session.get_providers() else _diagnose(ort, engine)


def _engine(device: str) -> Engine:
    if device not in ENGINES:
        raise InvalidInput(f"unknown device {device!r}: one of {', '.join(ENGINES)}")
    return ENGINES[device]


def _create(ort: Any, engine: Engine, source: str | bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL  # what goes wrong is raised; nothing needs to be printed as well
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # By the file's looks it would also take its own binary format, which nothing here has checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers = [(engine.provider, dict(engine.options))]
    if engine.library is None:
        return ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    # A provider's library that does not load is logged outside the session, by the default logger. Its level
    # can be set but not read: set back to onnxruntime's default.
    ort.set_default_logger_severity(_FATAL)
    try:
        return ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    finally:
        ort.set_default_logger_severity(_WARNING)


def _failures(ort: Any) -> tuple[type[Exception], ...]:
    """Everything session creation raises: onnxruntime's errors share no base, some come as builtins."""
    own = vars(ort.capi.onnxruntime_pybind11_state).values()
    classes = [item for item in own if isinstance(item, type) and issubclass(item, Exception)]
    return (*classes, RuntimeError, ValueError, TypeError, MemoryError)


def _missing(ort: Any, engine: Engine) -> str | None:
    """Why the device cannot work, as far as it can be seen without trying; else load what it needs."""
    available = ort.get_available_providers()
    if engine.provider not in available:
        names = " ".join(installed_onnxruntimes()) or "onnxruntime"
        has = f"{engine.provider} (it has {', '.join(available)})"
        return f"the installed {names} has no {has}: pip uninstall -y {names}, then {engine.install}"
    if engine.driver:
        try:
            ctypes.CDLL(engine.driver)
        except OSError as error:
            return f"no NVIDIA driver ({error}): install the driver"
        _preload(ort)
    return None


@functools.cache
def _preload(ort: Any) -> None:
    """Load CUDA and cuDNN from pip packages, where the system's loader does not look."""
    # It prints what it does not find; what then fails is said by `_diagnose`.
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def _diagnose(ort: Any, engine: Engine, error: Exception | None = None) -> str:
    """Why the provider did not start. Only after onnxruntime itself tried: its libraries expect that."""
    if engine.library:
        suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
        name = f"{'' if sys.platform == 'win32' else 'lib'}onnxruntime_providers_{engine.library}{suffix}"
        try:
            ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / name))
        except OSError as failure:
            return f"{engine.provider} does not load ({failure}): {engine.libraries}"
    if engine.driver:
        driver, version, text = ctypes.CDLL(engine.driver), ctypes.c_int(), ctypes.c_char_p()
        if code := driver.cuInit(0):
            driver.cuGetErrorName(code, ctypes.byref(text))
            return f"the NVIDIA driver finds no usable GPU ({(text.value or b'error %d' % code).decode()})"
        driver.cuDriverGetVersion(ctypes.byref(version))
        needs = str(getattr(ort, "cuda_version", ""))
        if needs.partition(".")[0].isdecimal() and version.value // 1000 < int(needs.partition(".")[0]):
            has = f"{version.value // 1000}.{version.value % 1000 // 10}"
            return f"the NVIDIA driver supports CUDA {has}, onnxruntime needs {needs}: update the driver"
    said = _shorten(str(error), "") if error else "onnxruntime left it out of the session without a word"
    return f"{engine.provider} does not start ({said}): check the GPU with nvidia-smi"


def _unavailable(device: str, reason: str) -> DeviceUnavailable:
    return DeviceUnavailable(f"device {device!r} cannot be used: {reason}; or use --device cpu (see `zoo doctor`)")


def _blame(ort: Any, device: str, where: str, error: Exception) -> DeviceUnavailable | InvalidArtifact:
    """Whether the device or the file is at fault, and what to do about it."""
    if ENGINES[device].library and (reason := why_unavailable(device)):
        return _unavailable(device, reason)
    said = _shorten(str(error), where)
    if isinstance(error, MemoryError) or re.search(r"allocate memory|out of memory|(CUDA|CUDNN|CUBLAS) failure", said):
        full = said or "out of memory"
        return DeviceUnavailable(
            f"{where}: device {device!r} cannot hold it ({full}): free memory, or use a smaller model"
        )
    reads = f"newer than onnxruntime {ort.__version__} reads"
    remedy = "install a newer onnxruntime, or export the model for an older"
    if opset := re.search(r"Opset (\d+) is under development.* domain (\S+) is till opset (\d+)", said):
        domain = "" if opset[2] == "ai.onnx" else f" of {opset[2]}"
        return InvalidArtifact(f"{where}: opset {opset[1]}{domain} is {reads} ({opset[3]}): {remedy} opset")
    if version := re.search(r"model IR version: (\d+), max supported IR version: (\d+)", said):
        return InvalidArtifact(f"{where}: ONNX IR version {version[1]} is {reads} ({version[2]}): {remedy} version")
    if re.search(r"No Op registered|not a registered function|Could not find an implementation", said):
        return InvalidArtifact(
            f"{where}: uses an operator that onnxruntime {ort.__version__} does not have ({said}): export it without"
        )
    return InvalidArtifact(f"{where}: onnxruntime cannot open it ({said}): export it again, or get a whole copy")


# "/src/graph.cc:12 void onnxruntime::Graph::Resolve(const A&) It failed", "tensor.cc:12 Unpack It failed"
_SOURCE_LINE = re.compile(
    r"(?:[\w:.\\/-]*[\\/])?[\w-]+\.(?:cc|cpp|cuh?|h|hpp):\d+ (?:[\w:<>,&*~ ]*::~?\w+\([^()]*\)|\w+(?:\(\))?) "
)


def _shorten(message: str, where: str) -> str:
    """What onnxruntime said, on one line, without where in its own sources it said so."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message.strip())
    message = message.removeprefix(f"Load model from {where} failed:").removeprefix("Exception during initialization: ")
    # A name from a hostile file can be megabytes long, too long for these patterns.
    message = _SOURCE_LINE.sub(" ", message[:2000]).strip().partition(" ; GPU=")[0]
    message = re.sub(
        r"^(?:This is an invalid model\.|Invalid model\.|Fatal error:) (?:In Node, .* , )?(?:Error:? )?", "", message
    )
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    # Names come from the file: no terminal escapes.
    text = "".join(char if char.isprintable() else "?" for char in (lines[0] if lines else ""))
    return text.removesuffix(".") if len(text) <= 400 else text[:399] + "…"


# ONNX's protobuf, read by hand because the onnx package is no part of the runtime: 1 ms for a resnet50.
# By field number, what leads from a model to external data and to opsets.
_TENSOR: dict[int, Any] = {13: "external_data"}
_SPARSE: dict[int, Any] = {1: _TENSOR, 2: _TENSOR}
_ATTRIBUTE: dict[int, Any] = {5: _TENSOR, 10: _TENSOR, 22: _SPARSE, 23: _SPARSE}
_GRAPH: dict[int, Any] = {1: {5: _ATTRIBUTE}, 5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE |= {6: _GRAPH, 11: _GRAPH}
_MODEL: dict[int, Any] = {7: _GRAPH, 8: "opset_import", 25: {7: {5: _ATTRIBUTE}, 11: _ATTRIBUTE}}


def _check_file(path: Path) -> None:
    """Raise ArtifactNotFound or InvalidArtifact unless this is a well-formed model that stays in its folder."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactNotFound(f"{path}: {reason}: check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ArtifactNotFound(f"{path}: this is {kind}: give the path of an .onnx file")
    if status.st_size == 0:
        raise InvalidArtifact(f"{path}: the file is empty: export it again, or get a whole copy")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(data, str(path), path)
    except OSError as error:
        raise InvalidArtifact(f"{path}: cannot be read ({error.strerror}): check the file's permissions") from error


def _check(data: bytes | mmap.mmap, where: str, path: Path | None) -> None:
    """Refuse what onnxruntime takes: a missing opset, which it makes up, and (measured up to 1.26) files elsewhere.

    A model cut between two opset entries is whole to protobuf and runs with the wrong operators.
    """
    try:
        found = _scan(data)
    except (ValueError, IndexError) as error:
        if data[:24] == b"version https://git-lfs.":
            raise InvalidArtifact(f"{where}: a Git LFS pointer, not the model itself: git lfs pull") from error
        raise InvalidArtifact(
            f"{where}: not an ONNX file, or cut short: export it again, or get a whole copy"
        ) from error
    if not any(opset.get(1, b"") in (b"", b"ai.onnx") for opset in found["opset_import"]):
        raise InvalidArtifact(f"{where}: no ONNX model, or cut short (it names no opset): export it again")
    for entry in found["external_data"]:
        if entry.get(1) == b"location":
            _check_location(entry.get(2, b"").decode(errors="backslashreplace"), where, path)


def _check_location(name: str, where: str, path: Path | None) -> None:
    if path is None:
        raise InvalidArtifact(f"{where}: the weights are in another file, {name!r}: open the model by its path")
    try:
        target = (path.parent / name).resolve()
        inside = not Path(name).is_absolute() and target.is_relative_to(path.resolve().parent)
    except (ValueError, OSError, RuntimeError):  # a NUL byte, a name too long, links in a circle
        inside = False
    if not inside:
        raise InvalidArtifact(f"{where}: the weights file {name!r} is not inside the model's folder: not opened")
    if not target.is_file():
        raise InvalidArtifact(f"{where}: the weights file {name!r} is missing: keep it beside the model")


def _scan(data: bytes | mmap.mmap) -> dict[str, list[dict[int, bytes]]]:
    """The string fields of every external_data and opset_import entry, without reading the weights.

    Raises ValueError or IndexError where the bytes are not well-formed protobuf.
    """
    found: dict[str, list[dict[int, bytes]]] = {"external_data": [], "opset_import": []}
    stack: list[tuple[Any, int, int]] = [(_MODEL, 0, len(data))]
    while stack:
        schema, start, stop = stack.pop()
        for number, begin, end in _fields(data, start, stop):
            inner = schema.get(number)
            if isinstance(inner, str):
                found[inner].append({key: data[first:last] for key, first, last in _fields(data, begin, end)})
            elif inner is not None:
                stack.append((inner, begin, end))
    return found


def _fields(data: bytes | mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of every length-delimited field of one protobuf message."""
    while position < end:
        tag, position = _varint(data, position)
        match tag & 7:
            case 2:
                length, position = _varint(data, position)
                yield tag >> 3, position, position + length
                position += length
            case 0:
                _, position = _varint(data, position)
            case 1 | 5 as kind:
                position += 8 if kind == 1 else 4
            case _:
                raise ValueError("not protobuf")
    if position != end:
        raise ValueError("a field ends outside its message")


def _varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
