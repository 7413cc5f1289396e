"""Records of `zoo bench` as a real run would write them, made up: networks and sizes are real, the times are not."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import Any

# name, source, side of the input, parameters, trainable, depth, MACs, published top-1 and top-5
NETWORKS: list[tuple[str, str, int, int, int, int, int, float | None, float | None]] = [
    ("lenet5", "torch", 28, 61706, 61706, 5, 416520, None, None),
    ("alexnet", "torch", 224, 61100840, 61100840, 8, 714188480, 56.522, 79.066),
    ("vgg16", "torch", 224, 138357544, 138357544, 16, 15470264320, 71.592, 90.382),
    ("vgg19", "torch", 224, 143667240, 143667240, 19, 19632062464, 72.376, 90.876),
    ("googlenet", "torch", 224, 6639464, 6624904, 115, 1498376192, 69.778, 89.53),
    ("inception_v3", "torch", 299, 23869000, 23834568, 189, 5713216096, 77.294, 93.45),
    ("inception_v4", "torch", 299, 42742984, 42679816, 299, 12253974624, None, None),
    ("inception_resnet_v2", "keras", 299, 55873736, 55813192, 449, 13155794016, 80.3, 95.3),
    ("xception", "keras", 299, 22910480, 22855952, 81, 8357403496, 79.0, 94.5),
    ("resnet18", "torch", 224, 11699112, 11689512, 41, 1814073344, 69.758, 89.078),
    ("resnet50", "torch", 224, 25610152, 25557032, 107, 4089184256, 76.13, 92.862),
    ("resnet101", "torch", 224, 44654504, 44549160, 209, 7801405440, 77.374, 93.546),
    ("resnet152", "torch", 224, 60344232, 60192808, 311, 11513626624, 78.312, 94.046),
    ("resnet50_v2", "keras", 224, 25613800, 25568360, 103, 3482255360, 76.0, 93.0),
    ("squeezenet1_1", "torch", 224, 1235496, 1235496, 26, 349151936, 58.178, 80.624),
    ("densenet121", "torch", 224, 8062504, 7978856, 242, 2834161664, 74.434, 91.972),
    ("densenet169", "torch", 224, 14307880, 14149480, 338, 3359843328, 75.6, 92.806),
    ("densenet201", "torch", 224, 20242984, 20013928, 402, 4291365888, 76.896, 93.37),
    ("mobilenet_v1", "keras", 224, 4253864, 4231976, 55, 568740352, 70.4, 89.5),
    ("mobilenet_v2", "torch", 224, 3538984, 3504872, 105, 300774272, 71.878, 90.286),
    ("mobilenet_v3_small", "torch", 224, 2554968, 2542856, 88, 56510400, 67.668, 87.402),
    ("mobilenet_v3_large", "torch", 224, 5507432, 5483032, 110, 216589760, 74.042, 91.34),
    ("shufflenet_v2_x1_0", "torch", 224, 2294784, 2278604, 113, 144907992, 69.362, 88.316),
    ("mnasnet1_0", "torch", 224, 4421232, 4383312, 105, 314415872, 73.456, 91.51),
    ("efficientnet_b0", "torch", 224, 5330564, 5288548, 131, 385814752, 77.692, 93.532),
    ("efficientnet_b1", "torch", 240, 7856232, 7794184, 185, 686802832, 78.642, 94.186),
    ("efficientnet_b2", "torch", 288, 9177562, 9109994, 185, 1087529456, 80.608, 95.31),
    ("efficientnet_b3", "torch", 300, 12320528, 12233232, 209, 1827141392, 82.008, 96.054),
    ("efficientnet_b4", "torch", 380, 19466816, 19341616, 257, 4393771024, 83.384, 96.594),
    ("efficientnet_b5", "torch", 456, 30562520, 30389784, 311, 10266384752, 83.444, 96.628),
    ("efficientnet_b6", "torch", 528, 43265136, 43040704, 359, 19067593536, 84.008, 96.916),
    ("efficientnet_b7", "torch", 600, 66658680, 66347960, 437, 37745884192, 84.122, 96.908),
]  # fmt: skip

_PEAK = {("cpu", "fp32"): 190.0, ("cpu", "int8"): 520.0, ("cuda", "fp32"): 40_000.0, ("cuda", "fp16"): 180_000.0}
_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.02}


def make_record(
    names: Sequence[str] | None = None,
    *,
    precisions: Sequence[str] = ("fp32", "int8"),
    devices: Sequence[str] = ("cpu",),
    batches: Sequence[int] = (1,),
    accuracy: str | None = "published",
    problems: Sequence[str] = (),
    unsettled: Sequence[str] = (),
    noisy: bool = False,
    slower: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A whole record: the same arguments give the same record.

    names: networks of ``NETWORKS``, in this order; another name gets figures of its own; None is all of them.
    accuracy: "published", "measured" or None. problems, unsettled: names whose rows have no figure, or whose
    interval stayed wide. slower: what every time is multiplied by, apart from the noise. seed: of the noise.
    """
    chosen = [each[0] for each in NETWORKS] if names is None else list(names)
    rows = []
    for name in chosen:
        for batch in batches:
            for device in devices:
                made = [
                    _row(name, precision, device, batch, accuracy, name in problems, name in unsettled, slower, seed)
                    for precision in precisions
                    if (device, precision) in _PEAK
                ]
                whole = next((row for row in made if row["precision"] == "fp32" and row["latency_ms"]), None)
                for row in made:
                    if whole is not None and row is not whole and row["latency_ms"]:
                        row["ratio_to_fp32"] = _ratio(row, whole)
                rows += made
    reasons = ["the load average was 3.1 on 2 cores before the run", "11 % of the time was taken by other guests"]
    return {
        "schema": 1,
        "date": "2026-11-21T22:40:00+00:00",
        "finished": True,
        "machine": {
            "cpu": "AMD EPYC 9R14 96-Core Processor",
            "platform": "Linux-6.8.0-x86_64-with-glibc2.36",
            "architecture": "x86_64",
            "cores_usable": 2,
            "cores_logical": 2,
            "memory_bytes": 16_000_000_000,
            "affinity": [0, 1],
            "governor": None,
            "flags": ["avx2", "avx512f", "avx512_vnni"],
            "load_before": 3.1 if noisy else 0.2,
            "load_after": 1.9,
            "steal_percent": 11.0 if noisy else 0.0,
            "versions": {"python": "3.11.9", "edgezoo": "0.1.0", "onnxruntime": "1.31.1", "numpy": "2.4.1"},
            "gpu": "NVIDIA H200" if "cuda" in devices else None,
            "gpu_driver": "570.86.10" if "cuda" in devices else None,
            "peak_gflops": [
                {"device": device, "precision": precision, "threads": 2, "gflops": _PEAK[device, precision]}
                for device in devices
                for precision in precisions
                if (device, precision) in _PEAK
            ],
        },
        "settings": {
            "threads": 2,
            "budget_s": 8.0,
            "rounds": 4,
            "data": "imagenet-val" if accuracy == "measured" else None,
            "images": 1000 if accuracy == "measured" else None,
        },
        "noise": {"noisy": noisy, "reasons": reasons if noisy else []},
        "rows": rows,
    }


