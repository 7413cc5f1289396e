"""A row of the record from what was measured: every figure worked out again by hand."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.bench.files import File
from zoo.bench.measure import empty
from zoo.bench.results import Line, row, with_ratios
from zoo.bench.rows import subjects


def raw(*medians: float) -> dict[str, Any]:
    rounds = [[[median, 1.01 * median, 0.99 * median] for _ in range(4)] for median in medians]
    told = {"load_ms": [50.0, 60.0, 70.0], "first_ms": [9.0], "memory": 2**27, "provider": "CPUExecutionProvider"}
    waited = [[0.0] * 4 for _ in medians]
    return empty() | told | {"rounds": rounds, "waited": waited, "input": [3, 224, 224]}


def line(path: Path, **changes: Any) -> Line:
    (subject,) = subjects(["mobilenet_v2"])
    values = {"file": File(path, "none"), "precision": "fp32", "device": "cpu", "batch": 2, "threads": 2}
    return Line(subject, **(values | changes))


def test_figures(tiny: Callable[..., Path]) -> None:
    path = tiny()
    found = row(line(path), raw(10.0, 10.0, 10.2), [{"device": "cpu", "precision": "fp32", "gflops": 240.0}])
    assert found["problem"] is None
    assert found["latency_ms"]["median"] == pytest.approx(10.0, rel=0.02) and found["latency_ms"]["rounds"] == 3
    seconds = found["latency_ms"]["median"] / 1000
    assert found["images_per_second"] == pytest.approx(2 / seconds, rel=1e-4)
    # mobilenet_v2: 300.8 million multiply-accumulates for one picture, as the paper says
    assert found["macs"] == pytest.approx(300.8e6, rel=1e-3)
    assert found["gflops"] == pytest.approx(2 * 2 * found["macs"] / seconds / 1e9, rel=1e-4)
    assert found["share_of_peak"] == pytest.approx(found["gflops"] / 240, rel=1e-4)
    assert (found["load_ms"], found["first_ms"], found["peak_memory_mib"]) == (60.0, 9.0, 128.0)
    assert found["turns_ms"] == [[10.0] * 4, [10.0] * 4, [10.2] * 4]
    assert len(found["samples_ms"]) == 36
    assert found["bytes"] == path.stat().st_size
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["parameters"], found["depth"], found["input"]) == (3_538_984, 105, [3, 224, 224])
    assert found["provider_share"] == 1.0


def test_published_accuracy_is_marked_and_of_float32_alone(tiny: Callable[..., Path]) -> None:
    path = tiny()
    published = row(line(path), empty(), [])
    assert (published["top1"], published["accuracy"]) == (71.878, "published")
    assert published["published"]["source"] == "torchvision"
    measured = row(line(path, accuracy=(70.0, 90.0)), empty(), [])
    assert (measured["top1"], measured["top5"], measured["accuracy"]) == (70.0, 90.0, "measured")
    smaller = row(line(path, precision="int8"), empty(), [])
    assert (smaller["top1"], smaller["accuracy"]) == (None, None)


def test_problems(tiny: Callable[..., Path], tmp_path: Path) -> None:
    assert row(line(tiny()), empty(), [])["problem"] == "not measured yet"
    assert row(line(tiny()), empty() | {"problem": "it died"}, [])["problem"] == "it died"
    missing = row(line(tmp_path / "nothing.onnx", file=File(tmp_path / "nothing.onnx", problem="no")), empty(), [])
    assert (missing["problem"], missing["bytes"], missing["latency_ms"]) == ("no", None, None)


def test_a_file_of_the_users_is_counted(tiny: Callable[..., Path]) -> None:
    path = tiny()
    (subject,) = subjects([str(path)])
    found = row(Line(subject, File(path, "file"), "fp32", "cpu", 1, 2), empty(), [])
    # Conv 6x3x3x3 + 6, Gemm 6x4 + 4; the convolution at 8x8 places
    assert (found["parameters"], found["depth"]) == (6 * 27 + 6 + 24 + 4, 2)
    assert found["macs"] == 6 * 27 * 64 + 24
    assert found["published"] is None and found["trainable"] is None


def test_ratios_are_of_the_same_network_device_and_batch(tiny: Callable[..., Path]) -> None:
    path = tiny()
    lines = [line(path, precision=precision, batch=batch) for batch in (1, 2) for precision in ("fp32", "int8")]
    times = [(10.0, 20.0, 10.0), (4.0, 8.0, 4.0), (30.0, 30.0, 30.0), (15.0, 15.0, 15.0)]
    rows = with_ratios([row(one, raw(*time), []) for one, time in zip(lines, times, strict=True)])
    # The second round was slow for both: their ratio is what it was.
    assert [found["ratio_to_fp32"] and found["ratio_to_fp32"]["median"] for found in rows] == [
        None,
        pytest.approx(0.4),
        None,
        pytest.approx(0.5),
    ]


def test_a_disturbed_turn_keeps_its_place_and_counts_for_nothing(tiny: Callable[..., Path]) -> None:
    told = raw(10.0, 10.0)
    told["rounds"][0][1], told["waited"][0][1] = [99.0, 99.0, 99.0], 0.8
    found = row(line(tiny()), told, [])
    assert found["turns_ms"] == [[10.0, None, 10.0, 10.0], [10.0] * 4]
    assert max(found["samples_ms"]) < 11 and found["latency_ms"]["samples"] == 21
    assert found["waited_percent"] == 10.0
    both = with_ratios([row(line(tiny()), raw(20.0, 20.0), []), found | {"precision": "int8"}])
    assert both[1]["ratio_to_fp32"]["median"] == pytest.approx(0.5)


def test_copies_are_what_the_bare_run_has_not(tiny: Callable[..., Path]) -> None:
    told = raw(10.0, 10.0) | {"bare": [8.0, 8.0, 9.0], "provider": "CUDAExecutionProvider", "share": 0.98}
    found = row(line(tiny(), device="cuda"), told, [])
    assert found["copies_ms"] == pytest.approx(found["latency_ms"]["median"] - 8.0)
    assert found["provider_share"] == 0.98
    assert np.isfinite(found["gflops"]) and found["share_of_peak"] is None
