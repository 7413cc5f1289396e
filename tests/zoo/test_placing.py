"""Labels lie over nothing: looked at pair by pair."""

from __future__ import annotations

import math
import random
from itertools import combinations

from zoo.placing import Wish, arrange, touch

ROOM = (0.0, 0.0, 700.0, 400.0)


def test_no_label_covers_anything() -> None:
    rng = random.Random(0)
    found_any, missed_any = False, False
    for crowd in (3, 20, 60):
        spots = [(rng.uniform(5, 695), rng.uniform(5, 395)) for _ in range(crowd)]
        taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
        wishes = [Wish(x, y, rng.uniform(30, 150), far=rng.random() < 0.5) for x, y in spots]
        places = arrange(wishes, taken, ROOM)
        assert len(places) == crowd
        boxes = [place.box for place in places if place is not None]
        found_any, missed_any = found_any or bool(boxes), missed_any or len(boxes) < crowd
        assert not any(touch(one, other) for one, other in combinations(boxes, 2))
        assert not any(touch(box, other) for box in boxes for other in taken)
        assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= 700 and box[3] <= 400 for box in boxes)
        for wish, place in zip(wishes, places, strict=True):
            if place is None:
                continue
            assert place.box[2] - place.box[0] == wish.length or abs(place.box[2] - place.box[0] - wish.length) < 1e-9
            others = [box for box in boxes if box != place.box]
            assert not any(touch((x, y, x, y), box) for x, y in place.leader for box in others)
            rest = [box for box, spot in zip(taken, spots, strict=True) if math.dist(spot, (wish.x, wish.y)) > 20]
            assert not any(touch((x, y, x, y), box) for x, y in place.leader for box in rest)
    assert found_any
    assert missed_any, "the crowd of this test is too small to show what happens when there is no room"


def test_the_best_place_is_beside_the_point() -> None:
    (place,) = arrange([Wish(300, 200, 80)], [(293, 193, 307, 207)], ROOM)
    assert place is not None
    assert (place.box[0], place.anchor, place.leader) == (309, "start", ())
    (place,) = arrange([Wish(690, 200, 80)], [(683, 193, 697, 207)], ROOM)
    assert place is not None
    assert (place.box[2], place.anchor) == (681, "end")


def test_a_label_longer_than_the_room_has_no_place() -> None:
    assert arrange([Wish(300, 200, 800, far=True)], [], ROOM) == [None]


def test_a_label_covers_no_line_but_its_leader_may_cross_one() -> None:
    line = [(0.0, 180.0, 700.0, 182.0)]
    around = [(x, 160.0, x + 14.0, 240.0) for x in (230.0, 370.0)] + [(260.0, 212.0, 350.0, 400.0)]
    (place,) = arrange([Wish(300, 200, 100, far=True)], [(293, 193, 307, 207), *around], ROOM, crossed=line)
    assert place is not None
    assert place.box[3] <= 180
    assert any(y < 180 for _, y in place.leader)