def _row(
    name: str, precision: str, device: str, batch: int, accuracy: str | None, failed: bool, unsettled: bool,
    slower: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    known = {each[0]: each for each in NETWORKS}
    made_up = (name, "file", 224, 4_000_000, None, None, 500_000_000, None, None)
    _, source, side, parameters, trainable, depth, macs, top1, top5 = known.get(name, made_up)
    rng = random.Random(f"{seed} {name} {precision} {device} {batch}")
    size = int(parameters * _BYTES[precision]) + 40_000
    stated, loss = None, {"fp32": 0.0, "fp16": 0.02, "int8": 0.4}[precision]
    if top1 is not None:
        stated = {
            "source": "torchvision" if source == "torch" else "Keras Applications",
            "weights": "IMAGENET1K_V1" if source == "torch" else "imagenet",
            "counts": "trainable" if source == "torch" else "total",
            "top1": top1, "top5": top5, "parameters": float(trainable or 0),
            "size_mb": round(parameters * 4 / 2**20, 1),
            "depth": depth if source == "keras" else None, "gmacs": round(macs / 1e9, 3) if source == "torch" else None,
            "cpu_ms": None, "gpu_ms": None,
        }  # fmt: skip
    weights = "imagenet" if accuracy == "measured" else "none"
    weights = {"lenet5": "bundled"}.get(name, "file" if source == "file" else weights)
    if accuracy is None or top1 is None or top5 is None or (accuracy == "published" and precision != "fp32"):
        kind, first, fifth = None, None, None
    elif accuracy == "published":
        kind, first, fifth = "published", top1, top5
    else:
        kind, first, fifth = "measured", round(top1 - loss - rng.random(), 1), round(top5 - loss / 2, 1)
    row: dict[str, Any] = {
        "name": name, "source": source, "precision": precision, "device": device, "batch": batch, "threads": 2,
        "file": f"{name}{'' if precision == 'fp32' else '-' + precision}.onnx",
        "sha256": f"{rng.getrandbits(256):064x}", "bytes": size, "size_mib": round(size / 2**20, 2),
        "input": [1 if name == "lenet5" else 3, side, side],
        "parameters": parameters, "trainable": trainable, "depth": depth, "macs": macs,
        "weights": weights,
        "calibrated_on": None if precision != "int8" else "noise" if weights == "none" else "pictures",
        "top1": first, "top5": fifth, "accuracy": kind, "published": stated,
        "latency_ms": None, "samples_ms": [], "turns_ms": [], "waited_percent": None, "ratio_to_fp32": None,
        "images_per_second": None,
        "load_ms": None, "first_ms": None, "copies_ms": None, "peak_memory_mib": None, "device_memory_mib": None,
        "gflops": None, "share_of_peak": None,
        "engine": "onnxruntime 1.31.1", "provider": f"{device.upper()}ExecutionProvider", "provider_share": None,
        "problem": None,
    }  # fmt: skip
    if failed:
        return row | {"problem": "the process needed more memory than there is: give it a smaller --batch"}
    peak = _PEAK[device, precision]
    overhead = (0.12 if device == "cuda" else 0.03) + (depth or 50) * (0.004 if device == "cuda" else 0.006)
    typical = slower * (overhead + batch * macs * 2 / (peak * 1e6) / (0.45 + 0.4 * random.Random(name).random()))
    spread = 0.15 if unsettled else 0.02
    turns = [
        [typical * (1 + spread * rng.gauss(0, 0.5) + 0.04 * (rng.random() < 0.1)) for _ in range(8)] for _ in range(4)
    ]
    samples = [
        turn * (1 + abs(rng.gauss(0, spread)) + (0.4 * rng.random() if rng.random() < 0.05 else 0))
        for one_round in turns
        for turn in one_round
        for _ in range(8)
    ]
    ordered = sorted(samples)
    median = statistics.median(ordered)
    wide = (0.08 if unsettled else 0.008) * median
    p50, p90, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.9, 0.99))
    gflops = 2 * macs * batch / median / 1e6
    return row | {
        "latency_ms": {
            "median": median, "low": median - wide, "high": median + wide, "p50": p50, "p90": p90, "p99": p99,
            "min": ordered[0], "samples": len(samples), "rounds": 4, "settled": not unsettled,
        },
        "samples_ms": [round(sample, 4) for sample in samples],
        "turns_ms": [[round(turn, 4) for turn in one_round] for one_round in turns],
        "waited_percent": 0.1,
        "images_per_second": 1000 * batch / median, "load_ms": 20 + size / 3e5, "first_ms": 2.2 * median,
        "copies_ms": 0.02 * batch if device == "cuda" else None, "peak_memory_mib": 80 + 1.4 * size / 2**20,
        "device_memory_mib": 400 + 2 * size / 2**20 if device == "cuda" else None,
        "gflops": gflops, "share_of_peak": gflops / peak, "provider_share": 1.0,
    }  # fmt: skip


def _ratio(row: dict[str, Any], whole: dict[str, Any]) -> dict[str, float]:
    ratio = row["latency_ms"]["median"] / whole["latency_ms"]["median"]
    return {"median": ratio, "low": ratio * 0.985, "high": ratio * 1.015}
