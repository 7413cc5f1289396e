"""The forms that answers are written in: one line of JSON or of CSV for each picture, and Parquet's columns.

A row is what ``zoo predict --json`` prints of a picture, and ``model``: {"image", "top": [{"index", "label",
"probability", "id"}, ...], "trained", "model"}, or {"image", "error", "model"}. CSV and Parquet have a column for each
part of each rank: label_1, id_1, index_1, probability_1, label_2, ...
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from runtime.errors import MissingDependency

Row = dict[str, Any]

_RANK = {"label": "string", "id": "string", "index": "int32", "probability": "float32"}  # pyarrow's names of types
_FIRST = {"image": "string", "error": "string", "trained": "bool_"}
_GROUP = 10_000  # rows of a Parquet group: no more of them are in memory at a time


@dataclass(frozen=True, slots=True)
class Form:
    """encode: a row and the number of ranks to one line; decode: back, as far as ``image``, ``model``, ``error`` go.

    header: the first line of a file, empty where there is none. decode raises ValueError for what is no row.
    """

    encode: Callable[[Row, int], bytes]
    decode: Callable[[bytes, int], Row]
    header: Callable[[int], bytes] = lambda ranks: b""


def columns(ranks: int) -> dict[str, str]:
    """Every column, and pyarrow's name of its type, for answers of so many classes."""
    of_ranks = {f"{name}_{rank}": kind for rank in range(1, ranks + 1) for name, kind in _RANK.items()}
    return _FIRST | of_ranks | {"model": "string"}


def flat(row: Row) -> Row:
    """A row as its columns; what it does not have is not there."""
    cells = {name: value for name, value in row.items() if name != "top"}
    for rank, guess in enumerate(row.get("top", ()), 1):
        cells |= {f"{name}_{rank}": value for name, value in guess.items()}
    return cells


def nested(cells: Row, ranks: int) -> Row:
    """The row of some columns, as ``flat`` gives them or with None for what is not there."""
    if cells.get("error") is not None:
        return {name: cells[name] for name in ("image", "error", "model")}
    top = [{name: cells.get(f"{name}_{rank}") for name in _RANK} for rank in range(1, ranks + 1)]
    return {"image": cells["image"], "top": top, "trained": cells["trained"], "model": cells["model"]}


# ---- JSON lines


def _to_json(row: Row, ranks: int) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _from_json(line: bytes, ranks: int) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not isinstance(row.get("model"), str):
        raise ValueError("no row")
    return row


# ---- CSV


def _csv_line(cells: Iterable[Any]) -> bytes:
    stream = io.StringIO()
    # A line for each row, whatever a label holds: a torn last one is then known by its missing end.
    told = [" ".join(cell.split("\n")) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(stream, lineterminator="\n").writerow(told)
    return stream.getvalue().encode()


def _to_csv(row: Row, ranks: int) -> bytes:
    cells = flat(row)
    return _csv_line(str(cell).lower() if isinstance(cell, bool) else cell for cell in map(cells.get, columns(ranks)))


def _from_csv(line: bytes, ranks: int) -> Row:
    try:
        (cells,) = csv.reader([line.decode()], strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    row: Row = {name: cell or None for name, cell in zip(columns(ranks), cells, strict=True)}
    if row["image"] is None or row["model"] is None:
        raise ValueError("no row")
    return {name: cell for name, cell in row.items() if cell is not None}


LINES: dict[str, Form] = {
    ".jsonl": Form(_to_json, _from_json),
    ".csv": Form(_to_csv, _from_csv, lambda ranks: _csv_line(columns(ranks))),
}
"""What is written line by line, by suffix."""

# ---- Parquet


def import_parquet() -> tuple[Any, Any]:
    """pyarrow and its Parquet. Raises MissingDependency."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency('.parquet needs pyarrow: pip install "edgezoo[parquet]", or pyarrow') from error
    return pyarrow, pyarrow.parquet


def write_parquet(rows: Iterable[Row], ranks: int, path: Path) -> None:
    """All rows as one file, some thousands in a group. Raises ValueError where not all of them came back from it."""
    arrow, parquet = import_parquet()
    schema = arrow.schema([(name, getattr(arrow, kind)()) for name, kind in columns(ranks).items()])
    pending, count = iter(rows), 0
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [flat(row) for row in islice(pending, _GROUP)]:
            writer.write_table(arrow.Table.from_pylist(group, schema))
            count += len(group)
    if parquet.ParquetFile(path).metadata.num_rows != count:
        raise ValueError("rows are missing")


def read_parquet(path: Path) -> tuple[int, Iterator[Row]]:
    """Number of ranks, and the rows. Raises ValueError for a file that is no Parquet, or not of these columns."""
    arrow, parquet = import_parquet()
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    names = file.schema_arrow.names
    ranks = sum(name.startswith("label_") for name in names)
    if names != list(columns(ranks)):
        raise ValueError("other columns")
    return ranks, (nested(cells, ranks) for batch in file.iter_batches(_GROUP) for cells in batch.to_pylist())
