"""Labelled pictures in the forms people keep them: folders per class, CSV files, MNIST idx files."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput
from runtime.metadata import Labels
from runtime.tasks.alike import ONE_CLASS
from zoo.labels import index_of

if TYPE_CHECKING:
    from runtime.model import Model

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .gif .webp .bmp .tif .tiff .ppm .pgm .jp2 .avif .tga".split())
_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "image_path", "img")
_LABEL_COLUMNS = (
    "label",
    "index",
    "imagenet_index",
    "class_index",
    "class",
    "target",
    "wnid",
    "synset",
    "id",
    "name",
    "category",
)


Picture = Path | npt.NDArray[np.uint8]

UNKNOWN = -1
"""Index of a sample whose label was not read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture (a path, or uint8 pixels) and the output index that would be right."""

    image: Picture
    index: int


def open_dataset(
    data: Path, labels: Labels | None, *, images: Path | None = None, skip: int = 0, limit: int | None = None
) -> Sequence[Sample]:
    """The samples at ``data``, in a fixed order.

    labels: None to leave unread what they say; every index is UNKNOWN then.
    images: the folder that the paths in a CSV are relative to; when None, beside the CSV or the working folder.
    Raises InvalidInput saying what is missing or cannot be understood.
    """
    if not data.exists():
        raise InvalidInput(f"{data}: no such file or folder")
    if skip < 0 or (limit is not None and limit < 1):
        raise InvalidInput("--skip must be at least 0 and --limit at least 1")
    samples = list(islice(_read(data, labels, images), skip, None if limit is None else skip + limit))
    if not samples:
        raise InvalidInput(f"{data}: no labelled pictures found{f' after the first {skip}' if skip else ''}")
    return samples


def _read(data: Path, labels: Labels | None, images: Path | None) -> Iterator[Sample]:
    if data.is_dir():
        idx = _idx_images(data)
        if idx is not None:
            return _read_idx(idx, labels)
        if (data / "labels.csv").is_file():
            return _read_csv(data / "labels.csv", labels, images)
        return _read_folders(data, labels)
    if "idx3-ubyte" in data.name:
        return _read_idx(data, labels)
    if data.suffix in (".csv", ".tsv", ".txt"):
        return _read_csv(data, labels, images)
    raise InvalidInput(f"{data}: give a folder per class, a .csv of file and label, or an MNIST idx3-ubyte file")


# ---- one folder per class


def _read_folders(root: Path, labels: Labels | None) -> Iterator[Sample]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InvalidInput(f"{root}: holds no folder per class, no labels.csv and no MNIST idx files")
    for folder in folders:
        index = _index(folder.name, labels, where=str(folder))
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield Sample(path, index)


# ---- CSV


def _read_csv(table: Path, labels: Labels | None, images: Path | None) -> Iterator[Sample]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{table}: not a readable text file ({error})") from error
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ",") if row]
    if not rows:
        raise InvalidInput(f"{table}: is empty")
    header = [cell.strip().lower() for cell in rows[0]]
    file_column = next((header.index(name) for name in _FILE_COLUMNS if name in header), None)
    label_column = next((header.index(name) for name in _LABEL_COLUMNS if name in header), None)
    if file_column is None or label_column is None:
        if len(rows[0]) != 2:
            raise InvalidInput(
                f"{table}: needs a header naming a file and a label column, or exactly those two columns"
            )
        file_column, label_column, first = 0, 1, 1
    else:
        first = 2
        rows = rows[1:]
    for line, row in enumerate(rows, first):
        where = f"{table}, line {line}"
        if len(row) <= max(file_column, label_column):
            raise InvalidInput(f"{where}: too few columns")
        name = row[file_column].strip()
        # Beside the CSV, or else where the command runs: people write both.
        places = [folder / name for folder in ([images] if images else [table.parent, Path()])]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise InvalidInput(f"{where}: no such picture {places[0]} (--images DIR says where they are)")
        yield Sample(path, _index(row[label_column].strip(), labels, where=where))


# ---- MNIST idx (yann.lecun.com/exdb/mnist): big-endian header, then bytes


def _idx_images(folder: Path) -> Path | None:
    """The test images if they are there, else the training images."""
    for stem in ("t10k-images", "train-images"):
        found = sorted(folder.glob(f"{stem}*idx3-ubyte*"))
        if found:
            return found[0]
    return None


def _read_idx(path: Path, labels: Labels | None) -> Iterator[Sample]:
    pictures = _idx_array(path, magic=2051)
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    answers = _idx_array(path.with_name(name), magic=2049)
    if len(pictures) != len(answers):
        raise InvalidInput(f"{path}: {len(pictures)} pictures but {len(answers)} labels")
    for picture, answer in zip(pictures, answers.tolist(), strict=True):
        yield Sample(picture, _index(str(answer), labels, where=name))


def _idx_array(path: Path, *, magic: int) -> npt.NDArray[np.uint8]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (OSError, EOFError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error})") from error
    rank = magic % 256
    if len(data) < 4 + 4 * rank or struct.unpack(">I", data[:4])[0] != magic:
        raise InvalidInput(f"{path}: not an MNIST idx file")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    if body.size != np.prod(shape, dtype=np.int64):
        raise InvalidInput(f"{path}: truncated, {body.size} bytes for shape {list(shape)}")
    return body.reshape(shape)


def _index(label: str, labels: Labels | None, *, where: str) -> int:
    if labels is None:
        return UNKNOWN
    try:
        return index_of(label, labels)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error


# ---- pictures, with or without labels


def open_pictures(
    data: Path, labels: Labels | None, *, table: Path | None = None
) -> tuple[list[Picture], list[int] | None]:
    """The pictures at ``data`` and their classes, None where nobody says them.

    data: what ``open_dataset`` takes, or a folder of pictures. labels: None where no class is right, ``classes_of``.
    table: a CSV of file and label for that folder.
    Raises InvalidInput saying what is missing or cannot be understood.
    """
    if table is not None:
        if labels is None:
            raise InvalidInput(f"{table}: one class a picture is not what this network answers: leave the labels out")
        samples = open_dataset(table, labels, images=data)
    elif data.is_dir() and (loose := _loose(data)):
        return loose, None
    else:
        samples = open_dataset(data, labels)
    return [sample.image for sample in samples], None if labels is None else [sample.index for sample in samples]


def classes_of(model: Model) -> Labels | None:
    """The classes that pictures' labels are of; None for a network whose answers are not one class a picture."""
    return model.labels if model.task in ONE_CLASS else None


def _loose(folder: Path) -> list[Picture]:
    """The pictures that lie in a folder without a word on what they show."""
    if (folder / "labels.csv").is_file() or _idx_images(folder) is not None:
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
