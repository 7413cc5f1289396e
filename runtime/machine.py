"""This machine as edgezoo sees it: the cores it may use, the onnxruntime it found, what is wrong.

``load_onnxruntime`` is the one door to onnxruntime: what is missing, broken or installed twice
becomes an error with the command that mends it. ``report`` gathers everything for ``zoo doctor``.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import EdgeZooError, MissingDependency

# Every distribution that installs the import package `onnxruntime`, and so overwrites the others.
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-vitisai",
    "onnxruntime-cann",
    "onnxruntime-silicon",
    "onnxruntime-azure",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
    "ort-nightly-directml",
)
_EXTRAS = {"onnxruntime": '"edgezoo[cpu]"', "onnxruntime-gpu": '"edgezoo[gpu]"'}
_REPORTED = (
    *("edgezoo", "numpy", "Pillow", "onnx", "onnxruntime"),
    *("torch", "torchvision", "timm", "tensorflow", "keras", "tf2onnx"),
)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One row of ``runtime.engines.ENGINES``; ``reason`` says why the engine cannot be used here, on its device."""

    engine: str
    device: str
    provider: str
    usable: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class MachineReport:
    """What ``zoo doctor`` prints.

    versions: by distribution name, None where it is not installed.
    onnxruntimes: every installed distribution of onnxruntime with its version; one is right.
    memory_bytes: physical memory of the machine, None where the system does not tell.
    providers: the execution providers the installed onnxruntime was built with.
    problems: what keeps edgezoo from working, each with its remedy; notes: what is worth knowing.
    """

    versions: dict[str, str | None]
    onnxruntimes: dict[str, str]
    platform: str
    cpu: str
    cores_usable: int
    cores_logical: int
    memory_bytes: int | None
    providers: tuple[str, ...]
    devices: tuple[DeviceReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def usable_cores(*, cgroup_root: Path = Path("/sys/fs/cgroup"), self_cgroup: Path = Path("/proc/self/cgroup")) -> int:
    """Cores this process may really use: its CPU affinity or its container's quota, the smaller; at least 1.

    onnxruntime sizes its thread pool from the machine and ignores container limits, which makes it
    slower there, not faster. A quota of one and a half cores counts as two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Ceiling division in integers: exact where a float quotient is not.
    return max(1, min([cores, *(-(-quota // period) for quota, period in _cpu_quotas(cgroup_root, self_cgroup))]))


def _cpu_quotas(root: Path, self_cgroup: Path) -> Iterator[tuple[int, int]]:
    """(quota, period) in microseconds of this process's cgroup and of every parent, v2 and v1."""
    for line in _read(self_cgroup).splitlines():
        match line.split(":", 2):
            case [_, controllers, path] if not controllers or "cpu" in controllers.split(","):
                pass
            case _:
                continue
        v1 = {controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu"}
        mounts = sorted(root / name for name in v1) if controllers else [root, root / "unified"]
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for mount in mounts:
            # A container may see the host's path but only its own subtree: a level that is not there sets no quota,
            # and the mount itself is then the container's own group.
            for depth in range(len(parts), -1, -1):
                group = mount.joinpath(*parts[:depth])
                if controllers:
                    limit = [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
                else:
                    limit = _read(group / "cpu.max").split()
                match [value.strip() for value in limit]:
                    case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:
                        yield int(quota), int(period)


def installed_onnxruntimes() -> dict[str, str]:
    """Name and version of every installed distribution that provides the package ``onnxruntime``."""
    from importlib.metadata import PackageNotFoundError, distribution

    found = {}
    for name in _DISTRIBUTIONS:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        # Some names became plug-ins with an import package of their own; those overwrite nothing.
        top = package.read_text("top_level.txt")
        files = top.split() if top else [file.parts[0] for file in package.files or () if file.name == "__init__.py"]
        if "onnxruntime" in files:
            found[name] = package.version
    return found


@functools.cache
def load_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises MissingDependency, with the command that mends it, when onnxruntime is not installed,
    does not load, or was installed twice over itself.
    """
    from importlib.util import find_spec

    # onnxruntime 1.29 and later send usage data home unless told not to before they load; a device in the
    # field should not. An explicit setting of the user's stands.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:  # without an origin it is a left-over or unrelated folder
        raise MissingDependency(_mend(installed_onnxruntimes()))
    clash = _side_by_side(Path(spec.origin).parent.parent)
    if len(clash) > 1:
        raise MissingDependency(_unclash(clash))
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018  an incomplete installation imports, and is empty
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        raise MissingDependency(_mend(installed_onnxruntimes(), error)) from error
    return onnxruntime


def _side_by_side(folder: Path) -> list[str]:
    """The distributions of onnxruntime in one site-packages folder, where they overwrite each other.

    From the folder's listing (0.1 ms): importing importlib.metadata takes 30 ms, on every start.
    """
    try:
        with os.scandir(folder) as listing:
            entries = [entry.name for entry in listing if entry.name.endswith((".dist-info", ".egg-info"))]
    except OSError:  # imported from an archive
        return []
    names = {entry.partition("-")[0].lower().replace("_", "-").replace(".", "-") for entry in entries}
    return [name for name in _DISTRIBUTIONS if name in names]


def _mend(installed: dict[str, str], error: Exception | None = None) -> str:
    if not installed and error is None:
        return 'onnxruntime is not installed: pip install "edgezoo[cpu]", or "edgezoo[gpu]" for an NVIDIA GPU'
    cause = " ".join(str(error).split()) if error else "its files are gone"
    names = " ".join(installed) or "onnxruntime"
    return f"onnxruntime does not load ({cause}): pip install --force-reinstall --no-deps {names}"


def _unclash(names: list[str]) -> str:
    # Whoever added a second wheel wanted what it adds.
    wanted = next(name for name in names if name != "onnxruntime")
    return (
        f"{' and '.join(names)} are installed over each other: pip uninstall -y {' '.join(names)}, "
        f"then pip install {_EXTRAS.get(wanted, wanted)}"
    )


def report() -> MachineReport:
    """Everything about this machine that explains why edgezoo works here or does not; raises nothing."""
    # engines imports this module: it is needed here only.
    from runtime.engines import ENGINES, why_not

    installed = installed_onnxruntimes()
    providers: tuple[str, ...] = ()
    problems, devices, notes = [], [], []
    try:
        providers = tuple(load_onnxruntime().get_available_providers())
    except MissingDependency as error:
        problems.append(str(error))
    for name, engine in ENGINES.items():
        try:
            reason = why_not(name)
        except EdgeZooError as error:
            reason = str(error)
        devices.append(DeviceReport(name, engine.device, engine.provider, reason is None, reason))
        if reason is not None and engine.provider in providers:
            notes.append(f"onnxruntime was built for {name}, which cannot be used here: {reason}")
    cores, logical = usable_cores(), os.cpu_count() or 1
    if cores < logical:
        notes.append(f"{cores} of {logical} cores may be used (CPU affinity or a container's quota)")
    return MachineReport(
        versions={"python": platform.python_version(), **_versions(installed)},
        onnxruntimes=installed,
        platform=platform.platform(),
        cpu=cpu_name(),
        cores_usable=cores,
        cores_logical=logical,
        memory_bytes=_memory_bytes(),
        providers=providers,
        devices=tuple(devices),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _versions(onnxruntimes: dict[str, str]) -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    versions: dict[str, str | None] = {}
    for name in _REPORTED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    # Whichever distribution brought it: a GPU wheel is onnxruntime too.
    return versions | {"onnxruntime": next(iter(onnxruntimes.values()), None)}


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's, as far as the system tells."""
    fields = dict(line.partition(":")[::2] for line in reversed(_read(cpuinfo).splitlines()))
    names = {key.strip(): value.strip() for key, value in fields.items()}
    # x86 says "model name"; Arm boards say "Model" or "Hardware", or nothing.
    known = (names.get(key) for key in ("model name", "Model", "Hardware"))
    return next((name for name in known if name), None) or platform.processor() or platform.machine()


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's extensions, by Linux's names; none where the system does not tell."""
    words: set[str] = set()
    for line in _read(cpuinfo).splitlines():
        name, _, text = line.partition(":")
        if name.strip().lower() in ("flags", "features"):  # Arm's name is the second
            words.update(text.split())
    return frozenset(words)


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _read(path: Path) -> str:
    """The file's text; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
