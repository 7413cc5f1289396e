"""Places for labels around points: beside their own, over no other, over nothing that is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

HEIGHT = 13.0
"""Of a label."""

_NEAR, _FAR = (0, 10), (0, 10, 22, 36, 52, 72, 96)
"""How much further away than beside its point a label may go."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A label that wants a place: its point and its length. far: a place at some distance is better than none."""

    x: float
    y: float
    length: float
    far: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label goes. anchor: the end of its text that is nearest, "start", "middle" or "end".

    leader: places along the line from its point to it, empty where it is so near that none is needed.
    """

    box: Box
    anchor: str
    leader: tuple[tuple[float, float], ...]


def arrange(
    wishes: Sequence[Wish], taken: Sequence[Box], room: Box, *, crossed: Sequence[Box] = ()
) -> list[Place | None]:
    """A place for each label in turn, None where there is none left.

    A label lies inside ``room``, over nothing of ``taken`` or ``crossed``, over no other label and no other's leader.
    A leader crosses no label and nothing of ``taken`` but its own point.
    """
    written: list[Box] = []
    found: list[Place | None] = []
    for wish in wishes:
        place = next(
            (place for place in _places(wish) if _free(place, taken, [*crossed, *written], written, room)), None
        )
        found.append(place)
        if place is not None:
            written += [place.box, *((x - 1, y - 1, x + 1, y + 1) for x, y in place.leader)]
    return found


def touch(one: Box, other: Box) -> bool:
    """Whether two boxes have an area in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _free(place: Place, taken: Sequence[Box], others: Sequence[Box], written: Sequence[Box], room: Box) -> bool:
    left, upper, right, lower = place.box
    if left < room[0] or upper < room[1] or right > room[2] or lower > room[3]:
        return False
    if any(touch(place.box, other) for other in (*taken, *others)):
        return False
    inside_own = 2  # the first places of a leader, near the rim of its point
    if any(touch((x, y, x, y), other) for x, y in place.leader[inside_own:] for other in taken):
        return False
    return not any(touch((x, y, x, y), other) for x, y in place.leader for other in written)


def _places(wish: Wish) -> Iterator[Place]:
    """The places that a label may have, the best first: beside its point, above, below, and then further away."""
    for away in _FAR if wish.far else _NEAR:
        beside = [(9 + away, 0, "start"), (-9 - away, 0, "end")] if away < 22 else []
        above = [
            (across, down * (14 + away), anchor)
            for down in (-1, 1)
            for across, anchor in ((0, "end"), (0, "start"), (0, "middle"), (9 + away, "start"), (-9 - away, "end"))
        ]
        for across, down, anchor in (*beside, *above):
            left = wish.x + across - {"start": 0, "middle": wish.length / 2, "end": wish.length}[anchor]
            box = left, wish.y + down - HEIGHT / 2, left + wish.length, wish.y + down + HEIGHT / 2
            yield Place(box, anchor, _leader(wish, box) if away else ())


def _leader(wish: Wish, box: Box) -> tuple[tuple[float, float], ...]:
    """Places along the straight line from the rim of a point to the nearest place of a box."""
    across, down = min(max(wish.x, box[0]), box[2]) - wish.x, min(max(wish.y, box[1]), box[3]) - wish.y
    gap = max(math.hypot(across, down), 8.0)
    steps = max(2, round(gap / 3))
    parts = (7 / gap + (1 - 7 / gap) * number / (steps - 1) for number in range(steps))
    return tuple((wish.x + part * across, wish.y + part * down) for part in parts)
