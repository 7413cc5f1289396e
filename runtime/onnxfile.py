"""Is this a whole ONNX file that stays in its folder? Asked before onnxruntime opens it.

ONNX's protobuf, read by hand because the onnx package is no part of the runtime: 1 ms for a resnet50.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactNotFound, InvalidArtifact, InvalidInput

# By field number, what leads from a model to external data and to opsets.
_TENSOR: dict[int, Any] = {13: "external_data"}
_SPARSE: dict[int, Any] = {1: _TENSOR, 2: _TENSOR}
_ATTRIBUTE: dict[int, Any] = {5: _TENSOR, 10: _TENSOR, 22: _SPARSE, 23: _SPARSE}
_GRAPH: dict[int, Any] = {1: {5: _ATTRIBUTE}, 5: _TENSOR, 15: _SPARSE}
_ATTRIBUTE |= {6: _GRAPH, 11: _GRAPH}
_MAIN: dict[int, Any] = {**_GRAPH, 11: "inputs"}
_MODEL: dict[int, Any] = {7: _MAIN, 14: "metadata", 8: "opset_import", 25: {7: {5: _ATTRIBUTE}, 11: _ATTRIBUTE}}
_KINDS = ("external_data", "opset_import", "inputs", "metadata")


def check_file(path: Path) -> None:
    """Raise unless this is a well-formed model that stays in its folder."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactNotFound(f"{path}: {reason}: check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ArtifactNotFound(f"{path}: this is {kind}: give the path of an .onnx file")
    if any("\ud800" <= char <= "\udfff" for char in str(path)):
        raise InvalidInput(f"{str(path)!a}: onnxruntime opens only names in UTF-8: rename the file")
    if status.st_size == 0:
        raise InvalidArtifact(f"{path}: the file is empty: export it again, or get a whole copy")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check(data, str(path), path)
    except OSError as error:
        raise InvalidArtifact(f"{path}: cannot be read ({error.strerror}): check the file's permissions") from error


def properties(path: Path) -> tuple[dict[str, str], list[str]]:
    """The ``metadata_props`` of a file that has been checked, and the names of its inputs, with the optional ones.

    Raises InvalidArtifact for what is no text.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _scan(data)
    try:
        props = {entry.get(1, b"").decode(): entry.get(2, b"").decode() for entry in found["metadata"]}
        return props, [entry.get(1, b"").decode() for entry in found["inputs"]]
    except UnicodeDecodeError as error:
        raise InvalidArtifact(f"{path}: damaged metadata (not UTF-8): get a whole copy") from error


def check(data: bytes | mmap.mmap, where: str, path: Path | None) -> None:
    """Refuse what onnxruntime takes: a missing opset, which it makes up, and (measured up to 1.26) files elsewhere.

    A model cut between two opset entries is whole to protobuf and runs with the wrong operators.
    """
    try:
        found = _scan(data)
    except (ValueError, IndexError) as error:
        if data[:24] == b"version https://git-lfs.":
            raise InvalidArtifact(f"{where}: a Git LFS pointer, not the model itself: git lfs pull") from error
        raise InvalidArtifact(
            f"{where}: not an ONNX file, or cut short: export it again, or get a whole copy"
        ) from error
    if not any(opset.get(1, b"") in (b"", b"ai.onnx") for opset in found["opset_import"]):
        raise InvalidArtifact(f"{where}: no ONNX model, or cut short (it names no opset): export it again")
    for entry in found["external_data"]:
        if entry.get(1) == b"location":
            _check_location(entry.get(2, b"").decode(errors="backslashreplace"), where, path)


def _check_location(name: str, where: str, path: Path | None) -> None:
    if path is None:
        raise InvalidArtifact(f"{where}: the weights are in another file, {name!r}: open the model by its path")
    try:
        target = (path.parent / name).resolve()
        inside = not Path(name).is_absolute() and target.is_relative_to(path.resolve().parent)
    except (ValueError, OSError, RuntimeError):  # a NUL byte, a name too long, links in a circle
        inside = False
    if not inside:
        raise InvalidArtifact(f"{where}: the weights file {name!r} is not inside the model's folder: not opened")
    if not target.is_file():
        raise InvalidArtifact(f"{where}: the weights file {name!r} is missing: keep it beside the model")


def _scan(data: bytes | mmap.mmap) -> dict[str, list[dict[int, bytes]]]:
    """The string fields of every entry of _KINDS, without reading the weights.

    Raises ValueError or IndexError where the bytes are not well-formed protobuf.
    """
    found: dict[str, list[dict[int, bytes]]] = {kind: [] for kind in _KINDS}
    stack: list[tuple[Any, int, int]] = [(_MODEL, 0, len(data))]
    while stack:
        schema, start, stop = stack.pop()
        for number, begin, end in _fields(data, start, stop):
            inner = schema.get(number)
            if isinstance(inner, str):
                found[inner].append({key: data[first:last] for key, first, last in _fields(data, begin, end)})
            elif inner is not None:
                stack.append((inner, begin, end))
    return found


def _fields(data: bytes | mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of every length-delimited field of one protobuf message."""
    while position < end:
        tag, position = _varint(data, position)
        match tag & 7:
            case 2:
                length, position = _varint(data, position)
                yield tag >> 3, position, position + length
                position += length
            case 0:
                _, position = _varint(data, position)
            case 1 | 5 as kind:
                position += 8 if kind == 1 else 4
            case _:
                raise ValueError("not protobuf")
    if position != end:
        raise ValueError("a field ends outside its message")


def _varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
