"""The conditions of a run in words: what is known is said, what is not is left out."""

from __future__ import annotations

import re

from tests.zoo.bench.records import make_record
from zoo.bench.conditions import facts, summary


def test_everything_that_is_known_is_said() -> None:
    record = make_record(["alexnet"], devices=("cpu", "cuda"), accuracy="measured", noisy=True)
    record["machine"] |= {"affinity": [0, 1, 2, 5], "governor": "performance"}
    said = dict(facts(record))
    assert said["GPU"] == "NVIDIA H200, driver 570.86.10"
    assert "bound to cores 0-2, 5" in said["State"]
    assert "11.0 % of the time taken by other guests" in said["State"]
    assert said["Frequency governor"] == "performance"
    assert "190 GFLOP/s fp32 CPU on 2 threads" in said["Measured peak"]
    assert "40,000 GFLOP/s fp32 GPU" in said["Measured peak"]
    assert said["Accuracy"] == "measured on 1,000 pictures"
    assert "2 of 2 cores, 14.9 GiB" in said["CPU"]


def test_what_is_not_known_is_left_out() -> None:
    record = make_record(["alexnet"])
    unknown = ("governor", "steal_percent", "load_before", "load_after", "affinity", "flags", "memory_bytes", "gpu")
    record["machine"] |= dict.fromkeys(unknown)
    said = dict(facts(record))
    assert not {"GPU", "CPU extensions", "State"} & set(said)
    assert not re.search(r"None|nan", str(said))


def test_the_summary_is_of_the_devices_that_were_used() -> None:
    both = summary(make_record(["alexnet"], devices=("cpu", "cuda")))
    assert both == "AMD EPYC 9R14 96-Core Processor, NVIDIA H200, 2 threads, onnxruntime 1.31.1, 2026-11-21"
    assert "EPYC" not in summary(make_record(["alexnet"], devices=("cuda",)))
    assert summary(make_record(["alexnet"], noisy=True)).endswith("a noisy run")
