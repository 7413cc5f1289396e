"""Class names: the sets of the catalogue and the user's own files.

``labelsets/imagenet.txt`` holds WordNet ids (ImageNet's own order) and torchvision's class names
(BSD-3-Clause), tab separated.
"""

from __future__ import annotations

import json
from pathlib import Path

from runtime.errors import InvalidInput
from runtime.metadata import Labels

_FOLDER = Path(__file__).parent / "labelsets"


def load(name: str) -> Labels:
    """A label set of the catalogue, "imagenet" or "digits"."""
    return read(_FOLDER / f"{name}.txt")


def read(path: Path) -> Labels:
    """A label file: one name per line in output order, or "id<TAB>name", or a JSON list of names.

    Raises InvalidInput for a missing, empty or unreadable file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path}: not a readable label file ({reason}): give one name per line") from error
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise InvalidInput(f"{path}: the JSON must be a list of names")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not all(line.strip() for line in lines):
        raise InvalidInput(f"{path}: has no labels or an empty line: give one name per line")
    pairs = [line.split("\t", 1) for line in lines]
    if all(len(pair) == 2 for pair in pairs):
        return Labels(names=tuple(name.strip() for _, name in pairs), ids=tuple(key.strip() for key, _ in pairs))
    return Labels(names=tuple(line.strip() for line in lines))


def index_of(label: str, labels: Labels) -> int:
    """The output index a label stands for: a stable id, a class name, or the index itself.

    Raises InvalidInput for a label that is none of them.
    """
    for known in (labels.ids or (), labels.names):
        if label in known:
            return known.index(label)
    if label.isdecimal() and int(label) < len(labels.names):
        return int(label)
    raise InvalidInput(
        f"label {label!r} is no class name, id or index of this model (0 to {len(labels.names) - 1}, "
        f"such as {labels.names[0]!r})"
    )
