"""What integer kernels want on each kind of processor."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Target:
    """weight_bits: 7 where sums of two products of 8 bits overflow. signed: activations as int8, else uint8."""

    weight_bits: int
    signed: bool


TARGETS: dict[str, Target] = {
    "x86-vnni": Target(8, signed=False),  # unsigned times signed: the fast kernels of AVX-VNNI and AVX512-VNNI
    "x86": Target(7, signed=False),  # without VNNI two products of 8 bits are summed in 16, and overflow
    "arm64": Target(8, signed=True),  # signed times signed: the dot product instructions
}


def this_machine() -> str:
    """The row of TARGETS for the processor this runs on."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else []
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(flags) else "x86"
