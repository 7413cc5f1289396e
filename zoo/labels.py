"""Class names: the sets of the catalogue and the user's own files.

``labelsets/imagenet.txt`` holds WordNet ids (ImageNet's own order) and torchvision's class names
(BSD-3-Clause), tab separated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.errors import InvalidInput
from runtime.metadata import Labels

_FOLDER = Path(__file__).parent / "labelsets"


def load(name: str) -> Labels:
    """A label set of the catalogue, "imagenet" or "digits"."""
    return read(_FOLDER / f"{name}.txt")


def read(path: Path) -> Labels:
    """A label file in one of the forms that training leaves behind.

    One name per line in output order; "id<TAB>name"; "0 name", "1 name", ... as Teachable Machine writes; or JSON:
    a list of names, {"0": "name"}, {"name": 0} as Keras' class_indices, {"0": ["id", "name"]} as its ImageNet index.

    Raises InvalidInput for a missing, empty or unreadable file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = _from_json(json.loads(text)) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path}: not a readable label file ({reason}): give one name per line") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not all(line.strip() for line in lines):
        raise InvalidInput(f"{path}: has no labels or an empty line: give one name per line")
    pairs = [line.split("\t", 1) for line in lines]
    if all(len(pair) == 2 for pair in pairs):
        return Labels(names=tuple(name.strip() for _, name in pairs), ids=tuple(key.strip() for key, _ in pairs))
    numbered = [line.strip().partition(" ") for line in lines]
    if len(lines) > 1 and all(number == str(i) and name.strip() for i, (number, _, name) in enumerate(numbered)):
        return Labels(names=tuple(name.strip() for _, _, name in numbered))
    return Labels(names=tuple(line.strip() for line in lines))


def _from_json(data: Any) -> list[str]:
    """Lines as a text file would have them. Raises ValueError."""
    if isinstance(data, dict) and data:
        count = len(data)
        if all(isinstance(value, int) and not isinstance(value, bool) for value in data.values()):
            data = {str(index): name for name, index in data.items()}
        if sorted(data) != sorted(map(str, range(count))):
            raise ValueError("its numbers are not 0, 1, 2, ... of as many classes")
        data = [data[str(index)] for index in range(count)]
        if all(
            isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item) for item in data
        ):
            data = ["\t".join(item) for item in data]
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise ValueError("the JSON must be a list of names, or an object of numbers and names")
    return data


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
