"""Files as they are read and written whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from runtime.errors import OutputNotWritable


def write(path: Path, data: bytes) -> None:
    """Write beside the path, then rename: what was there stays, or is replaced by a whole file.

    Raises OutputNotWritable.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            draft.write_bytes(data)
            draft.replace(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OutputNotWritable(f"{path}: cannot be written ({reason}); nothing was kept") from error


def sha256(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
