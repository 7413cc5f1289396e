"""Where edgezoo keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def folder(kind: str) -> Path | None:
    """In EDGEZOO_CACHE, None where that is empty; else in the user's cache, by the convention of freedesktop.org."""
    own = os.environ.get("EDGEZOO_CACHE")
    if own is not None:
        return Path(own) / kind if own else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "edgezoo" / kind
