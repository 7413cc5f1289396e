"""What the road needs to know, in plain values: a recipe goes in, a source comes out.

``Recipe`` says what to build and how pictures reach it; the framework modules answer with a
``Source``: the built network behind three functions. Neither knows the catalogue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exporters.user_code import find
from runtime.errors import InvalidInput
from runtime.metadata import Labels, Layout, Preprocess, WeightsKind

FloatArray = npt.NDArray[np.float32]
Samples = Literal["photos", "digits"]
Output = Literal["scores", "features", "score-map"]
Scores = Literal["classification", "binary", "multilabel"]

UNSETTLED = 0.3
"""Upper end of what is added at random to untrained weights that all begin with one value, 0 or 1."""

GAIN = 0.25
"""What an untrained normalisation gives for what it takes, before its own factor. With 1, networks of a hundred layers
turn rounding errors into noise: EfficientNetV2-L amplifies a change of its input 1500 times. With this and UNSETTLED
none tried amplifies one more than 12 times, and the logits of different pictures still differ by 15 to 36 %."""

LEAST_POWER = 0.1
"""Of the mean over all channels: what a silent channel of an untrained network is normalised with."""


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

    builder: "LIBRARY:NAME" for a library the framework module knows, "package.module:function" or
        "path/to/file.py:function", or "file:NAME" where the weights file is a whole network.
    preprocess: what the artifact will state; verified against the framework's own transform. None
        where the network says it itself (its own Rescaling or Normalization layers) or takes no pictures.
    own_preprocess: whether preprocess is the user's own word, and not to be held against the library's.
    input_shape: (channels, height, width) of a network that takes no pictures; None for all others.
    labels: None for as many nameless classes as the network has.
    task: what the scores are; None where the network tells (a sigmoid at its end, one output for two labels).
    samples: the set of pictures to verify with.
    output: what the file is to give: the classifier's scores, the features below the classifier, or a
        map of scores over pictures larger than the input.
    trust: whether the user vouches for code in the weights file (Lambda layers, pickles).
    """

    name: str
    builder: str
    preprocess: Preprocess | None
    labels: Labels | None
    weights: Weights
    own_preprocess: bool = False
    input_shape: tuple[int, int, int] | None = None
    task: Scores | None = None
    samples: Samples = "photos"
    output: Output = "scores"
    trust: bool = False
    license: str | None = None
    paper: str | None = None

    @property
    def classes(self) -> int | None:
        """Outputs to build the network with; None for the builder's own number."""
        if self.task == "binary":
            return 1
        return None if self.labels is None else len(self.labels.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network, built and loaded, behind the functions that the road uses.

    forward: preprocessed pictures (N, C, H, W) float32 -> logits (N, outputs), by the framework.
    features: the same pictures -> (N, dimensions), what the last layer with weights takes in, by the
        framework; averaged over height and width where that is a map.
    transform: picture file -> (1, C, H, W) float32, by the framework's own preprocessing.
    opsets: what the framework's exporter really writes.
    convert: (opset of these, batch or None for dynamic) -> ONNX model with one input "input" of ``layout`` and
        one output "logits".
    preprocess: the recipe's, or what the network itself demands (its own input size, its own scaling
        layers); None where the input is no picture.
    input_shape: (channels, height, width).
    task: what the scores are; "binary" has one output and two labels.
    labels: the recipe's, or names made up ("class 0") where it had none.
    builder: the recipe's, or "file:NAME" where the weights file brought its own network.
    """

    framework: str
    framework_version: str
    exporter: str
    forward: Callable[[FloatArray], FloatArray]
    features: Callable[[FloatArray], FloatArray]
    transform: Callable[[Path], FloatArray]
    opsets: range
    convert: Callable[[int, int | None], Any]
    layout: Layout
    preprocess: Preprocess | None
    input_shape: tuple[int, int, int]
    task: Scores
    labels: Labels
    builder: str
    weights_sha256: str | None = None


def numbered_labels(task: str, outputs: int) -> Labels:
    """Names for classes that nobody named: "class 0", "class 1", ...; "no" and "yes" for the one output of a binary."""
    return Labels(("no", "yes") if task == "binary" else tuple(f"class {index}" for index in range(outputs)))


def sample_files(kind: Samples) -> list[Path]:
    """The pictures of a sample set, sorted by name."""
    folder = Path(__file__).parent / "samples" / kind
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def random_arrays(shape: tuple[int, ...], count: int) -> FloatArray:
    """Inputs for a network that takes no pictures: (count, *shape), seeded, evenly from -1 to 1."""
    return np.random.default_rng(0).uniform(-1, 1, size=(count, *shape)).astype(np.float32)


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
    """The function or class named "package.module:function" or "path/to/file.py:function".

    Raises UnknownName where there is none, InvalidInput with file and line where importing it fails; called, it
    raises InvalidInput likewise.
    """
    return find(builder)


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
