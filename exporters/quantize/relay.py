"""A network run piece by piece: what was reached once is held, and gone on from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from exporters.quantize.network import Array, cut
from exporters.quantize.observe import BATCH
from exporters.quantize.pictures import Pictures
from runtime.engines import open_session


class Relay:
    """Tensors of a network on some pictures.

    What is asked for is computed from the nearest tensors that are held; from the pictures where none are.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._held: dict[str, list[Array]] = {}

    def part(self, proto: Any, outputs: Iterable[str]) -> Any:
        """The part of a model that remains to be computed for these tensors, giving them."""
        return cut(proto, list(outputs), known={name: batches[0] for name, batches in self._held.items()})

    def run(self, part: Any, outputs: Iterable[str], *, hold: Iterable[str] = ()) -> Iterator[dict[str, Array]]:
        """The tensors ``outputs`` of what ``part`` gave, batch after batch; at the end those of ``hold`` are held."""
        session = open_session(part.SerializeToString())
        wanted, kept = [*dict.fromkeys((*outputs, *hold))], {name: list[Array]() for name in hold}
        given = [item.name for item in session.get_inputs()]
        for index, start in enumerate(range(0, len(self._pictures), BATCH)):
            feeds = {name: self._held[name][index] for name in given if name in self._held}
            if len(feeds) < len(given):
                stop = min(start + BATCH, len(self._pictures))
                feeds |= {
                    name: next(self._pictures.part(start, stop).batches(BATCH)) for name in given if name not in feeds
                }
            values = dict(zip(wanted, session.run(wanted, feeds), strict=True))
            for name, batches in kept.items():
                batches.append(values[name])
            yield values
        self._held |= kept

    def forget(self, proto: Any, outputs: Iterable[str]) -> None:
        """Let go of what ``outputs`` are not computed from."""
        read = {item.name for item in self.part(proto, outputs).graph.input}
        self._held = {name: batches for name, batches in self._held.items() if name in read}
