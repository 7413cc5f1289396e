"""What is measured: networks of the catalogue and files of the user's, each in some precisions, devices and batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.errors import InvalidInput
from zoo.models import MODELS, find
from zoo.spec import Framework, ModelSpec, Variant
from zoo.targets import LIBRARIES

_LAST = "efficientnet_b7"
_QUICK = 8

MISSION: tuple[ModelSpec, ...] = MODELS[: [spec.name for spec in MODELS].index(_LAST) + 1]
"""What is measured without names: from LeNet-5 to EfficientNet B7, as the catalogue lists them."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to measure, from one source.

    source: the framework it is built from; "file" for an .onnx file of the user's, which is then ``path``.
    target: what ``zoo export`` is given; spec: its row, None for what is none.
    """

    name: str
    source: str
    target: str
    spec: ModelSpec | None = field(default=None, compare=False)  # it is the target's, and has no hash
    path: Path | None = None

    @property
    def variant(self) -> Variant | None:
        """The catalogue's, with its counts and what was published; None for what is no row of it."""
        return self.spec.variant(self.source)[1] if self.spec else None


def subjects(names: Sequence[str], *, sources: Sequence[Framework] = (), quick: bool = False) -> list[Subject]:
    """What the names mean, each source of each once, in their order.

    names: of the catalogue, LIBRARY:NAME, or .onnx files; none for those of MISSION that have one of the sources.
    sources: one row for each; without, a network's default one. quick: of MISSION the eight smallest.

    Raises UnknownName for a name that is nowhere, InvalidInput for a file that is not there.
    """
    if quick and names:
        raise InvalidInput("--quick is for the catalogue's smallest: leave the names out, or --quick")
    if names:
        found = [subject for name in names for subject in _named(name, sources)]
    else:
        specs = sorted(MISSION, key=_parameters)[:_QUICK] if quick else MISSION
        having = [spec for spec in MODELS if spec in specs and (not sources or set(sources) & set(spec.sources))]
        found = [subject for spec in having for subject in _of(spec, sources)]
    once = list(dict.fromkeys(found))
    counts = Counter((subject.name, subject.source) for subject in once)
    # Files of one name in two folders are told apart by their paths.
    return [
        replace(subject, name=subject.target) if counts[subject.name, subject.source] > 1 else subject
        for subject in once
    ]


def _named(name: str, sources: Sequence[Framework]) -> list[Subject]:
    path = Path(name)
    if path.suffix.lower() == ".onnx":
        if not path.is_file():
            raise InvalidInput(f"{name}: no such file: give a network of the zoo (`zoo list`) or an .onnx file")
        return [Subject(path.stem, "file", name, path=path)]
    library, colon, rest = name.partition(":")
    if colon and library in LIBRARIES:
        return [Subject(rest, "keras" if library == "keras" else "torch", name)]
    return _of(find(name), sources)


def _of(spec: ModelSpec, sources: Sequence[Framework]) -> list[Subject]:
    wanted = [name for name in spec.sources if name in sources] if sources else [next(iter(spec.sources))]
    if not wanted:
        raise InvalidInput(f"{spec.name} has no {' or '.join(sources)} source: it has {', '.join(spec.sources)}")
    return [Subject(spec.name, source, spec.name, spec) for source in wanted]


def _parameters(spec: ModelSpec) -> int:
    facts = spec.variant()[1].facts
    assert facts is not None
    return facts.total
