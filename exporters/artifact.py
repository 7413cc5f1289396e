"""Writing: beside the destination, checked there, then renamed. Nothing half-written ever shows."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import OutputNotWritable
from runtime.memory import give_back
from runtime.metadata import Metadata

EXTERNAL_DATA_ABOVE = 2**31 - 2**26
"""Bytes of weights. protobuf cannot hold 2 GiB, the graph included; above this they go to NAME.onnx.data beside it."""

_INLINE_BELOW = 1024  # bytes of a tensor that stays in the graph even then


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A path to write to, in a hidden folder beside ``output``; what lies there is renamed at the end.

    On an error or Ctrl-C the folder goes away and an older ``output`` stays as it was.
    Raises OutputNotWritable at once when the folder cannot be written to, before any work is done.
    """
    if output.is_dir():
        raise OutputNotWritable(f"{output}: is a folder: give a file name ending in .onnx")
    if output.suffix != ".onnx":
        raise OutputNotWritable(f"{output}: the output must end in .onnx")
    if not output.parent.is_dir():
        raise OutputNotWritable(f"{output.parent}: no such folder: create it first")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.stem}.", dir=output.parent))
    except OSError as error:
        raise OutputNotWritable(f"{output}: cannot be written ({os.strerror(error.errno or 0)})") from error
    try:
        yield folder / output.name
        for path in folder.iterdir():  # a renamed file must be whole even if the power fails
            _flush(path)
        # Weights first: a graph without its data would be half a model.
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".onnx"):
            path.replace(output.parent / path.name)
    except OSError as error:
        if isinstance(error, OutputNotWritable) or error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EIO,
        ):
            raise
        raise OutputNotWritable(
            f"{output}: cannot be written ({os.strerror(error.errno)}); nothing was kept"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stamp(proto: Any, metadata: Metadata) -> None:
    """Put the metadata into a model proto, in place of any it had."""
    del proto.metadata_props[:]
    for key, value in metadata.to_props().items():
        proto.metadata_props.add(key=key, value=value)


def write(proto: Any, path: Path) -> None:
    """Serialise deterministically; external data only above protobuf's limit.

    External weights leave ``proto`` for the file beside ``path``. Written to the same path again, with another
    stamp, the graph alone is written anew.
    """
    if not _has_external(proto) and _size(proto) > EXTERNAL_DATA_ABOVE:
        import onnx

        data = path.name + ".data"
        path.with_name(data).unlink(missing_ok=True)  # onnx appends to what is there
        onnx.save_model(proto, path, save_as_external_data=True, location=data, size_threshold=_INLINE_BELOW)
        path.with_name(data).chmod(path.stat().st_mode & 0o777)  # onnx gives it to its owner alone
        give_back()
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _has_external(proto: Any) -> bool:
    return any(tensor.data_location == tensor.EXTERNAL for tensor in proto.graph.initializer)


def _size(proto: Any) -> int:
    """Bytes of the weights. The proto itself tells its size only by being serialised, gigabytes beside gigabytes."""
    import onnx

    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in proto.graph.initializer
    )


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
