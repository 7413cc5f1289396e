"""What an interrupted run measured, kept until it is over."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from zoo.bench.measure import Raw
from zoo.bench.record import write

_STALE_S = 24 * 3600.0  # a run of yesterday is of another machine, as far as its load goes


class Kept:
    """raws: by the keys of rows. accuracies: (top-1, top-5, pictures) by file, None where it cannot be measured.

    fresh: whatever the file has is not taken. What cannot be read is as good as nothing.
    """

    def __init__(self, file: Path, *, fresh: bool) -> None:
        self._file = file
        self.raws: dict[str, Raw] = {}
        self.accuracies: dict[str, tuple[float, float, int] | None] = {}
        if not fresh:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if time.time() - file.stat().st_mtime < _STALE_S:
                    told = json.loads(file.read_text(encoding="utf-8"))
                    self.raws, self.accuracies = dict(told["raws"]), dict(told["accuracies"])

    def save(self) -> None:
        """Keep what there is."""
        write({"raws": self.raws, "accuracies": self.accuracies}, self._file, indent=None)

    def forget(self) -> None:
        """The run is over."""
        self._file.unlink(missing_ok=True)
