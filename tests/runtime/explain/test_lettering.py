"""Text: it fits, and it can be drawn."""

from __future__ import annotations

import pytest
from PIL import Image

from runtime.explain import lettering
from runtime.explain.lettering import ELLIPSIS, height, legible, shortened, width, write
from tests.runtime.explain.pictures import inked


@pytest.mark.parametrize("room", [30, 60, 119, 300])
@pytest.mark.parametrize(
    "text", ["tabby, tabby cat, of the house", "WWWWWWWWWWWWWWWWWWWWWW", "iiiiiiiiiiiiiiiiiiiiiiiiiii" * 9]
)
def test_what_does_not_fit_is_shortened_as_little_as_possible(text: str, room: int) -> None:
    kept = shortened(text, 20, room)
    assert width(kept, 20) <= room
    if kept != text:
        assert kept.endswith(ELLIPSIS)
        more = text[: len(kept) - len(ELLIPSIS) + 2].rstrip() + ELLIPSIS
        assert width(more, 20) > room


@pytest.mark.parametrize("text", ["Ågjpqy|", "tabby", "W.,;", "fi"])
def test_ink_stays_within_width_and_height(text: str) -> None:
    page = Image.new("RGB", (300, 100), "white")
    taken = write(page, (20, 20), text, 20, (0, 0, 0), room=250)
    assert taken == width(text, 20)
    assert inked(page, (20, 20, 20 + taken, 20 + height(20)))
    around = [(0, 0, 300, 20), (0, 20 + height(20), 300, 100), (0, 0, 19, 100), (20 + taken + 1, 0, 300, 100)]
    assert not any(inked(page, box) for box in around)


def test_letters_without_a_glyph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "WIDER_FONTS", ())
    assert legible("tabby, tabby cat", 20)[0] == "tabby, tabby cat"
    assert legible("猫 cat", 20)[0] == "? cat"
    assert legible("ệ", 20)[0] in ("ệ", "e")
    assert legible(" a\n\tb\x00 c ", 20)[0] == "a b c"
    assert legible("", 20)[0] == ""


def test_a_wider_font_is_taken_where_it_has_the_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "WIDER_FONTS", ("no such font.ttf", "DejaVuSans.ttf"))
    line, face = legible("кошка", 20)
    if getattr(face, "getname", lambda: ("",))()[0] != "DejaVu Sans":
        pytest.skip("this machine has no DejaVu")
    assert line == "кошка"
