"""What runs a graph: one row for each engine, on its device, in the precisions it can be held to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runtime.errors import InvalidInput

FULL = "fp32"
"""The precision that nobody has to ask for: float32 is computed in float32."""

_NVIDIA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Engine:
    """One library, on one device, and what it needs.

    device: what its arithmetic runs on. opener: "module:function" that opens a file with it, see ``runtime.engines``.
    provider: what really runs the graph, in the library's own words; onnxruntime's execution provider.
    install: the command that installs it, for onnxruntime one that was built with the provider.
    precisions: what float32 operators may be computed in -> the options that ask for it. The first is float32 itself.
    options: those of every precision, under the names that the library documents.
    driver: shared library without which the device cannot work; looked for first.
    library: name part of an onnxruntime provider's own library; None where it is built in.
    libraries: the command that installs what the provider's library links against.
    beside_file: options that name a place, "{model}" for the path of a model file; not for one in memory.
    session: onnxruntime's session configuration for files that answer about pictures; none where it is measured.
    lost_in_fork: whether a forked child cannot even open the file again.
    beside: providers of the same device for the operators that the engine does not take.
    """

    device: str
    opener: str
    provider: str
    install: str
    precisions: Mapping[str, Mapping[str, str]]
    options: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None
    library: str | None = None
    libraries: str | None = None
    session: Mapping[str, str] = field(default_factory=dict)
    lost_in_fork: bool = False
    beside: tuple[str, ...] = ()
    beside_file: Mapping[str, str] = field(default_factory=dict)


# To add an engine, add a row; opening, tuning and the machine's report take it from here. The first row of a device is
# what runs there unless another is asked for.
ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(
        "cpu",
        "runtime.engines.onnx_runner:open_runner",
        "CPUExecutionProvider",
        install='pip install "edgezoo[cpu]"',
        precisions={FULL: NO_OPTIONS},
        # Its threads spin for 50 ms after a run, on the cores that decode the next picture: that took 8 % of the time
        # from file to label, and a third of the processor's. Runs back to back are as fast without.
        session={"session.intra_op.spin_duration_us": "50"},
    ),
    "openvino": Engine(
        "cpu",
        "runtime.engines.openvino_runner:open_runner",
        "OpenVINO CPU",
        install='pip install "edgezoo[openvino]"',
        # Its default is bf16 wherever the processor has it, without a word.
        precisions={
            FULL: {"INFERENCE_PRECISION_HINT": "f32"},
            "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
            "fp16": {"INFERENCE_PRECISION_HINT": "f16"},
        },
        lost_in_fork=True,  # two of five children hung in its thread pool
    ),
    "cuda": Engine(
        "cuda",
        "runtime.engines.onnx_runner:open_runner",
        "CUDAExecutionProvider",
        install='pip install "edgezoo[gpu]"',
        # The provider's default is TF32, 10 bits of mantissa.
        precisions={FULL: {"use_tf32": "0"}, "tf32": {"use_tf32": "1"}},
        # The provider's default times every convolution algorithm again on each new input shape.
        options={"cudnn_conv_algo_search": "HEURISTIC"},
        driver=_NVIDIA_DRIVER,
        lost_in_fork=True,
        library="cuda",
        libraries='pip install "onnxruntime-gpu[cuda,cudnn]"',
    ),
    "tensorrt": Engine(
        "cuda",
        "runtime.engines.onnx_runner:open_runner",
        "TensorrtExecutionProvider",
        install='pip install "edgezoo[gpu]"',
        precisions={FULL: NO_OPTIONS, "fp16": {"trt_fp16_enable": "1"}, "bf16": {"trt_bf16_enable": "1"}},
        driver=_NVIDIA_DRIVER,
        lost_in_fork=True,
        library="tensorrt",
        libraries="pip install tensorrt",
        beside=("CUDAExecutionProvider",),
        # It compiles for minutes; the next time it reads what it has compiled.
        beside_file={
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "{model}.tensorrt",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "{model}.tensorrt",
        },
    ),
}

DEVICES: tuple[str, ...] = tuple(dict.fromkeys(engine.device for engine in ENGINES.values()))


def engine_for(device: str | None, engine: str | None) -> str:
    """The engine that is meant: the one that is named, or a device's own; the CPU's where neither is.

    Raises InvalidInput for an unknown name, and where the engine does not run on the device.
    """
    if device is not None and device not in DEVICES:
        raise InvalidInput(f"unknown device {device!r}: one of {', '.join(DEVICES)}")
    if engine is None:
        return next(name for name, row in ENGINES.items() if row.device == (device or DEVICES[0]))
    if engine not in ENGINES:
        raise InvalidInput(f"unknown engine {engine!r}: one of {', '.join(ENGINES)}")
    runs_on = ENGINES[engine].device
    if device is not None and device != runs_on:
        raise InvalidInput(f"engine {engine!r} runs on {runs_on}, not on {device}: leave one of the two out")
    return engine


def precision_options(engine: str, precision: str) -> dict[str, str]:
    """What an engine is told for a precision. Raises InvalidInput for one it does not have."""
    row = ENGINES[engine]
    if precision not in row.precisions:
        raise InvalidInput(f"engine {engine!r} has no precision {precision!r}: one of {', '.join(row.precisions)}")
    return {**row.options, **row.precisions[precision]}
