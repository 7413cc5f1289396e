"""Top-1 and top-5 of a file on the user's pictures."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import InvalidInput
from runtime.model import load
from zoo.bench.files import File
from zoo.datasets import Sample, open_pictures
from zoo.evaluate import check_task, evaluate
from zoo.quantizing import CALIBRATION, split


def accuracy(
    file: File, data: Path | None, table: Path | None, device: str, *, hold_out: bool
) -> tuple[float, float, int] | None:
    """Top-1 and top-5 in percent, and of how many pictures; None for an untrained network, which has none.

    hold_out: leave out the pictures that ``zoo quantize`` calibrates on, for every precision alike.

    Raises InvalidInput for pictures without labels, or with another network's, and what reading them raises.
    """
    if data is None or file.weights == "none":
        return None
    with load(file.path, device=device, decode="exact") as model:
        check_task(model)
        pictures, answers = open_pictures(data, model.labels, table=table)
        if answers is None:
            raise InvalidInput(f"{data}: pictures without labels: give --labels CSV, or a folder per class")
        ordered = table is not None or data.is_file() or (data / "labels.csv").is_file()
        left_out = set(split(len(pictures), CALIBRATION, ordered=ordered)) if hold_out else set()
        samples = [
            Sample(picture, answer)
            for index, (picture, answer) in enumerate(zip(pictures, answers, strict=True))
            if index not in left_out
        ]
        found = evaluate(model, samples)
    return found.top1, found.top5, found.images
