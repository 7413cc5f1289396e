"""What others published, as facts with their source. Never mixed with what was measured here.

tables/keras_applications.csv: the table of keras.io/api/applications.
tables/torchvision_weights.csv: torchvision's weight metadata (docs.pytorch.org/vision/stable/models).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zoo.spec import Framework, Variant

_FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True)
class Published:
    """Published figures of one set of weights. top1, top5 in percent on ImageNet, size in MB."""

    source: str
    weights: str
    top1: float | None
    top5: float | None
    parameters: float | None
    size_mb: float | None


def lookup(framework: Framework, variant: Variant) -> Published | None:
    """The published figures of a variant's hub weights; None where nobody published any."""
    if variant.published is None:
        return None
    if framework == "keras":
        row = _rows("keras_applications.csv")[variant.published]
        millions = _number(row["params_m"])
        parameters = _number(row["params_exact_old_page"]) or (millions and millions * 1e6)
        top1, top5 = _number(row["top1_pct"]), _number(row["top5_pct"])
        return Published("Keras Applications", "imagenet", top1, top5, parameters, _number(row["size_mb"]))
    row = _rows("torchvision_weights.csv")[f"{variant.published}/{variant.hub}"]
    numbers = (_number(row[column]) for column in ("acc1", "acc5", "num_params", "file_size_mb"))
    return Published("torchvision", row["weight"], *numbers)


@cache
def _rows(name: str) -> dict[str, dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if "weight" in rows[0]:
        return {f"{row['model']}/{row['weight'].rpartition('.')[2]}": row for row in rows}
    return {row["model"]: row for row in rows}


def _number(text: str) -> float | None:
    return float(text) if text else None
