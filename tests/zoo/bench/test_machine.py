"""What is said of the machine, from files as systems write them."""

import platform
from pathlib import Path
from typing import Any

import pytest

from zoo.bench import machine
from zoo.bench.machine import Watch, cpu_times, flags, governor, graphics, peak


def test_flags_of_both_architectures(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni made_up\n")
    assert flags(info) == ["sse4_2", "avx2", "avx512f", "avx512_vnni"]
    info.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    assert flags(info) == ["asimd", "asimddp", "i8mm"]
    assert flags(tmp_path / "nothing") == []


def test_governor(tmp_path: Path) -> None:
    assert governor(tmp_path) is None
    for number, text in enumerate(["performance\n", "performance\n", "powersave\n"]):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(text)
    assert governor(tmp_path) == "performance, powersave"


def test_stolen_time_is_a_share_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
    before = cpu_times(stat)
    assert before[:4] == (100, 0, 100, 800)
    monkeypatch.setattr(machine, "cpu_times", lambda: (150, 0, 100, 840, 0, 0, 0, 10, 50, 0))
    assert Watch([], 1, times=before).steal() == pytest.approx(10.0)  # of 100 ticks; guests are in user's already
    assert cpu_times(tmp_path / "nothing") == ()


def row(settled: bool, waited: float | None = 1.0) -> dict[str, Any]:
    return {"latency_ms": {"settled": settled}, "waited_percent": waited}


def test_a_quiet_run_and_noisy_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_times", lambda: ())
    assert Watch([], 2, load_before=0.1, probes=[100.0, 104.0]).reasons([row(True)] * 4 + [row(False)]) == []
    (said,) = Watch([], 2, load_before=50.0).reasons([])
    assert "load average 50.0" in said
    (said,) = Watch([], 2, load_before=0.1, probes=[100.0, 80.0]).reasons([])
    assert "25 % longer" in said
    (said,) = Watch([], 2, load_before=0.1).reasons(
        [row(True), row(False), {"latency_ms": None, "waited_percent": None}]
    )
    assert "1 of 2 rows" in said
    (said,) = Watch([], 2, load_before=0.1).reasons([row(True, 30.0), row(True, 0.0), row(True, None)])
    assert "15 % of the time" in said
    monkeypatch.setattr(machine, "cpu_times", lambda: (0,) * 7 + (100,))
    (said,) = Watch([], 2, load_before=0.1, times=(0,) * 8).reasons([])
    assert "100 %" in said


def test_a_peak_is_plausible_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (peak("cpu", "fp32", 1, runs=3) or 0) > 1
    assert (peak("cpu", "int8", 1, runs=3) or 0) > 1
    assert peak("cuda", "fp32", 1, runs=1) is None or graphics()[0]
    found = iter([100.0, 300.0, 120.0, 290.0])
    monkeypatch.setattr(machine, "peak", lambda *place: next(found))
    watch = Watch([("cpu", "int8")], 2)
    watch.probe()
    watch.probe()
    assert watch.probes == [100.0, 120.0]
    assert [(told["precision"], told["gflops"]) for told in watch.peaks] == [("fp32", 120.0), ("int8", 300.0)]
    assert machine.describe(watch)["architecture"] == platform.machine()


def test_what_nvidia_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "--query-gpu=name,driver_version": ["NVIDIA H200, 570.1"],
        "--query-compute-apps=pid,used_memory": ["7, 900", "8, 5"],
    }
    monkeypatch.setattr(machine, "_nvidia", lambda query: said[query])
    assert graphics() == ("NVIDIA H200", "570.1")
    assert machine.device_memory(7) == 900 * 2**20
    assert machine.device_memory(9) is None
