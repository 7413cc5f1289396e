"""OpenVINO's CPU plugin behind ``Runner``, from the same ONNX file.

Compiled for each input shape when that is first seen, at most a few at a time: with free axes it is slower.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.engines.runner import Port
from runtime.engines.table import ENGINES, precision_options
from runtime.errors import DeviceUnavailable, InvalidArtifact, InvalidInput, MissingDependency
from runtime.forked import never_destroy, on_fork
from runtime.machine import usable_cores
from runtime.onnxfile import check_file, properties

if TYPE_CHECKING:
    from runtime.engines.runner import Array

_SHAPES = 4
"""Compiled at a time, each with weights of its own."""

_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
Shapes = tuple[tuple[int, ...], ...]

_TOOLS = "openvino.tools.ovc"


@functools.cache
def load_openvino() -> Any:
    """The openvino module. Raises MissingDependency where it is not installed, or does not load."""
    # Its converter, imported with it, sends usage data home at once; it is not needed, and can still be imported.
    hidden = "openvino" not in sys.modules and _TOOLS not in sys.modules
    if hidden:
        sys.modules[_TOOLS] = None  # type: ignore[assignment]
    try:
        import openvino
    except (ImportError, OSError) as error:
        install = ENGINES["openvino"].install
        raise MissingDependency(f"openvino does not load ({' '.join(str(error).split())}): {install}") from error
    finally:
        if hidden:
            del sys.modules[_TOOLS]
    return openvino


class OpenVinoRunner:
    """One file. Every thread that runs it at the same time has a request of its own."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        precision: str,
        threads: int | None,
        options: Mapping[str, str],
        prepared: bytes | None = None,
    ) -> None:
        said = precision_options("openvino", precision)
        if threads is not None and threads < 1:
            raise InvalidInput(f"threads {threads}: give 1 or more, or leave it out to use all usable cores")
        self._path = Path(path)
        check_file(self._path)
        self._ov = load_openvino()
        on_fork(self, never_destroy)
        self._core = self._ov.Core()
        _require(self._core, said["INFERENCE_PRECISION_HINT"], precision)
        self._said = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            **said,
            **options,
        }
        try:
            model = self._core.read_model(self._path)
        except RuntimeError as error:
            raise self._unreadable(error) from error
        self._model: Any = model
        self.provider = ENGINES["openvino"].provider
        self.inputs = [_port(port) for port in model.inputs]
        self.outputs = [_port(port) for port in model.outputs]
        self.props, names = properties(self._path)
        self.optional = frozenset(names) - {port.name for port in self.inputs}
        self._programs: dict[Shapes, _Program] = {}
        self._lock = threading.Lock()
        if (shapes := self._one()) is None:
            return
        if prepared is not None:
            self._programs[shapes] = _Program(
                self._core.import_model(BytesIO(prepared), "CPU", self._said), self._ov.Tensor
            )
        else:
            self._program(shapes)

    def _one(self) -> Shapes | None:
        """The inputs' shapes for one picture; None where they are not known before one is given."""
        shapes = []
        for first, *rest in (port.shape for port in self.inputs):
            if not all(isinstance(size, int) for size in rest):
                return None
            shapes.append((first if isinstance(first, int) else 1, *(size for size in rest if isinstance(size, int))))
        return tuple(shapes)

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """These outputs. Raises ValueError for inputs that do not fit."""
        given = [feed[port.name] for port in self.inputs]
        for port, array in zip(self.inputs, given, strict=True):
            if array.dtype != port.dtype:  # OpenVINO would convert it
                raise ValueError(f"{port.name} is {array.dtype}, not {port.dtype}")
        return self._program(tuple(array.shape for array in given)).run(names, given)

    def _program(self, shapes: Shapes) -> _Program:
        program = self._programs.get(shapes)
        if program is not None:
            return program
        with self._lock:
            if shapes not in self._programs:
                if self._model is None:
                    raise ValueError("closed")
                self._programs[shapes] = _Program(self._compiled(shapes), self._ov.Tensor)
                if len(self._programs) > _SHAPES:  # the oldest, but never that of one picture
                    del self._programs[next(key for key in self._programs if key != self._one())]
            return self._programs[shapes]

    def _compiled(self, shapes: Shapes) -> Any:
        for port, shape in zip(self.inputs, shapes, strict=True):
            declared = port.shape
            fixed = [have for have, size in zip(shape, declared, strict=False) if isinstance(size, int)]
            # OpenVINO would give the network another shape.
            if len(shape) != len(declared) or fixed != [size for size in declared if isinstance(size, int)]:
                raise ValueError(f"{port.name} is {list(shape)}, not {declared}")
        try:
            model = self._model.clone()
            model.reshape({port.name: list(shape) for port, shape in zip(self.inputs, shapes, strict=True)})
            compiled = self._core.compile_model(model, "CPU", self._said)
        except RuntimeError as error:
            raise self._unreadable(error) from error
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != self._said["INFERENCE_PRECISION_HINT"]:
            raise DeviceUnavailable(f"OpenVINO computes in {used} on this processor: ask for that, or for fp32")
        return compiled

    def _unreadable(self, error: Exception) -> InvalidArtifact:
        lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if not line.startswith(("Exception from", "Check '"))), "no reason")[:300]
        text = "".join(char if char.isprintable() else "?" for char in said)
        return InvalidArtifact(
            f"{self._path}: OpenVINO {self._ov.__version__} cannot open it ({text}): use another engine"
        )

    def prepared(self) -> bytes:
        """The program for one picture, as OpenVINO exports it."""
        if (shapes := self._one()) is None:
            return b""
        stream = BytesIO()
        self._program(shapes).compiled.export_model(stream)
        return stream.getvalue()

    def close(self) -> None:
        """Let go of the programs; a run under way keeps its own until it ends."""
        with self._lock:
            self._model = None
            self._programs.clear()


class _Program:
    """The network compiled for one shape, and the requests that are free."""

    def __init__(self, compiled: Any, tensor: Any) -> None:
        self.compiled, self._tensor = compiled, tensor
        self._places = {name: place for place, port in enumerate(compiled.outputs) for name in sorted(port.get_names())}
        self._free: deque[Any] = deque()

    def run(self, names: Sequence[str], given: Sequence[Array]) -> list[Array]:
        try:
            request = self._free.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        for place, array in enumerate(given):
            usable = array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")
            request.set_input_tensor(place, self._tensor(usable, shared_memory=True))
        request.infer(share_outputs=True)  # half the cost of giving it a dictionary of inputs
        # A copy: the request's own memory is written to by whoever has it next.
        found = [request.get_output_tensor(self._places[name]).data.copy() for name in names]
        self._free.append(request)
        return found


def _require(core: Any, hint: str, precision: str) -> None:
    """Raises DeviceUnavailable for a precision that the processor has no instructions for."""
    has = list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    if _CAPABILITY[hint] not in has:
        raise DeviceUnavailable(
            f"precision {precision!r} cannot be used: this processor has {', '.join(has)}: use fp32"
        )


def _port(port: Any) -> Port:
    shape = [axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()]
    return Port(min(port.get_names()), shape, port.get_element_type().to_dtype().name)


def open_runner(path: str | os.PathLike[str], engine: str, **setting: Any) -> OpenVinoRunner:
    """See ``runtime.engines.open_runner``."""
    return OpenVinoRunner(path, **setting)


def why_unavailable(engine: str) -> str | None:
    """See ``runtime.engines.why_not``."""
    devices = list(load_openvino().Core().available_devices)
    return None if "CPU" in devices else f"OpenVINO finds no processor it knows, only {', '.join(devices) or 'nothing'}"
