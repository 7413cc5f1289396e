"""Makes the files that are to be measured, in a process that frameworks may fill: ``python -m zoo.bench.make``."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from zoo.bench.child import Answer, serve

CALIBRATION = 8
"""Pictures of noise: times do not depend on them."""


def export(target: str, source: str, choices: list[str], output: str) -> Answer:
    """``zoo export``, with the first of the choices of weights that is at hand. A choice "cached" asks no hub."""
    from exporters.hub import OFFLINE
    from zoo.cli import main

    said, before = io.StringIO(), os.environ.get(OFFLINE)
    for choice in choices:
        weights = "imagenet" if choice == "cached" else choice
        if choice == "cached":
            os.environ[OFFLINE] = "1"
        try:
            said = io.StringIO()
            with redirect_stderr(said), redirect_stdout(io.StringIO()):
                code = main(["export", target, "--source", source, "--weights", weights, "-o", output])
        finally:
            if before is None:
                os.environ.pop(OFFLINE, None)
            else:
                os.environ[OFFLINE] = before
        if code == 130:
            raise KeyboardInterrupt
        if code == 0:
            return {"weights": weights}
    return {"problem": _last_line(said)}


def smaller(file: str, output: str, precision: str, device: str, data: str | None, labels: str | None) -> Answer:
    """``zoo quantize``: on the user's pictures as users do, by force; without, what is fastest, and marked so."""
    if data is None or precision != "int8":
        return _untold(file, output, precision, device)
    from zoo.cli import main

    argv = ["quantize", file, "--data", data, "--force", "-o", output]
    argv += ["--labels", labels] if labels else []
    argv += ["--target", "cuda"] if device == "cuda" else []
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        code = main(argv)
    return {} if code == 0 else {"problem": _last_line(said)}


def _untold(file: str, output: str, precision: Any, device: str) -> Answer:
    from exporters.quantize.pictures import noise
    from exporters.quantize.road import Trial, quantize
    from runtime.model import load

    with load(file) as model:
        pictures = noise(model.rule, 2 * CALIBRATION)
    trial = Trial(
        pictures[:CALIBRATION] if precision == "int8" else [],
        pictures[CALIBRATION:],
        calibrated_on="noise",
        measured_on="noise",
    )
    target = "cuda" if device == "cuda" else "auto"
    quantize(Path(file), Path(output), trial, precision=precision, target=target, force=True, plain=True)
    return {}


def _last_line(said: io.StringIO) -> str:
    lines = [line for line in said.getvalue().splitlines() if line.strip()] or ["no word why"]
    return lines[-1].removeprefix("zoo: ").removeprefix("error: ")


def main() -> int:
    """Serve jobs: the keyword arguments of ``export`` or of ``smaller``."""
    return serve(lambda job: smaller(**job) if "precision" in job else export(**job))


if __name__ == "__main__":
    sys.exit(main())
