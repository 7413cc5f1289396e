"""What the tests of hubs share: a server in a hub's place, and how to ask for weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporters.source import Recipe, Source
from runtime.errors import WeightsUnavailable
from zoo.labels import load as labels
from zoo.models import find
from zoo.weights import resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"

WAYS_OUT = "use --weights FILE with weights you have, or --weights none for an untrained network"


@dataclass
class Server:
    """A hub on 127.0.0.1: ``files`` by path; how it behaves; what was asked of it."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    mood: str = "good"  # "cut": closes half way; "silent": accepts and never answers
    etag: str | None = None
    asked: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """One framework's hub, moved to a server: how to ask for weights, and what is right."""

    name: str
    framework: str
    path: str
    data: bytes
    cache: Path
    load: Callable[[], Source]
    point_to: Callable[[str], None]
    expected: str | None

    def cached(self) -> list[str]:
        """Names of the files that hold bytes in the framework's cache."""
        files = [path for path in self.cache.rglob("*") if path.is_file() and path.stat().st_size]
        return sorted(path.name for path in files if path.name not in ("keras.json", "CACHEDIR.TAG", "main"))


def recipe(name: str, framework: str, kind: str = "imagenet") -> Recipe:
    spec = find(name)
    _, variant = spec.variant(framework)
    return Recipe(
        name=name,
        builder=variant.builder,
        preprocess=variant.preprocess,
        labels=labels("imagenet"),
        weights=resolve(spec, variant, kind),
    )


def refusal(hub: Hub) -> str:
    with pytest.raises(WeightsUnavailable) as caught:
        hub.load()
    message = str(caught.value)
    assert "\n" not in message
    return message
