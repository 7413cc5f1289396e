"""What others published, as facts with their source. Never mixed with what was measured here.

tables/keras_applications.csv: the table of keras.io/api/applications.
tables/torchvision_weights.csv: torchvision's weight metadata (docs.pytorch.org/vision/stable/models).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from zoo.spec import Variant

_FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True)
class Published:
    """Published figures of one set of weights; None where the table has no figure.

    top1, top5: percent on ImageNet. parameters: as the source counts them, see ``counts``. size_mb: in 2^20 bytes,
    as both sources state it. gmacs: 10^9 multiply-accumulates (torchvision's "GFLOPS").
    cpu_ms, gpu_ms: Keras' milliseconds per step of 32 pictures on a 92-core EPYC and an A100.
    """

    source: str
    weights: str
    counts: Literal["total", "trainable"]
    top1: float | None
    top5: float | None
    parameters: float | None
    size_mb: float | None
    depth: int | None = None
    gmacs: float | None = None
    cpu_ms: float | None = None
    gpu_ms: float | None = None


def lookup(variant: Variant) -> Published | None:
    """The published figures of a variant's hub weights; None where the tables have none."""
    library, _, name = variant.builder.partition(":")
    if library == "keras" and name in _rows("keras_applications.csv"):
        row = _rows("keras_applications.csv")[name]
        number = {column: _number(row[column]) for column in row if column != "model"}
        millions, depth = number["params_m"], number["depth"]
        return Published(
            source="Keras Applications",
            weights="imagenet",
            counts="total",
            top1=number["top1_pct"],
            top5=number["top5_pct"],
            parameters=number["params_exact_old_page"] or (round(millions * 1e6) if millions else None),
            size_mb=number["size_mb"],
            depth=None if depth is None else int(depth),
            cpu_ms=number["cpu_ms_per_step"],
            gpu_ms=number["gpu_ms_per_step"],
        )
    if library == "torchvision" and f"{name}/{variant.hub}" in _rows("torchvision_weights.csv"):
        row = _rows("torchvision_weights.csv")[f"{name}/{variant.hub}"]
        return Published(
            source="torchvision",
            weights=row["weight"],
            counts="trainable",
            top1=_number(row["acc1"]),
            top5=_number(row["acc5"]),
            parameters=_number(row["num_params"]),
            size_mb=_number(row["file_size_mb"]),
            gmacs=_number(row["gflops"]),
        )
    return None


@cache
def _rows(name: str) -> dict[str, dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if "weight" in rows[0]:
        return {f"{row['model']}/{row['weight'].rpartition('.')[2]}": row for row in rows}
    return {row["model"]: row for row in rows}


def _number(text: str) -> float | None:
    return float(text) if text else None
