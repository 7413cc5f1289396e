"""The page of ``zoo explain --html``: each photo with the heat map above it, and a slider for how much of it shows."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING

from zoo import page as pages

if TYPE_CHECKING:
    from PIL import Image

    from runtime.explain.explanation import Explanation

_SHOWN = 60
"""Percent of the heat map that shows at first."""

_PIXELATED = 200
"""Longer side of a photo below which its pixels are kept as they are: as PNG, and enlarged to squares if tiny."""

_HEAT_SIDE = 256
"""Longer side of a heat map, which the browser enlarges smoothly: it is most of the page."""

_ROW = "display:flex;flex-wrap:wrap;gap:1.5rem"
_FIGURE = "margin:0;width:min(24rem,100%)"
_STACK = "position:relative;line-height:0"
_PHOTO = "width:100%;border-radius:.3rem"
_HEAT = "position:absolute;inset:0;width:100%;height:100%;border-radius:.3rem"
_CONTROL = "display:flex;align-items:center;gap:.6rem;margin-top:.4rem"
_BAR = "flex:1;height:.6rem;border-radius:.15rem;background:linear-gradient(to right,{})"

_SCRIPT = """
document.querySelectorAll("figure").forEach(figure => {
  const much = figure.querySelector("input"), choice = figure.querySelector("select");
  const show = () => {
    figure.querySelectorAll("[data-method]").forEach(part => {
      part.hidden = choice !== null && part.dataset.method !== choice.value;
      if (part.hidden) part.style.display = "none"; else part.style.removeProperty("display");
    });
    figure.querySelectorAll("img[data-method]").forEach(map => { map.style.opacity = much.value / 100; });
    figure.querySelector("output").value = much.value + " %";
  };
  much.addEventListener("input", show);
  if (choice !== null) choice.addEventListener("change", show);
  show();
});
"""


def page(name: str, pictures: Sequence[tuple[str, Sequence[Explanation]]]) -> str:
    """The page, as HTML. name: of the file that is explained. pictures: (what it is called, its explanations)."""
    numbers = count(1)
    parts = [
        pages.paragraph(
            "Where the network found its answer. The slider says how much of the heat map shows; each map is drawn "
            "from its own least to its own most, so that colours compare places of one map and not maps."
        )
    ]
    for image, explanations in pictures:
        parts.append(pages.heading(image))
        by_class: dict[int, list[Explanation]] = {}
        for each in explanations:
            by_class.setdefault(each.index, []).append(each)
        figures = "\n".join(_figure(image, next(numbers), found) for found in by_class.values())
        parts.append(f'<div style="{_ROW}">{figures}</div>\n')
        notes = dict.fromkeys(f"{each.method}: {note}" for each in explanations for note in each.notes)
        parts += [pages.paragraph(note, note=True) for note in notes]
    return pages.document(f"Explanations of {name}", *parts, f"<script>{_SCRIPT}</script>")


def _figure(image: str, number: int, explanations: Sequence[Explanation]) -> str:
    """One class of one picture: the photo, a heat map and its colour bar for each method, slider and selector."""
    from runtime.explain.overlay import heat, photo

    first = explanations[0]
    title = html.escape(first.title)
    base = photo(first.picture)
    shrunk = min(1.0, _HEAT_SIDE / max(base.size))
    size = max(1, round(base.width * shrunk)), max(1, round(base.height * shrunk))
    tiny = max(first.picture.shape[:2]) < _PIXELATED
    maps, bars = "", ""
    for at, each in enumerate(explanations):
        told = html.escape(f"{each.method} for {each.label}, on {image}", quote=True)
        hidden = "" if at == 0 else ";display:none"
        data = _uri(heat(each, size), "PNG")
        method = html.escape(each.method, quote=True)
        maps += (
            f'<img data-method="{method}" src="{data}" alt="heat map: {told}" '
            f'style="{_HEAT};opacity:{_SHOWN / 100}{hidden}">'
        )
        bars += f'<div data-method="{method}" style="{hidden[1:]}">{_caption(each)}</div>'
    alt = html.escape(f"what the network saw of {image}", quote=True)
    choice = _choice(number, [each.method for each in explanations]) if len(explanations) > 1 else ""
    return (
        f'<figure style="{_FIGURE}"><div style="{_STACK}">'
        f'<img src="{_uri(base, "PNG" if tiny else "JPEG")}" alt="{alt}" style="{_PHOTO}">{maps}</div>'
        f"<figcaption><strong>{title}</strong>{bars}</figcaption>{choice}"
        f'<div style="{_CONTROL}"><label for="much{number}">heat map</label>'
        f'<input type="range" id="much{number}" min="0" max="100" value="{_SHOWN}" style="flex:1;min-width:0">'
        f'<output for="much{number}">{_SHOWN} %</output></div></figure>'
    )


def _caption(explanation: Explanation) -> str:
    """The method, and the colour bar between the names of its ends, or why there is none."""
    from runtime.explain.colours import AGAINST_AND_FOR, STRENGTH
    from runtime.explain.overlay import flat_words, legend_names, source

    flat = flat_words(explanation.map)
    told = html.escape(source(explanation) + (f": {flat}" if flat else ""))
    if flat:
        return f"<small>{told}</small>"
    low, high = legend_names(explanation.signed)
    stops = AGAINST_AND_FOR if explanation.signed else STRENGTH
    ramp = _BAR.format(",".join(f"rgb({r},{g},{b})" for r, g, b in stops))
    bar = f'<span style="{ramp}"></span>'
    return f'<small>{told}<span style="{_CONTROL};margin-top:0">{low}{bar}{high}</span></small>'


def _choice(number: int, methods: Sequence[str]) -> str:
    options = "".join(f"<option>{html.escape(method)}</option>" for method in methods)
    return (
        f'<div style="{_CONTROL}"><label for="method{number}">method</label>'
        f'<select id="method{number}" autocomplete="off">{options}</select></div>'
    )


def _uri(image: Image.Image, kind: str) -> str:
    """The picture itself as an address."""
    buffer = BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{b64encode(buffer.getvalue()).decode('ascii')}"
