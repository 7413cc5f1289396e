"""What the NAME of ``zoo export`` can be: a row, a model of a library, a file with a network in it, a factory."""

from __future__ import annotations

from pathlib import Path

from exporters.source import Weights
from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Labels
from zoo.models import find
from zoo.spec import Framework, ModelSpec, Variant
from zoo.weights import framework_of

LIBRARIES = ("torchvision", "timm", "keras")

# suffix of a file that holds a network with its weights -> the framework that reads it
NETWORK_FILES: dict[str, Framework] = {".keras": "keras", ".h5": "keras", ".hdf5": "keras", ".pt2": "torch"}

_MEANS = "a network of the zoo, LIBRARY:NAME, a model file or a factory"


def resolve_target(
    text: str, *, source: str | None = None, weights: str | None = None, trust: bool = False
) -> tuple[ModelSpec, Labels | None]:
    """The spec that ``text`` names, made up where it is no row of the catalogue, and the classes it names itself.

    source, weights: what the command line says of them; they tell the framework of a factory.
    trust: torch checkpoints may hold a whole network.

    Raises UnknownName or InvalidInput, saying what else to give.
    """
    path = Path(text)
    if path.suffix.lower() == ".onnx":
        raise InvalidInput(f"{text}: is ONNX already: `zoo import` checks and stamps it")
    if path.is_dir() or (path.is_file() and ":" not in path.name):
        return _file(path, trust), None
    library, colon, _ = text.partition(":")
    if library in LIBRARIES and colon:
        return _library(text)
    if colon:
        return _factory(text, source or framework_of(weights) or "torch"), None
    if path.suffix.lower() in NETWORK_FILES or len(path.parts) > 1:
        raise InvalidInput(f"{text}: no such file: give {_MEANS}")
    return find(text), None


def own_weights(variant: Variant, path: Path) -> Weights | None:
    """The weights that come with the network: those of a file that holds both; None for all other specs."""
    return Weights(kind="file", path=path) if variant.builder.startswith("file:") else None


def _file(path: Path, trust: bool) -> ModelSpec:
    suffix = path.suffix.lower()
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise InvalidInput(f"{path}: a folder without saved_model.pb: give a SavedModel, or the model file itself")
        framework: Framework | None = "keras"
    else:
        framework = NETWORK_FILES.get(suffix) or ("torch" if trust else None)
    if framework is None:
        raise InvalidInput(
            f"{path}: holds weights, not a network: name the network, `zoo export NAME --weights {path.name}` "
            "(or --trust, for a whole network that was pickled by someone you trust)"
        )
    return _made_up(path.stem or path.name, framework, Variant(builder=f"file:{path.name}", preprocess=None))


def _library(text: str) -> tuple[ModelSpec, Labels | None]:
    from exporters.libraries import describe

    told = describe(text)
    variant = Variant(builder=text, preprocess=told.preprocess, license=told.license, hub=told.hub)
    spec = ModelSpec(
        name=text.partition(":")[2],
        sources={told.framework: variant},
        paper=told.paper,
        labels=told.label_set,
    )
    return spec, told.labels


def _factory(text: str, framework: str) -> ModelSpec:
    if framework not in ("torch", "keras"):
        raise UnknownName(f"unknown source {framework!r}: choose torch or keras")
    name = text.rpartition(":")[2]
    if not name.isidentifier():
        raise UnknownName(f"{text!r}: give package.module:factory or path/to/file.py:factory")
    return _made_up(name, framework, Variant(builder=text, preprocess=None))  # type: ignore[arg-type]


def _made_up(name: str, framework: Framework, variant: Variant) -> ModelSpec:
    return ModelSpec(name=name, sources={framework: variant}, paper=None, task=None, labels=None)
