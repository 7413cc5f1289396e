"""What the search takes from the clock and from the errors that it is told."""

from dataclasses import replace

import pytest

from exporters.quantize import fronts
from exporters.quantize.forms import CAUTIONS, forms
from exporters.quantize.journal import Journal
from exporters.quantize.search import Search
from exporters.quantize.targets import TARGETS, this_machine
from exporters.quantize.way import Form, Way
from tests.exporters.quantize.networks import mobile, pictures, silent, swish


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setattr(fronts, "_FRONTS", (0, 1, 2))
    return Search(mobile(1), pictures(32), TARGETS[this_machine()], Journal(None, ""), silent)


def form(search: Search) -> Form:
    return next(iter(forms(search.proto, search.seen, search.style)))


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ({0: 0.9, 1: 0.8, 2: 0.85, 4: 0.79}, 1),  # a third of the layers in float is not worth a hundredth
        ({0: 0.9, 1: 0.8, 2: 0.85, 4: 0.7}, 4),
        ({0: 0.8, 1: 0.8, 2: 0.8, 4: 0.8}, 0),
    ],
)
def test_long_fronts_stay_in_float_only_where_it_is_worth_it(
    search: Search, shares: dict[int, float], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = form(search)
    count = sum(network.network.weighted(node) for node in network.network.nodes)
    long = [int(share * count) for share in fronts._LONG_FRONTS if int(share * count) > 2]
    assert long[0] in (3, 4)
    order = [0, 1, 2, *long]
    worth = {front: shares.get({long[0]: 4}.get(front, front), 0.95) for front in order}
    order += sorted(order, key=lambda front: worth[front] / (0.97 if front in long else 1))[:3]
    asked: list[int] = []
    speed = 1.0

    def clock(models: list[bytes]) -> list[float]:
        nonlocal speed
        speed *= 1.7  # the machine drifts from one run of the clock to the next
        some = order[len(asked) : len(asked) + len(models) - 1]
        asked.extend(some)
        return [speed, *(speed * worth[front] for front in some)]

    monkeypatch.setattr(search, "_milliseconds", clock)
    assert search._front(network) == (long[0] if chosen == 4 else chosen)
    assert asked == order


def test_a_front_that_was_fast_by_luck_is_found_out(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([[1.0, 0.9, 0.8, 0.7], [1.0, 0.9, 0.8, 0.85]])
    monkeypatch.setattr(fronts, "_LONG_FRONTS", ())
    monkeypatch.setattr(search, "_milliseconds", lambda models: next(runs)[: len(models)])
    assert search._front(form(search)) == 1, "of 2, 1 and 0 layers in this order"


@pytest.mark.parametrize(("on_integers", "silu"), [(0.5, True), (0.59, False)])
def test_silu_is_on_integers_where_that_is_faster(
    on_integers: float, silu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "_FRONTS", (0,))
    monkeypatch.setattr(fronts, "_LONG_FRONTS", ())
    search = Search(swish(), pictures(32), TARGETS[this_machine()], Journal(None, ""), silent)
    runs = iter([[1.0, 0.6], [1.0, 0.6], [1.0, 0.6, on_integers]])
    monkeypatch.setattr(search, "_milliseconds", lambda models: next(runs))
    assert search._front(form(search)) == 0
    assert search.style.silu is silu
    way = search._way(form(search), 0, "whole", frozenset())
    assert ("stem.gate" in way.chosen) is silu


def test_how_far_limited_channels_grow_is_what_errs_least(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def way(form: Form, front: int, ranges: str, spared: frozenset[str]) -> Way:
        assert (front, ranges, spared) == (1, "whole", frozenset())
        assert form.network.rounded, "its weights are as they will be"
        asked.append(form.caution)
        return Way("", None, 0, error={0.1: 0.3, 0.5: 0.1, 1.0: 0.2}[form.caution])

    monkeypatch.setattr(search, "_way", way)
    assert search._caution(1) == 0.5
    assert asked == list(CAUTIONS)
    without = Search(swish(), pictures(32), TARGETS[this_machine()], Journal(None, ""), silent)
    monkeypatch.setattr(without, "_way", way)
    assert without._caution(1) == CAUTIONS[0], "no limit, no question"
    assert asked == list(CAUTIONS)


def test_sets_of_float_nodes_have_the_time_that_is_measured(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    way = search._way(form(search), 0, "whole", frozenset())
    names = sorted(way.chosen)
    sets = [(1 + 0.01 * count, frozenset(names[:count])) for count in range(1, 5)] + [(1.5, frozenset(names))]
    monkeypatch.setattr(search, "_milliseconds", lambda models: [2.0, 2.2, 2.4, 2.6, 2.8][: len(models)])
    found = search._slower(way, sets)
    assert [share for share, _ in found] == pytest.approx([1.1, 1.2, 1.3, 1.4]), "the dear one is not even tried"
    assert [spared for _, spared in found] == [spared for _, spared in sets[:4]]
    assert search._slower(way, []) == []


def test_a_rescue_has_ever_more_in_float_while_that_is_faster(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    way = replace(search._way(form(search), 0, "whole", frozenset()), times=(2.0, 1.0))
    names = sorted(way.chosen)
    finer = replace(way, spared=frozenset(names[:2]))
    sets = [(1 + 0.1 * count, frozenset(names[:count])) for count in range(1, 6)]
    monkeypatch.setattr(search, "_spared", lambda way: sets)
    times = iter([1.5, 1.9, 2.0])
    monkeypatch.setattr(search, "_milliseconds", lambda models: [2.0, next(times)])
    made = list(search.rescue([finer, way]))
    assert [len(one.spared) for one in made] == [3, 5], "beyond what was tried"
    assert [one.ratio for one in made] == pytest.approx([0.75, 0.95])
    monkeypatch.setattr(search, "_milliseconds", lambda models: [2.0, 2.0])
    assert not list(search.rescue([way])), "what is not faster is of no use"


def test_ways_are_compared_by_error_for_the_time_they_save() -> None:
    def way(error: float, ratio: float | None, spared: int = 0) -> Way:
        names = frozenset(map(str, range(spared)))
        return Way("", None, 0, error=error, times=None if ratio is None else (2.0, 2 * ratio), spared=names)

    assert way(0.10, 0.5).cost < way(0.09, 0.6).cost, "a tenth less error is not worth a fifth of the saving"
    assert way(0.06, 0.6).cost < way(0.10, 0.5).cost
    assert way(0.10, 0.88).cost < way(0.06, 0.94).cost, "nor are two fifths less worth half of it"
    assert way(0.50, 0.99).cost < way(0.01, 1.0).cost, "what is not faster is of no use"
    assert way(1e-6, 0.5).cost < way(1e-3, 0.5).cost, "it is given away"
    assert way(1e-3, 0.5).cost < way(1e-6, 0.51).cost, "but below what changes an answer time counts first"
    assert way(0.2, None).cost < way(0.1, None, spared=3).cost
    assert replace(way(0.2, 0.5), times=None).ratio is None


def test_ways_of_the_same_kernels_take_the_same_time(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    one = search._way(form(search), 0, "whole", frozenset())
    found = [one, replace(one, ranges="cubed", error=2 * one.error), replace(one, spared=frozenset(["pw"]))]
    monkeypatch.setattr(search, "_milliseconds", lambda models: [2.0, 1.1, 1.0, 1.2])
    timed = {(way.ranges, len(way.spared)): way.times for way in search._timed(found)}
    assert timed == {("whole", 0): (2.0, 1.0), ("cubed", 0): (2.0, 1.0), ("whole", 1): (2.0, 1.2)}
