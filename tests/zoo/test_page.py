"""Pages: what is shown is text, and what is sorted by is its value."""

import re
from html.parser import HTMLParser

from zoo import page


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_well_formed_and_names_are_text() -> None:
    name = '<b> & "quoted"'
    rows = [(name, 0.25, None), ("b", 0.5, 3)]
    whole = page.document(
        name,
        page.facts([(name, name)]),
        page.heading(name),
        page.paragraph(name, note=True),
        page.table((name, "error", "count"), rows, bars=("error",)),
        page.scatter([(0.5, 0.1, name), (1.0, 0.05, "b")], x=name, y="error", best=1),
    )
    tags = Tags(whole)
    assert tags.open == []
    assert "b" not in tags.seen
    assert tags.seen.count("circle") == 2
    assert len(re.findall(r'data-value="0\.25"', whole)) == 1
    assert 'data-value=""' in whole
    assert re.findall(r"width:([\d.]+)%", whole) == ["50.0", "100.0"]


def test_nothing_to_show_is_no_error() -> None:
    assert Tags(page.document("x", page.table(("a",), []), page.scatter([], x="a", y="b", best=0))).open == []


def test_a_cell_can_show_something_else_than_it_is_sorted_by() -> None:
    rows = [(page.Shown("4.1 ms*", 4.1, "<svg></svg>"), "a"), (None, "b")]
    text = page.table(("time", "name"), rows, high="All & more")
    assert '<td class=number data-value="4.1">4.1 ms*<svg></svg></td>' in text
    assert '<td class=number data-value=""></td>' in text
    assert re.findall(r'data-sorts="(\w+)"', text) == ["numbers", "text"]
    assert 'aria-label="All &amp; more"' in text


def test_a_column_of_numbers_and_words_is_sorted_as_words() -> None:
    text = page.table(("a", "b", "c"), [(1, "x", None), ("2", 3, None), (None, None, None)])
    assert re.findall(r'data-sorts="(\w+)"', text) == ["text", "text", "numbers"]


def test_the_best_point_is_marked() -> None:
    drawn = page.scatter([(0.5, 0.1, "a"), (1.0, 0.05, "b"), (0.7, 0.2, "c")], x="x", y="y", best=1)
    fills = re.findall(r'<circle class="point" fill="([^"]*)"[^>]*><title>(.)', drawn)
    assert len(fills) == 3
    assert [name for fill, name in fills if fill == "var(--mark)"] == ["b"]
