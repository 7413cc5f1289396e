"""The pictures that a command line names: files as they are, and folders with all that is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InvalidInput
from zoo.datasets import IMAGE_SUFFIXES


def pictures(arguments: Sequence[str]) -> list[str]:
    """The arguments, each folder replaced by the pictures below it, sorted by path.

    By suffix (``IMAGE_SUFFIXES``); what begins with a dot is left out. Raises InvalidInput for a folder without any.
    """
    found = []
    for argument in arguments:
        if argument == "-" or not os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir may raise on hostile names
            found.append(argument)
            continue
        inside = sorted(_below(argument))
        if not inside:
            raise InvalidInput(f"{argument}: no pictures in this folder ({' '.join(sorted(IMAGE_SUFFIXES))})")
        found += inside
    return found


def _below(folder: str) -> list[str]:
    """The pictures of a folder and of those in it, each folder once: links may lead in circles."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[str]()  # links last, so that a folder is found under its own name
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    found.append(entry.path)
        links.sort()
    return found
