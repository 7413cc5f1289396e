"""Cores, wheels and the report, on fake cgroup trees and fake installations."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import machine
from runtime.engines import ENGINES
from runtime.errors import MissingDependency
from runtime.machine import installed_onnxruntimes, load_onnxruntime, report, usable_cores

ROOT = Path(__file__).parents[2]

Cores = Callable[[dict[str, str]], int]


@pytest.fixture
def cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cores:
    """usable_cores() of a machine of 16 cores with these files: "self" and paths below /sys/fs/cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def cores(files: dict[str, str]) -> int:
        for name, text in files.items():
            path = tmp_path / "self" if name == "self" else tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable_cores(cgroup_root=tmp_path / "cgroup", self_cgroup=tmp_path / "self")

    return cores


V1 = {"cpu.cfs_quota_us": "{}\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # cgroup v2
        ({}, 16),
        ({"self": "0::/\n"}, 16),
        ({"self": "0::/\n", "cpu.max": "max 100000\n"}, 16),
        ({"self": "0::/\n", "cpu.max": "200000 100000\n"}, 2),
        ({"self": "0::/\n", "cpu.max": "150000 100000\n"}, 2),
        ({"self": "0::/\n", "cpu.max": "200001 100000\n"}, 3),
        ({"self": "0::/\n", "cpu.max": "10000 100000\n"}, 1),
        ({"self": "0::/\n", "cpu.max": "6400000 100000\n"}, 16),
        ({"self": "0::/a/b\n", "a/b/cpu.max": "300000 100000\n"}, 3),
        ({"self": "0::/a/b\n", "a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, 4),
        ({"self": "0::/a/b\n", "a/b/cpu.max": "500000 100000\n", "a/cpu.max": "100000 100000\n"}, 1),
        ({"self": "0::/a/b\n", "a/b/cpu.max": "100000 50000\n", "cpu.max": "700000 100000\n"}, 2),
        # another group's quota is not ours
        ({"self": "0::/a\n", "b/cpu.max": "100000 100000\n", "a/b/cpu.max": "100000 100000\n"}, 16),
        # a container that sees the host's path and its own tree
        ({"self": "0::/docker/0123\n", "cpu.max": "200000 100000\n"}, 2),
        ({"self": "0::/../other/x\n", "cpu.max": "200000 100000\n"}, 2),
        # nonsense is no quota
        ({"self": "0::/\n", "cpu.max": "many cores\n"}, 16),
        ({"self": "0::/\n", "cpu.max": ""}, 16),
        ({"self": "0::/\n", "cpu.max": "100000\n"}, 16),
        ({"self": "0::/\n", "cpu.max": "100000 0\n"}, 16),
        ({"self": "nonsense\n0:no path\n", "cpu.max": "100000 100000\n"}, 16),
        # cgroup v1
        ({"self": "4:cpu,cpuacct:/\n", **{f"cpu,cpuacct/{k}": v.format(250000) for k, v in V1.items()}}, 3),
        ({"self": "4:cpu,cpuacct:/\n", **{f"cpu/{k}": v.format(200000) for k, v in V1.items()}}, 2),
        ({"self": "1:cpu:/a/b\n", **{f"cpu/a/{k}": v.format(200000) for k, v in V1.items()}}, 2),
        ({"self": "1:cpu:/docker/01\n", **{f"cpu/{k}": v.format(100000) for k, v in V1.items()}}, 1),
        ({"self": "1:cpu:/\n", **{f"cpu/{k}": v.format(-1) for k, v in V1.items()}}, 16),
        ({"self": "1:cpu:/\n", "cpu/cpu.cfs_quota_us": "100000\n"}, 16),
        ({"self": "3:cpuset:/\n", **{f"cpuset/{k}": v.format(100000) for k, v in V1.items()}}, 16),
        # both at once
        (
            {"self": "1:cpu:/\n0::/a\n", **{f"cpu/{k}": v.format(300000) for k, v in V1.items()}}
            | {"unified/a/cpu.max": "200000 100000\n"},
            2,
        ),
    ],
)
def test_usable_cores(cores: Cores, files: dict[str, str], expected: int) -> None:
    assert cores(files) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.none() | st.tuples(st.integers(1000, 3_000_000), st.integers(1000, 1_000_000)), min_size=1, max_size=5)
)
def test_the_smallest_quota_above_us_wins(cores: Cores, levels: list[tuple[int, int] | None]) -> None:
    groups = ["/".join(f"g{index}" for index in range(depth)) for depth in range(len(levels))]
    texts = [f"{level[0]} {level[1]}" if level else "max 100000" for level in levels]
    files = {f"{group}/cpu.max".lstrip("/"): text for group, text in zip(groups, texts, strict=True)}
    quotas = [math.ceil(Fraction(*level)) for level in levels if level]
    assert cores({"self": f"0::/{groups[-1]}\n", **files}) == min([16, *quotas])


