"""Answers in a file that grows while they come, and goes on where an earlier run stopped.

Lines are appended, each whole; one that was torn is dropped by the next run. Parquet cannot grow: its rows are kept in
NAME.parquet.part, as lines of JSON, until all are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from runtime.errors import InvalidInput, OutputNotWritable
from runtime.files import sha256
from zoo.result_forms import LINES, Form, Row, import_parquet, read_parquet, write_parquet

try:
    import fcntl
except ImportError:  # Windows, where two runs on one file are the user's care
    fcntl = None  # type: ignore[assignment]

SUFFIXES = (*LINES, ".parquet")
_PART = ".part"


@dataclass(frozen=True, slots=True)
class Asked:
    """What all rows of a file have in common. model: as ``identity`` gives it. ranks: classes of an answer."""

    model: str
    ranks: int


class Results:
    """An open results file. answered: the pictures that were in it already."""

    def __init__(self, file: FileIO, form: Form, asked: Asked, answered: frozenset[str], where: Path) -> None:
        self._file, self._form, self._asked, self._where = file, form, asked, where
        self.answered = answered

    def has(self, image: str) -> bool:
        """Whether an earlier run answered for this picture."""
        return key(image) in self.answered

    def add(self, image: str, answer: dict[str, Any]) -> None:
        """Append one row: an answer as JSON has it, or {"error": message}. Raises OutputNotWritable."""
        row = {"image": key(image), **answer, "model": self._asked.model}
        left = memoryview(self._form.encode(row, self._asked.ranks))
        with _written(self._where):
            while left:  # a disk that fills up takes a part of it
                left = left[self._file.write(left) :]


def identity(path: Path, options: str = "") -> str:
    """Which model gave an answer: 16 digits of the SHA-256 of its file, and 8 of the options that change answers.

    Weights in a file of their own, NAME.onnx.data, count.
    """
    data = path.with_name(path.name + ".data")
    digest = sha256(path)
    if data.is_file():
        digest = hashlib.sha256(f"{digest} {sha256(data)}".encode()).hexdigest()
    return f"{digest[:16]}-{hashlib.sha256(options.encode()).hexdigest()[:8]}" if options else digest[:16]


def key(image: str) -> str:
    """A path as it stands in a file: names may hold line breaks, and bytes that are no text."""
    text = os.fsencode(image).decode("utf-8", "backslashreplace")
    return text.replace("\r", "\\r").replace("\n", "\\n")


def check(path: Path) -> None:
    """Raise OutputNotWritable or MissingDependency for a results file that cannot be, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputNotWritable(f"{path}: give a file name ending in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise OutputNotWritable(f"{path}: is a folder: give a file name")
    if not path.parent.is_dir():
        raise OutputNotWritable(f"{path.parent}: no such folder: create it first")
    if path.suffix.lower() == ".parquet":
        import_parquet()


@contextmanager
def opened(path: Path, asked: Asked, images: Sequence[str]) -> Iterator[Results]:
    """The file, ready for the pictures that it does not answer for. Of those, rows that said why are taken out.

    Raises InvalidInput for a file that is not of `zoo predict`, of another model or of other options, or that another
    run is writing, and OutputNotWritable.
    """
    parquet = path.suffix.lower() == ".parquet"
    lines, form = (
        (path.with_name(path.name + _PART), LINES[".jsonl"]) if parquet else (path, LINES[path.suffix.lower()])
    )
    if parquet and path.exists() and not lines.exists():
        _unpack(path, lines, asked)
    with _alone(lines):
        answered = _resume(lines, form, asked, {key(image) for image in images})
    with _alone(lines) as file:  # it may be another one now, put in the first one's place
        before = lines.stat().st_size
        yield Results(file, form, asked, answered, lines)
        if parquet and (lines.stat().st_size != before or not path.exists()):
            _pack(lines, path, asked)
    if parquet:
        lines.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[FileIO]:
    """The file, open to append to, while no other run has it. It is created where it is missing."""
    with _written(path):
        file = FileIO(path, "ab")  # no buffer: a row is there when it was written
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidInput(f"{path}: another run is writing it: wait for it, or give another --out") from error
            except OSError:  # a file system without locks
                pass
        yield file


def _resume(path: Path, form: Form, asked: Asked, wanted: set[str]) -> frozenset[str]:
    """The pictures that the file answers for. It is left with whole rows, and none for a picture to be tried again."""
    head = form.header(asked.ranks)
    answered, again, size = set[str](), set[int](), 0
    with _written(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            size += len(line)
            if number == 1 and head:
                _check_header(line, head, path)
                continue
            row = _row(line, form, asked, f"{path}, line {number}")
            if "error" not in row:
                answered.add(row["image"])
            elif row["image"] in wanted:
                again.add(number)
    with _written(path):
        os.truncate(path, size)
        if again:
            _without(path, again)
        if size == 0:
            path.write_bytes(head)
    return frozenset(answered)


def _check_header(line: bytes, head: bytes, path: Path) -> None:
    if line == head:
        return
    # image, error, trained and model, and four columns of each class
    ranks, rest = divmod(line.count(b",") - 3, 4)
    if line.startswith(b"image,") and rest == 0:
        raise _other(path, f"answers of {ranks} classes", "--top")
    raise _foreign(path)


def _row(line: bytes, form: Form, asked: Asked, where: str) -> Row:
    try:
        row = form.decode(line, asked.ranks)
    except ValueError as error:
        raise _foreign(where) from error
    if row["model"] != asked.model:
        raise _other(where, f"an answer of model {row['model']}, this is {asked.model}", "model or options")
    if "top" in row and len(row["top"]) != asked.ranks:
        raise _other(where, f"an answer of {len(row['top'])} classes", "--top")
    return row


def _other(where: object, has: str, differs: str) -> InvalidInput:
    return InvalidInput(f"{where}: has {has}: give the same {differs} as before, or another --out")


def _foreign(where: object) -> InvalidInput:
    return InvalidInput(f"{where}: is not what `zoo predict --out` writes: mend or remove it, or give another --out")


def _without(path: Path, numbers: set[int]) -> None:
    """The file without some of its lines, written beside it and put in its place."""
    with _beside(path) as draft, path.open("rb") as old, draft.open("wb") as new:
        new.writelines(line for number, line in enumerate(old, 1) if number not in numbers)


def _unpack(path: Path, lines: Path, asked: Asked) -> None:
    try:
        ranks, rows = read_parquet(path)
    except ValueError as error:
        raise _foreign(path) from error
    if ranks != asked.ranks:
        raise _other(path, f"answers of {ranks} classes", "--top")
    with _written(lines), _beside(lines) as draft, draft.open("wb") as file:
        for row in rows:
            line = LINES[".jsonl"].encode(row, ranks)
            _row(line, LINES[".jsonl"], asked, str(path))
            file.write(line)


def _pack(lines: Path, path: Path, asked: Asked) -> None:
    with _written(path), _beside(path) as draft, lines.open("rb") as file:
        write_parquet(map(json.loads, file), asked.ranks, draft)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path to write to, beside this one; what lies there then takes its place."""
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        yield draft
        with draft.open("r+b") as file:  # whole even if the power fails
            os.fsync(file.fileno())
        draft.replace(path)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputNotWritable):
            raise
        reason = os.strerror(error.errno) if error.errno else error
        raise OutputNotWritable(f"{path}: cannot be written ({reason}); the answers so far are kept") from error
