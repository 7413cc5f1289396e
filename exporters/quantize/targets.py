"""What integer kernels want on each kind of processor."""

from __future__ import annotations

import functools
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from exporters.quantize.scheme import Style
from runtime.engines import why_not
from runtime.errors import MissingDependency


@dataclass(frozen=True, slots=True)
class Target:
    """style: of the integers. engine: of ``runtime.engines``, that times are taken by. processors: that they hold for.

    processors is empty where any will do.
    """

    style: Style
    engine: str = "onnxruntime"
    processors: tuple[str, ...] = ()


# To add a target, add a row.
TARGETS: dict[str, Target] = {
    # unsigned times signed: the fast kernels of AVX-VNNI and AVX512-VNNI
    "x86-vnni": Target(Style(weight_bits=8), processors=("x86-vnni",)),
    # without VNNI two products of 8 bits are summed in 16, and overflow
    "x86": Target(Style(weight_bits=7), processors=("x86",)),
    # signed times signed: the dot product instructions
    "arm64": Target(Style(weight_bits=8, signed=True), processors=("arm64",)),
    # CUDA's and TensorRT's kernels: signed, 0 as the zero point, rectifiers as they are, biases in float
    "cuda": Target(Style(weight_bits=8, signed=True, symmetric=True), engine="cuda"),
    # as x86-vnni; activation functions become part of its integer kernels where no other integers come between
    "openvino": Target(Style(weight_bits=8, fused=True), engine="openvino"),
}


def this_machine() -> str:
    """The row of TARGETS for the processor this runs on."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else []
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(flags) else "x86"


@functools.cache
def at_hand(target: Target) -> bool:
    """Whether times that are taken here are those of the target."""
    if target.processors:
        return this_machine() in target.processors
    with suppress(MissingDependency):
        return why_not(target.engine) is None
    return False


def measured_by(target: Target) -> str:
    """The engine that a file for the target is measured by here: onnxruntime where its own is not at hand."""
    return target.engine if at_hand(target) else "onnxruntime"