def test_unreadable_files_set_no_quota(cores: Cores, tmp_path: Path) -> None:
    (tmp_path / "cgroup" / "cpu.max").mkdir(parents=True)
    assert cores({"self": "0::/\n"}) == 16
    (tmp_path / "self").unlink()
    (tmp_path / "self").mkdir()
    assert usable_cores(cgroup_root=tmp_path / "cgroup", self_cgroup=tmp_path / "self") == 16


def test_affinity_limits(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores({"self": "0::/\n", "cpu.max": "400000 100000\n"}) == 1


def test_without_affinity_all_cores_count(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores({}) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores({}) == 1


def test_this_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


# --- onnxruntime, found and loaded ---------------------------------------------------------------


def python(code: str, *, path: Path | None = None, bare: bool = False, **environ: str) -> str:
    """Run in a fresh interpreter with ``path`` first on its path; bare: without site-packages."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" if bare else ""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "HOME", "TEMP")}
    result = subprocess.run(
        [sys.executable, *(["-S"] if bare else []), "-c", start + code],
        cwd=ROOT,
        env=kept | ({"PYTHONPATH": str(path)} if path else {}) | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def install(folder: Path, name: str, version: str = "1.0", top: str = "onnxruntime", code: str | None = None) -> None:
    """A distribution as pip leaves it in a site-packages folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{top}/__init__.py,,\n{info.name}/METADATA,,\n")
    (folder / top).mkdir(exist_ok=True)
    (folder / top / "__init__.py").write_text("class InferenceSession: pass\n" if code is None else code)


LOAD = "from runtime.machine import load_onnxruntime\n"
REFUSED = """
from runtime.errors import MissingDependency
try:
    load_onnxruntime()
except MissingDependency as error:
    print(error)
else:
    print("loaded")
"""
FOUND = "from runtime.machine import installed_onnxruntimes as found; print(found())"


def test_the_real_one_is_found_and_loaded_once() -> None:
    onnxruntime = load_onnxruntime()
    assert onnxruntime is sys.modules["onnxruntime"] is load_onnxruntime()
    found = installed_onnxruntimes()
    assert len(found) == 1
    assert list(found.values()) == [onnxruntime.__version__]


def test_not_installed() -> None:
    text = python(LOAD + REFUSED, bare=True)
    assert text.startswith("onnxruntime is not installed")
    assert 'pip install "edgezoo[cpu]"' in text and "edgezoo[gpu]" in text
    assert python(FOUND, bare=True) == "{}"


def test_files_gone_but_still_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    load_onnxruntime.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingDependency, match="--force-reinstall") as caught:
            load_onnxruntime()
    assert next(iter(installed_onnxruntimes())) in str(caught.value)
    # An error is not remembered: what was mended loads.
    assert load_onnxruntime().InferenceSession


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "InferenceSession"),
        ("raise ImportError('libwhatever.so: cannot\\nopen')", "libwhatever.so: cannot open"),
        ("raise OSError('no such library')", "no such library"),
    ],
)
def test_broken_installation(tmp_path: Path, code: str, said: str) -> None:
    install(tmp_path, "onnxruntime", code=code)
    text = python(LOAD + REFUSED, path=tmp_path)
    assert said in text and "pip install --force-reinstall --no-deps onnxruntime" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("second", "wanted"),
    [("onnxruntime-gpu", '"edgezoo[gpu]"'), ("onnxruntime-openvino", "onnxruntime-openvino")],
)
def test_two_wheels_over_each_other(tmp_path: Path, second: str, wanted: str) -> None:
    install(tmp_path, "onnxruntime", "1.30.0")
    install(tmp_path, second, "1.31.1")
    text = python(LOAD + REFUSED, path=tmp_path)
    assert f"pip uninstall -y onnxruntime {second}, then pip install {wanted}" in text
    assert "\n" not in text


