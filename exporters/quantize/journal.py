"""What a search found, kept until it is over: interrupted, or refused and then forced, it goes on where it was."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from exporters.quantize.network import Array

_KEPT = 16
"""Unfinished searches that stay on disk; the oldest go."""


class Journal:
    """Arrays by name, in a folder of their own; one that cannot be read or written to is as good as none.

    subject: everything that the results depend on: another subject is another folder.
    """

    def __init__(self, folder: Path | None, subject: str) -> None:
        self._folder = folder and folder / _digest(subject)
        self._prefix = ""

    def part(self, name: str) -> Journal:
        """The same journal, for names that mean something else elsewhere in it."""
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}: "
        return part

    def remember(self, name: str, compute: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        """What ``compute`` gives, or gave when it was asked before."""
        file = self._folder and self._folder / f"{_digest(self._prefix + name)}.npz"
        if file is None:
            return compute()
        unreadable = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
        with contextlib.suppress(*unreadable), np.load(file, allow_pickle=False) as stored:
            return {str(key): stored[f"array{index}"] for index, key in enumerate(stored["names"])}
        found = compute()
        with contextlib.suppress(OSError):
            self._store(file, found)
        return found

    def _store(self, file: Path, found: dict[str, Array]) -> None:
        if not file.parent.exists():
            file.parent.mkdir(parents=True)
            searches = sorted(file.parent.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)
            for old in searches[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        handle, draft = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                arrays = {f"array{index}": array for index, array in enumerate(found.values())}
                np.savez(stream, names=np.array(list(found), dtype=np.str_), **arrays)  # type: ignore[arg-type]
            Path(draft).replace(file)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """The search is over: nothing of it is needed any more."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
