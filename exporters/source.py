"""What the road needs to know, in plain values: a recipe goes in, a source comes out.

``Recipe`` says what to build and how pictures reach it; the framework modules answer with a
``Source``: the built network behind three functions. Neither knows the catalogue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput, UnknownName
from runtime.metadata import Labels, Preprocess, WeightsKind

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Which weights to load.

    kind: "imagenet" takes ``hub`` from the framework's own hub; "file" and "bundled" take ``path``;
        "none" initialises at random from ``seed``.
    """

    kind: WeightsKind
    path: Path | None = None
    hub: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind in ("file", "bundled") and self.path is None:
            raise InvalidInput(f"weights {self.kind!r} need a path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to export.

    builder: "LIBRARY:NAME" for a library the framework module knows, else "package.module:function".
    preprocess: what the artifact will state; verified against the framework's own transform.
    samples: the set of pictures to verify with.
    """

    name: str
    builder: str
    preprocess: Preprocess
    labels: Labels
    weights: Weights
    samples: Literal["photos", "digits"] = "photos"
    license: str | None = None
    paper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network, built and loaded, behind the three functions that the road uses.

    forward: preprocessed pictures (N, C, H, W) float32 -> logits (N, classes), by the framework.
    transform: picture file -> (1, C, H, W) float32, by the framework's own preprocessing.
    opsets: what the framework's exporter really writes.
    convert: (opset of these, batch or None for dynamic) -> ONNX model with one input "input" (layout NCHW
        or NHWC) and one output "logits".
    preprocess: the recipe's, or what the weights file itself demands (its own input size).
    builder: the recipe's, or "file:NAME" where the weights file brought its own network.
    """

    framework: str
    framework_version: str
    exporter: str
    forward: Callable[[FloatArray], FloatArray]
    transform: Callable[[Path], FloatArray]
    opsets: range
    convert: Callable[[int, int | None], Any]
    preprocess: Preprocess
    builder: str
    weights_sha256: str | None = None


def sample_files(kind: Literal["photos", "digits"]) -> list[Path]:
    """The pictures of a sample set, sorted by name."""
    folder = Path(__file__).parent / "samples" / kind
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrays_sha256(arrays: dict[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, shapes, types and values, for weights whose file the framework hides."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def package_version(package: str) -> str:
    """The installed version, without the build suffix: CUDA says nothing of a network converted on the CPU."""
    return version(package).partition("+")[0]


def import_builder(builder: str) -> Callable[..., Any]:
    """The function named "package.module:function"."""
    module, _, function = builder.partition(":")
    try:
        found: Callable[..., Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownName(f"builder {builder!r}: {error}") from error
    return found


def describe_mismatch(expected: dict[str, tuple[int, ...]], given: dict[str, tuple[int, ...]]) -> str | None:
    """What differs between two sets of named shapes, a few names of each kind; None when equal."""
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} {list(given[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    return "; ".join(parts) or None
