"""Runs whose inputs and outputs have fixed places on the device: one copy there, one copy back, no allocation."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.engines.runner import Array

_MOST = 8
"""Different shapes that keep their places at a time."""


class BoundSession:
    """An onnxruntime session, run through bindings. Threads that run it at the same time have one each.

    device: onnxruntime's name of where the places are. graphs: whether the session replays CUDA graphs; then runs take
    turns, and each shape has a graph of its own.
    """

    def __init__(self, ort: Any, session: Any, device: str, *, graphs: bool = False) -> None:
        self._ort, self._session, self._device = ort, session, device
        self._free: dict[Any, deque[_Binding]] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock() if graphs else None
        self._graphs = 0

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """As ``InferenceSession.run``; every array must be one that fits."""
        key = tuple(names), tuple((name, array.shape, array.dtype.str) for name, array in feed.items())
        if self._turn is None:
            return self._run(key, names, feed)
        with self._turn:
            return self._run(key, names, feed)

    def _run(self, key: Any, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        try:
            binding = self._free[key].pop()
        except (KeyError, IndexError):
            binding = _Binding(self._ort, self._session, self._device, names, feed, self._graph())
        found = binding.run(feed)
        with self._lock:
            self._free.setdefault(key, deque()).append(binding)
            while len(self._free) > _MOST:
                del self._free[next(iter(self._free))]
        return found

    def _graph(self) -> int | None:
        if self._turn is None:
            return None
        self._graphs += 1
        return self._graphs


class _Binding:
    """Places on the device for one set of shapes."""

    def __init__(
        self, ort: Any, session: Any, device: str, names: Sequence[str], feed: Mapping[str, Array], graph: int | None
    ) -> None:
        self._session, self._names = session, list(names)
        self._binding, self._options = session.io_binding(), None
        if graph is not None:
            self._options = ort.RunOptions()
            self._options.add_run_config_entry("gpu_graph_id", str(graph))
        # A copy: in the CPU's memory the value would be the caller's own array, and be written to.
        self._given = {name: ort.OrtValue.ortvalue_from_numpy(array.copy(), device, 0) for name, array in feed.items()}
        for name, value in self._given.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, device)
        # Where the first run has put its outputs is where all others will.
        session.run_with_iobinding(self._binding)
        self._found = self._binding.get_outputs()
        for name, value in zip(self._names, self._found, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        for name, array in feed.items():
            self._given[name].update_inplace(array)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return [value.numpy().copy() for value in self._found]
