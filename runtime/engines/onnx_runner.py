"""onnxruntime's execution providers behind ``Runner``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.engines import session as sessions
from runtime.engines.binding import BoundSession
from runtime.engines.runner import Port
from runtime.engines.session import open_session
from runtime.engines.table import ENGINES
from runtime.errors import InvalidArtifact
from runtime.machine import load_onnxruntime

if TYPE_CHECKING:
    from runtime.engines.runner import Array

# onnxruntime's names of types -> numpy's
_TYPES = {"float": "float32", "double": "float64"}


class OnnxRunner:
    """A session. On the CPU ``run`` is the session's own: nothing stands between a caller and onnxruntime."""

    def __init__(self, path: str | os.PathLike[str], engine: str, **setting: Any) -> None:
        setting["options"] = {**ENGINES[engine].session, **setting["options"]}
        self._path, self._engine, self._setting = path, engine, setting
        session = open_session(path, engine=engine, **setting)
        device = ENGINES[engine].device
        graphs = setting["options"].get("enable_cuda_graph") == "1"
        bound = None if device == "cpu" else BoundSession(load_onnxruntime(), session, device, graphs=graphs)
        self.run = bound.run if bound else session.run
        self.provider = str(session.get_providers()[0])
        self.inputs = [_port(item) for item in session.get_inputs()]
        self.outputs = [_port(item) for item in session.get_outputs()]
        self.optional = frozenset(str(item.name) for item in session.get_overridable_initializers())
        try:
            self.props: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InvalidArtifact(f"{path}: damaged metadata (not UTF-8): get a whole copy") from error

    def prepared(self) -> bytes:
        """The graph as onnxruntime has optimized it for this machine."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "prepared.onnx")
            open_session(self._path, engine=self._engine, **(self._setting | {"leave": file, "prepared": None}))
            return file.read_bytes()

    def close(self) -> None:
        """Let go of the session; a run under way keeps it until it ends."""
        self.run = _closed


def _closed(names: Sequence[str] | None, feed: Mapping[str, Array]) -> Any:
    raise ValueError("closed")


def _port(item: Any) -> Port:
    # onnxruntime's own object would keep the session, and its memory, after close().
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    return Port(str(item.name), list(item.shape), _TYPES.get(kind, kind))


def open_runner(path: str | os.PathLike[str], engine: str, **setting: Any) -> OnnxRunner:
    """See ``runtime.engines.open_runner``."""
    return OnnxRunner(path, engine, **setting)


def why_unavailable(engine: str) -> str | None:
    """See ``runtime.engines.why_not``."""
    return sessions.why_unavailable(engine=engine)