def test_two_wheels_in_two_folders_do_not_clash(tmp_path: Path) -> None:
    # A virtual environment that sees the system's packages: the first on the path is whole.
    install(tmp_path / "first", "onnxruntime-gpu")
    install(tmp_path / "second", "onnxruntime")
    both = Path(f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    assert python(LOAD + REFUSED, path=both) == "loaded"


def test_plugins_and_neighbours_do_not_clash(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1")
    install(tmp_path, "onnxruntime-extensions", top="onnxruntime_extensions")
    install(tmp_path, "onnxruntime-genai", top="onnxruntime_genai")
    assert python(LOAD + REFUSED, path=tmp_path) == "loaded"
    assert "'onnxruntime': '1.31.1'" in python(FOUND, path=tmp_path)
    assert "extensions" not in python(FOUND, path=tmp_path)


def test_a_known_name_that_installs_another_package_is_not_counted(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-qnn", top="onnxruntime_qnn")
    install(tmp_path, "onnxruntime-rocm", "1.22.0")
    found = python(FOUND, path=tmp_path)
    assert "qnn" not in found and "'onnxruntime-rocm': '1.22.0'" in found


def test_a_folder_of_that_name_is_not_an_installation(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    code = f"sys.path.insert(0, {str(tmp_path)!r})\n" + LOAD + REFUSED
    assert python(code, bare=True).startswith("onnxruntime is not installed")


def test_usage_data_is_off_unless_the_user_decided(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime")
    show = LOAD + "import os; load_onnxruntime(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert python(show, path=tmp_path) == "1"
    assert python(show, path=tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"


def test_the_real_one_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # onnxruntime's own usage data keeps a device identifier and a queue of events there.
    code = "from runtime.engines import why_unavailable; print(why_unavailable('cpu'))"
    assert python(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache")) == "None"
    assert list(tmp_path.rglob("*")) == []


def test_the_start_does_not_pay_for_package_metadata() -> None:
    assert python(LOAD + "load_onnxruntime(); import sys; print('importlib.metadata' in sys.modules)") == "False"


# --- the report ----------------------------------------------------------------------------------


def test_report_of_this_machine() -> None:
    from importlib.metadata import version

    onnxruntime = load_onnxruntime()
    found = report()
    assert found.versions["numpy"] == version("numpy")
    assert found.versions["onnxruntime"] == onnxruntime.__version__
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.providers == tuple(onnxruntime.get_available_providers())
    assert found.cores_usable == usable_cores() <= found.cores_logical == os.cpu_count()
    assert found.cpu and found.platform
    assert [device.engine for device in found.devices] == list(ENGINES)
    assert found.devices[0].usable and found.devices[0].reason is None
    for device in found.devices:
        assert device.usable == (device.reason is None)
        # A GPU wheel on a machine without a GPU works: worth a note, not a problem.
        assert any(f"built for {device.engine}," in note for note in found.notes) == (
            not device.usable and device.provider in found.providers
        )
    assert found.problems == ()
    plain = found.to_dict()
    assert json.loads(json.dumps(plain))["devices"][0]["device"] == "cpu"


def test_report_loads_no_framework() -> None:
    code = (
        "import sys; from runtime.machine import report; report()\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'tensorflow', 'keras', 'onnx', 'rich'} & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_report_without_onnxruntime_names_the_remedy() -> None:
    code = "import json; from runtime.machine import report; print(json.dumps(report().to_dict()))"
    found = json.loads(python(code, bare=True))
    assert len(found["problems"]) == 1 and "edgezoo[cpu]" in found["problems"][0]
    assert found["onnxruntimes"] == {} and found["providers"] == []
    assert found["versions"]["onnxruntime"] is None and found["versions"]["torch"] is None
    assert not any(device["usable"] for device in found["devices"])


def test_report_names_clashing_wheels(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime")
    install(tmp_path, "onnxruntime-gpu")
    text = python("from runtime.machine import report; print(*report().problems)", path=tmp_path)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in text


def test_report_notes_a_limit_on_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert any("3 of 8 cores" in note for note in report().notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor\t: 0\nmodel name\t: Fast CPU @ 3GHz\n\nprocessor\t: 1\nmodel name\t: Slow CPU\n",
            "Fast CPU @ 3GHz",
        ),
        ("processor\t: 0\nBogoMIPS\t: 108.00\n\nHardware\t: BCM2835\nModel\t\t: Small Board 4\n", "Small Board 4"),
    ],
)
def test_cpu_name(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.cpu_name(tmp_path / "cpuinfo") == expected


def test_cpu_name_without_cpuinfo(tmp_path: Path) -> None:
    assert machine.cpu_name(tmp_path / "missing")
