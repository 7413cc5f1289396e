"""The protocol of an opened file, whatever engine runs it, and the door to all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from runtime.engines.table import ENGINES, FULL, NO_OPTIONS, engine_for

if TYPE_CHECKING:
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]


class Port(NamedTuple):
    """An input or output of a graph. shape: numbers, and names or None for free axes. dtype: numpy's name."""

    name: str
    shape: list[int | str | None]
    dtype: str


class Runner(Protocol):
    """A file that an engine has opened. Safe to run from several threads.

    provider: what really runs the graph. inputs: those that must be given; optional: names of those that may be.
    props: the file's ``metadata_props``.
    """

    provider: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    optional: frozenset[str]
    props: Mapping[str, str]

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """These outputs, for these inputs by name. Raises what the library raises."""

    def prepared(self) -> bytes:
        """What opens faster the next time, on this machine and with this version of the engine."""

    def close(self) -> None:
        """Let go of the memory; runs under way end first or keep what they need."""


def open_runner(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    engine: str | None = None,
    precision: str = FULL,
    threads: int | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    prepared: bytes | None = None,
) -> Runner:
    """A model file, opened by exactly this engine on exactly this device.

    device, engine, precision: of ENGINES; the device's own engine, in float32, by default.
    threads: of one inference; by default all usable cores. options: the engine's own, under the names it documents.
    prepared: what ``Runner.prepared`` gave for this very file and setting. It is trusted as a program is.

    Raises InvalidInput for a name that is not in the table, ArtifactNotFound or InvalidArtifact for a file that cannot
    be opened, DeviceUnavailable for a device or a precision that cannot be had here, and MissingDependency.
    """
    name = engine_for(device, engine)
    module, _, function = ENGINES[name].opener.partition(":")
    opened: Runner = getattr(import_module(module), function)(
        path, name, precision=precision, threads=threads, options=options, prepared=prepared
    )
    return opened


def why_not(engine: str) -> str | None:
    """Why an engine of the table cannot be used here, with the remedy; None where it can. Raises MissingDependency."""
    module = import_module(ENGINES[engine].opener.partition(":")[0])
    reason: str | None = module.why_unavailable(engine)
    return reason
