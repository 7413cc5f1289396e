"""The record of a run: one JSON object, by the schema beside this file. Written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.errors import InvalidInput
from runtime.files import write as write_bytes

SCHEMA = 1
"""Version of the form; a record of another one is not read."""

SCHEMA_FILE = Path(__file__).with_name("schema.json")
"""The form, as JSON Schema (draft 2020-12)."""

Record = dict[str, Any]
Row = dict[str, Any]

_PARTS = ("machine", "settings", "noise", "rows")


def identity(row: Row) -> tuple[str, str, str, str, int, int]:
    """What makes a row the same in two records."""
    return (row["name"], row["source"], row["precision"], row["device"], row["batch"], row["threads"])


def read(file: Path) -> Record:
    """A record. Raises InvalidInput for a file that is none, or one of another version."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file}: is no record of `zoo bench` ({error}): give what `zoo bench -o` wrote") from error
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}: give what `zoo bench -o` wrote") from error
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise InvalidInput(f"{file}: is no record of `zoo bench`: give what `zoo bench -o` wrote")
    if record["schema"] != SCHEMA:
        raise InvalidInput(
            f"{file}: a record of version {record['schema']}, this edgezoo reads version {SCHEMA}: measure again"
        )
    if missing := [part for part in _PARTS if part not in record]:
        raise InvalidInput(f"{file}: a record without {', '.join(missing)}: measure again")
    return record


def write(data: Any, file: Path, *, indent: int | None = 1) -> None:
    """JSON beside the file, then in its place. Raises OutputNotWritable."""
    write_text(json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False) + "\n", file)


def write_text(text: str, file: Path) -> None:
    """A text beside the file, then in its place. Raises OutputNotWritable."""
    write_bytes(file, text.encode())
