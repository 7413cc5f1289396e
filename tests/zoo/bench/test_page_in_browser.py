"""The page in a real browser: clicks that sort, charts that show, nothing asked of a network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.bench.browser import Tab, find, opened
from tests.zoo.bench.records import NETWORKS, make_record
from zoo.bench.page import page

pytestmark = pytest.mark.slow

NAMES = [name for name, *_ in NETWORKS[:12]]
Opener = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture
def record() -> dict[str, Any]:
    """Rows in no order, of which some have no time and some no accuracy."""
    made = make_record(NAMES, problems=["vgg19"], unsettled=["vgg16"])
    random.Random(0).shuffle(made["rows"])
    return made


@pytest.fixture
def show(tmp_path: Path) -> Opener:
    """Opens the page of a record; at the end it holds that nothing was complained of and nothing asked for."""
    program = find()
    if program is None:
        pytest.skip("no Chromium here: install one, or name it in EDGEZOO_CHROMIUM")

    @contextmanager
    def show(record: dict[str, Any], **options: Any) -> Iterator[Tab]:
        file = tmp_path / "bench.html"
        file.write_text(page(record), encoding="utf-8")
        with opened(program, file, **options) as tab:
            yield tab
            assert tab.errors == []
            assert tab.requests == [file.resolve().as_uri()]

    return show


def _column(tab: Tab, head: str) -> list[str]:
    """What a column of the table shows, from the top down."""
    return list(
        tab.evaluate(
            "(head => { const at = [...document.querySelectorAll('.high th')].findIndex(th => th.innerText === head);"
            "return [...document.querySelectorAll('.high tbody tr')].map(row => row.cells[at].innerText); })"
            f"({head!r})"
        )
    )


def _head(tab: Tab, head: str) -> str:
    """The selector of a column's head."""
    at = tab.evaluate(f"[...document.querySelectorAll('.high th')].findIndex(th => th.innerText === {head!r})")
    assert at >= 0
    return f".high th:nth-child({at + 1})"


def _times(record: dict[str, Any]) -> tuple[list[str], list[float]]:
    timed = [row for row in record["rows"] if row["latency_ms"]]
    timed.sort(key=lambda row: row["latency_ms"]["median"])
    return [row["file"] for row in timed], [row["latency_ms"]["median"] for row in timed]


def _names(tab: Tab) -> list[str]:
    """The rows' files, from the top down."""
    models, precisions = _column(tab, "Model"), _column(tab, "Precision")
    return [
        f"{model.rstrip('†')}{'' if precision == 'fp32' else '-' + precision}.onnx"
        for model, precision in zip(models, precisions, strict=True)
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_click_sorts_by_number_and_another_turns_it_around(record: dict[str, Any], show: Opener, dark: bool) -> None:
    with show(record, dark=dark) as tab:
        rising, medians = _times(record)
        assert sorted(medians, key=str) != medians, "these times would be in order as words, too"
        before = _names(tab)
        assert before == [row["file"] for row in record["rows"]]
        head = _head(tab, "CPU ms")
        for expected, order in ((rising[::-1], "descending"), (rising, "ascending"), (rising[::-1], "descending")):
            tab.click(head)
            found = _names(tab)
            assert found[: len(rising)] == expected
            assert {name.partition(".")[0] for name in found[len(rising) :]} == {"vgg19", "vgg19-int8"}
            assert tab.evaluate(f"document.querySelector({head!r}).getAttribute('aria-sort')") == order
        assert tab.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1


def test_names_sort_as_words_and_the_keyboard_does_what_the_mouse_does(record: dict[str, Any], show: Opener) -> None:
    with show(record) as tab:
        tab.click(_head(tab, "Model"))
        models = _column(tab, "Model")
        assert models[:2] == ["alexnet†", "alexnet†"]
        assert models.index("resnet18†") < models.index("resnet50†") < models.index("resnet101†")  # as people count
        tab.evaluate(f"document.querySelector({_head(tab, 'Parameters')!r}).focus()")
        tab.press("Enter")
        assert _column(tab, "Model")[:2] == ["vgg19†", "vgg19†"]


def test_what_is_missing_comes_last_in_both_directions(record: dict[str, Any], show: Opener) -> None:
    for number, row in enumerate(record["rows"]):
        row["calibrated_on"] = (None, "noise", "pictures")[number % 3]
    with show(record) as tab:
        for head, key in (("Calibrated on", str), ("Top-1", lambda text: float(text.removesuffix(" %*")))):
            directions = []
            for _ in range(2):
                tab.click(_head(tab, head))
                shown = _column(tab, head)
                known = [key(text) for text in shown if text != "–"]
                assert 0 < len(known) < len(shown)
                assert shown[len(known) :] == ["–"] * (len(shown) - len(known))
                directions.append(known)
            assert directions[0] == directions[1][::-1] != directions[1]
            assert sorted(known) in directions


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_charts_show(record: dict[str, Any], show: Opener, dark: bool) -> None:
    rows = [row for row in record["rows"] if row["latency_ms"]]
    expected = {
        "latency-accuracy": (".point", sum(row["top1"] is not None for row in rows)),
        "size-latency": (".point", len(rows)),
        "distributions": (".spread", len(rows)),
    }
    with show(record, dark=dark) as tab:
        for name, (mark, count) in expected.items():
            box = tab.evaluate(f"document.querySelector('#{name} svg').getBoundingClientRect().toJSON()")
            assert box["width"] > 500
            assert box["height"] > 200
            marks = f"[...document.querySelectorAll('#{name} {mark}')]"
            drawn = tab.evaluate(f"{marks}.filter(each => each.getBoundingClientRect().width > 2).length")
            assert drawn == count
        letters, ground = (
            tab.evaluate(f"getComputedStyle(document.querySelector('{what}')).{style}")
            for what, style in (("#size-latency text", "fill"), (".high td", "backgroundColor"))
        )
        assert _brightness(letters) > 200 if dark else _brightness(letters) < 60
        assert _brightness(ground) < 60 if dark else _brightness(ground) > 200
        colours = tab.evaluate(
            "[...new Set([...document.querySelectorAll('#size-latency .point')].map(e => getComputedStyle(e).fill))]"
        )
        assert len(colours) == 2
        assert all(abs(_brightness(colour) - _brightness(ground)) > 60 for colour in colours)


def _brightness(colour: str) -> float:
    """Of rgb(r, g, b), from 0 to 255."""
    red, green, blue = (float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_labels_on_the_charts_do_not_overlap(show: Opener) -> None:
    with show(make_record(accuracy="measured")) as tab:
        for name in ("latency-accuracy", "size-latency"):
            boxes = tab.evaluate(
                f"[...document.querySelectorAll('#{name} .label')].map(e => {{ const b = e.getBoundingClientRect();"
                "return [b.left, b.top + 3, b.right, b.bottom - 3]; })"  # letters are less high than their line
            )
            assert len(boxes) > 10
            pairs = [(a, b) for number, a in enumerate(boxes) for b in boxes[:number]]
            assert not [1 for a, b in pairs if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


def test_on_a_phone_only_the_boxes_move_sideways(record: dict[str, Any], show: Opener) -> None:
    with show(record, width=390, height=844) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        wide = "document.querySelector('.high')"
        assert tab.evaluate(f"{wide}.scrollWidth") > 2 * tab.evaluate(f"{wide}.clientWidth")
        tab.evaluate(f"{wide}.scrollTo(10000, 0)")
        left = "document.querySelector('.high tbody td').getBoundingClientRect().left"
        assert tab.evaluate(left) == tab.evaluate(f"{wide}.getBoundingClientRect().left")  # the names stay
