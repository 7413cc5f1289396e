"""Freed memory goes back to the system: glibc keeps it, gigabytes after a large model, for what may come."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_back() -> None:
    """Return what was freed to the system, where the C library has a call for that (glibc)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has none, and needs none
            ctypes.CDLL(None).malloc_trim(0)
