"""The machine a run was made on, its measured peak, and whether something else was at work meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_VERSIONS = ("python", "edgezoo", "onnxruntime", "numpy", "onnx")
_PROBED = ("cpu", "fp32")
_SIZE = {"cpu": 768, "cuda": 8192}  # of the matrices whose product is the peak
_LOADED = 0.5  # runnable processes per core before the run: others are at work
_STOLEN = 1.0  # percent of the time that other guests of the host took
_DRIFT = 0.10  # between the same products, at the beginning of each round
_UNSETTLED = 0.25  # of the rows
_WAITED = 5.0  # percent of the time, on average, that threads waited for a core that others had


@dataclass(slots=True)
class Watch:
    """Looks at the machine when a run begins, before each of its rounds, and at its end.

    places: (device, precision) that the rows run in; threads: of theirs.
    """

    places: Sequence[tuple[str, str]]
    threads: int
    started: float = field(default_factory=time.time)
    load_before: float | None = field(default_factory=lambda: load())
    times: tuple[int, ...] = field(default_factory=lambda: cpu_times())
    probes: list[float] = field(default_factory=list)
    best: dict[tuple[str, str], float] = field(default_factory=dict)

    def probe(self) -> None:
        """Time the same products once more: what drifts is the machine, and the fastest are its peak."""
        for place in dict.fromkeys([_PROBED, *self.places]):
            if gflops := peak(*place, self.threads):
                self.best[place] = max(gflops, self.best.get(place, 0.0))
                self.probes += [gflops] if place == _PROBED else []

    @property
    def peaks(self) -> list[dict[str, Any]]:
        """The most that onnxruntime got out of this machine, 10^9 operations a second, of each place."""
        return [
            {"device": device, "precision": precision, "threads": self.threads, "gflops": float(f"{gflops:.4g}")}
            for (device, precision), gflops in self.best.items()
        ]

    def steal(self) -> float | None:
        """Percent of the time since the beginning that the host gave to other guests, None where it does not tell."""
        spent = [now - then for now, then in zip(cpu_times(), self.times, strict=False)]
        whole = sum(spent[:8])  # what comes behind is counted among them already
        return 100 * spent[7] / whole if len(spent) > 7 and whole else None

    def reasons(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """What speaks against trusting the run; empty for a quiet one."""
        from runtime.machine import usable_cores

        said, stolen = [], self.steal()
        if self.load_before is not None and self.load_before > _LOADED * usable_cores():
            said.append(f"load average {self.load_before:.1f} before it began: other programs were at work")
        if stolen is not None and stolen > _STOLEN:
            said.append(f"other guests of the host took {stolen:.0f} % of the time")
        if len(self.probes) > 1 and (drift := max(self.probes) / min(self.probes) - 1) > _DRIFT:
            said.append(f"the same product took {100 * drift:.0f} % longer in one round than in another")
        waits = [row["waited_percent"] for row in rows if row["waited_percent"] is not None]
        if waits and (waited := sum(waits) / len(waits)) > _WAITED:
            said.append(f"its threads waited for a core {waited:.0f} % of the time: other programs had it")
        timed = [row["latency_ms"] for row in rows if row["latency_ms"]]
        loose = sum(not latency["settled"] for latency in timed)
        if timed and loose > _UNSETTLED * len(timed):
            said.append(f"{loose} of {len(timed)} rows did not settle")
        return said


def describe(watch: Watch) -> dict[str, Any]:
    """The record's ``machine``."""
    from runtime.machine import report

    told, (gpu, driver) = report(), graphics()
    return {
        "cpu": told.cpu,
        "platform": told.platform,
        "architecture": platform.machine(),
        "cores_usable": told.cores_usable,
        "cores_logical": told.cores_logical,
        "memory_bytes": told.memory_bytes,
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "governor": governor(),
        "flags": flags(),
        "load_before": watch.load_before,
        "load_after": load(),
        "steal_percent": watch.steal(),
        "versions": {name: told.versions.get(name) or "" for name in _VERSIONS},
        "gpu": gpu,
        "gpu_driver": driver,
        "peak_gflops": watch.peaks,
    }


def peak(device: str, precision: str, threads: int | None, *, runs: int = 8) -> float | None:
    """10^9 operations a second of a product of two square matrices, two for each multiply-accumulate.

    The fastest of some runs; None where the device cannot do it.
    """
    from runtime.engines import open_session
    from runtime.errors import EdgeZooError

    model, given = _product(precision, _SIZE[device])
    try:
        session = open_session(model, device=device, threads=threads)
    except EdgeZooError:
        return None
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, {"x": given})
        taken.append(time.perf_counter() - start)
    return 2 * len(given) ** 3 / min(taken) / 1e9


def _product(precision: str, size: int) -> tuple[bytes, Any]:
    """A model that multiplies its input by a matrix, and such an input."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    kind = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[precision]
    second: Any = random.integers(-9, 9, (size, size)).astype(kind)
    given = np.ones((size, size), np.uint8 if precision == "int8" else kind)
    types = helper.np_dtype_to_tensor_dtype(given.dtype), TensorProto.INT32 if precision == "int8" else None
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if precision == "int8" else "MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", types[0], [size, size])],
        [helper.make_tensor_value_info("y", types[1] or types[0], [size, size])],
        [numpy_helper.from_array(second, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString(), given


def load() -> float | None:
    """Runnable processes, averaged over a minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu_times(file: Path = Path("/proc/stat")) -> tuple[int, ...]:
    """Ticks that all cores spent since boot: user, nice, system, idle, iowait, irq, softirq, steal, ..."""
    line = _read(file).partition("\n")[0].split()
    return tuple(int(word) for word in line[1:]) if line[:1] == ["cpu"] else ()


def governor(root: Path = Path("/sys/devices/system/cpu")) -> str | None:
    """The policy by which the frequency of the cores changes; None where the system does not tell, as in a guest."""
    found = {_read(file).strip() for file in root.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return ", ".join(sorted(found)) or None


def flags(file: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Instruction sets that decide how fast a network runs, of those this processor has."""
    from runtime.machine import cpu_flags

    words = cpu_flags(file)
    return [flag for flag in _FLAGS if flag in words]


def graphics() -> tuple[str | None, str | None]:
    """Name and driver version of the first NVIDIA GPU."""
    told = _nvidia("--query-gpu=name,driver_version")
    name, _, driver = told[0].partition(", ") if told else ("", "", "")
    return name or None, driver or None


def device_memory(process: int) -> int | None:
    """Bytes of GPU memory that a process holds now; None where nobody tells."""
    for line in _nvidia("--query-compute-apps=pid,used_memory"):
        number, _, mebibytes = line.partition(", ")
        if number == str(process) and mebibytes.isdecimal():
            return int(mebibytes) * 2**20
    return None


def _nvidia(query: str) -> list[str]:
    try:
        argv = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
