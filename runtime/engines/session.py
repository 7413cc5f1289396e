"""Open an ONNX file in onnxruntime on the device that was asked for, or say why that cannot be.

Strict in both: a device that cannot be used is an error and never another device, and a file
that is not a whole ONNX model, or that reaches outside its folder, never becomes a session.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.engines.table import ENGINES, FULL, NO_OPTIONS, Engine, engine_for, precision_options
from runtime.errors import DeviceUnavailable, InvalidArtifact, InvalidInput
from runtime.forked import OPENING, never_destroy, on_fork
from runtime.machine import installed_onnxruntimes, load_onnxruntime, usable_cores
from runtime.onnxfile import check, check_file

if TYPE_CHECKING:
    import onnxruntime

_FATAL, _WARNING = 4, 2  # onnxruntime's severities: nothing but a crash; its default
# A model that copies one number (Identity, opset 13): what every device that works can open.
_PROBE = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def open_session(
    model: str | os.PathLike[str] | bytes,
    *,
    device: str | None = None,
    engine: str | None = None,
    precision: str = FULL,
    threads: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    profile: Path | None = None,
    leave: Path | None = None,
    prepared: bytes | None = None,
) -> onnxruntime.InferenceSession:
    """An onnxruntime session for a model file, or for the bytes of one, on exactly this device.

    device, engine, precision: of ENGINES; the device's own engine by default. threads: of one inference; by default all
    usable cores. options: session configuration entries ("session.NAME") and the provider's own, under the names
        onnxruntime documents.
    profile: beginning of the name of a file that the time of every operator goes to.
    leave: where to leave the graph as onnxruntime has optimized it for this machine; prepared: that, to begin with.

    Raises InvalidInput for an unknown device, ArtifactNotFound or InvalidArtifact for a file that
    cannot be opened, DeviceUnavailable for a device that cannot be used, and MissingDependency.
    """
    name = _named(device, engine)
    row, said = ENGINES[name], precision_options(name, precision)
    if threads is not None and threads < 1:
        raise InvalidInput(f"threads {threads}: give 1 or more, or leave it out to use all usable cores")
    where = "model bytes" if isinstance(model, bytes) else os.fspath(model)
    if isinstance(model, bytes):
        check(model, where, None)
    else:
        check_file(Path(where))
    ort = load_onnxruntime()
    if reason := _missing(ort, row):
        raise _unavailable(name, reason)
    entries = {key: value for key, value in options.items() if "." in key}
    said |= {key: value for key, value in options.items() if "." not in key}
    if not isinstance(model, bytes):
        said |= {key: value.format(model=where) for key, value in row.beside_file.items()}
    source = prepared or (model if isinstance(model, bytes) else where)
    try:
        with OPENING:
            session = _create(
                ort,
                row,
                source,
                threads or usable_cores(),
                said,
                entries=entries,
                profile=profile,
                leave=leave,
                optimized=prepared is not None,
            )
    except _failures(ort) as error:
        raise _blame(ort, name, where, error) from error
    on_fork(session, never_destroy)
    if row.provider not in session.get_providers():
        raise _unavailable(name, _diagnose(ort, row))
    if not session.get_outputs():
        raise InvalidArtifact(f"{where}: the model has no outputs: export it again")
    return session


def why_unavailable(device: str | None = None, *, engine: str | None = None) -> str | None:
    """Why onnxruntime cannot use this device here, with the remedy; None when a small model opened on it.

    Raises InvalidInput for an unknown device and MissingDependency without onnxruntime.
    """
    name, ort = _named(device, engine), load_onnxruntime()
    row = ENGINES[name]
    if reason := _missing(ort, row):
        return reason
    try:
        session = _create(ort, row, _PROBE, 1, precision_options(name, FULL))
    except _failures(ort) as error:
        return _diagnose(ort, row, error)
    return None if row.provider in session.get_providers() else _diagnose(ort, row)


def _named(device: str | None, engine: str | None) -> str:
    name = engine_for(device, engine)
    if not ENGINES[name].provider.endswith("ExecutionProvider"):
        raise InvalidInput(f"engine {name!r} is none of onnxruntime's: open the file with runtime.load")
    return name


def _create(
    ort: Any,
    engine: Engine,
    source: str | bytes,
    threads: int,
    provider_options: Mapping[str, str],
    *,
    entries: Mapping[str, str] = NO_OPTIONS,
    profile: Path | None = None,
    leave: Path | None = None,
    optimized: bool = False,
) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL  # what goes wrong is raised; nothing needs to be printed as well
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if leave:
        options.optimized_model_filepath = str(leave)
    if optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # By the file's looks it would also take its own binary format, which nothing here has checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    # A provider's library that does not load is logged outside the session, by the default logger, whose level can
    # be set but not read: it is set back to onnxruntime's default. Some versions print as well.
    with contextlib.ExitStack() as quiet:
        if engine.library:
            ort.set_default_logger_severity(_FATAL)
            quiet.callback(ort.set_default_logger_severity, _WARNING)
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        providers = [(engine.provider, dict(provider_options)), *engine.beside]
        session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    session.disable_fallback()  # onnxruntime before 1.26 ignores the argument: no retry on the CPU when a run fails
    return session


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


def _unavailable(name: str, reason: str) -> DeviceUnavailable:
    device = ENGINES[name].device
    what = f"device {device!r}" if name == engine_for(device, None) else f"engine {name!r}"
    return DeviceUnavailable(f"{what} cannot be used: {reason}; or use --device cpu (see `zoo doctor`)")


def _blame(ort: Any, name: str, where: str, error: Exception) -> DeviceUnavailable | InvalidArtifact:
    """Whether the device or the file is at fault, and what to do about it."""
    if ENGINES[name].library and (reason := why_unavailable(engine=name)):
        return _unavailable(name, reason)
    said = _shorten(str(error), where)
    if isinstance(error, MemoryError) or re.search(r"allocate memory|out of memory|(CUDA|CUDNN|CUBLAS) failure", said):
        full = said or "out of memory"
        return DeviceUnavailable(
            f"{where}: device {ENGINES[name].device!r} cannot hold it ({full}): free memory, or use a smaller model"
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
