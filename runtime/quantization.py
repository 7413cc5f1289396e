"""What a file of lower precision says of how it was made and measured; ``runtime.metadata`` stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["int8", "fp16", "bf16"]

Material = Literal["pictures", "noise"]
"""noise: of random pixels, where the user asked for that; ranges and figures taken from it say little."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a file was made of ``calibration`` pictures, and how it compares with its float32 file on ``images``.

    calibration, calibration_sha256, calibrated_on: 0 and None where nothing was to calibrate (fp16, bf16).
    agreement: percent of the same answers, as ``runtime.tasks.alike`` has it for the file's task, if it does.
    distance: of the logits, norm of the difference over the norm; of the output that is farthest, where none are.
    top1, top5: percent right, (float32, this file), None without labels.
    time_ratio: of one picture, interleaved medians; None with float_ms where the target was not at hand.
    """

    scheme: str
    target: str
    search: str
    integer_nodes: int
    float_nodes: int
    calibration: int
    calibration_sha256: str | None
    images: int
    agreement: float | None
    distance: float
    top1: tuple[float, float] | None
    top5: tuple[float, float] | None
    time_ratio: float | None
    float_ms: float | None
    machine: str
    float_sha256: str
    precision: Precision = "int8"
    calibrated_on: Material | None = "pictures"
    measured_on: Material = "pictures"
