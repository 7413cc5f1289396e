"""What an artifact says of itself, and the only place that knows the keys it says it under.

An edgezoo file is plain ONNX whose ``metadata_props`` hold the values below as JSON under
``edgezoo.*`` keys, so a file can be understood years later with onnxruntime alone:
``session.get_modelmeta().custom_metadata_map``. ONNX's own ``Image.*`` keys are written too,
for tools that read those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, TypeVar, get_args

from runtime.errors import InvalidArtifact, InvalidInput, UnsupportedSchema
from runtime.quantization import Quantization

SCHEMA_VERSION = 2

Color = Literal["RGB", "BGR", "L"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Layout = Literal["NCHW", "NHWC"]
InputType = Literal["float32", "uint8"]
WeightsKind = Literal["imagenet", "bundled", "file", "none"]
Task = Literal["classification", "binary", "multilabel", "features", "score-map", "other"]
"""What the first output holds, N pictures in a run:

classification: (N, classes), classes that exclude each other: softmax of the logits.
binary: (N, 1), how much rather the second of two labels than the first: sigmoid of the logit.
multilabel: (N, classes), each class there or not for itself: sigmoid of each logit.
features: (N, dimensions), the embedding below the classifier; no labels.
score-map: (N, classes, rows, columns), the classifier's answer at every window of a larger picture.
other: whatever the graph gives; it can be run, not interpreted.
"""

_PREFIX = "edgezoo."
_SCHEMA_KEY = _PREFIX + "schema"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From a decoded picture to the network's input, as data.

    Steps, in order: convert to ``color``; resize with Pillow's antialiased ``interpolation``;
    crop the centre to ``size``; ``(pixel * scale - mean) / std`` per channel, pixel in 0..255;
    arrange as ``layout``.

    input: "float32" takes what these steps give; "uint8" takes the cropped pixels, in ``color`` and ``layout``, and the
        graph itself does the arithmetic.
    size: (height, width) of the network's input, in pixels.
    resize: an integer is the length given to the shorter side, the aspect ratio kept; a pair
        is the (height, width) the whole picture is stretched to.
    mean, std: one value per channel, in the order of ``color``.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: Color = "RGB"
    interpolation: Interpolation = "bilinear"
    layout: Layout = "NCHW"
    scale: float = 1.0
    input: InputType = "float32"

    def __post_init__(self) -> None:
        _require(self.color in get_args(Color), f"color {self.color!r}")
        _require(self.interpolation in get_args(Interpolation), f"interpolation {self.interpolation!r}")
        _require(self.layout in get_args(Layout), f"layout {self.layout!r}")
        _require(self.input in get_args(InputType), f"input {self.input!r}")
        height, width = self.size
        _require(min(height, width) >= 1, f"size {self.size}")
        to = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        _require(len(to) == 2 and to[0] >= height and to[1] >= width, f"resize {self.resize} below size {self.size}")
        _require(
            len(self.mean) == len(self.std) == self.channels,
            f"mean and std need {self.channels} values for {self.color}",
        )
        _require(all(value != 0 for value in (*self.std, self.scale)), "std and scale must not be 0")

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return 1 if self.color == "L" else 3

    def at_size(self, height: int, width: int) -> Self:
        """The same rule for another input size: the resize grows in the same proportion."""
        if (height, width) == self.size:
            return self
        if isinstance(self.resize, int):
            return replace(self, size=(height, width), resize=round(self.resize * max(height, width) / max(self.size)))
        old_height, old_width = self.size
        stretched = (round(self.resize[0] * height / old_height), round(self.resize[1] * width / old_width))
        return replace(self, size=(height, width), resize=stretched)


@dataclass(frozen=True, slots=True)
class Labels:
    """Class names in output order; ``ids`` are stable identifiers (WordNet ids for ImageNet)."""

    names: tuple[str, ...]
    ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require(len(self.names) > 0, "labels are empty")
        _require(self.ids is None or len(self.ids) == len(self.names), "label ids and names differ in number")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the network and its weights come from. No dates: equal inputs give equal files.

    weights: "imagenet" (framework hub), "bundled", "file", or "none" (untrained, seeded).
    weights_sha256: of the weights file, or of the parameters where the framework hides the file.
    """

    framework: str
    framework_version: str
    exporter: str
    edgezoo_version: str
    builder: str
    opset: int
    weights: WeightsKind
    weights_file: str | None = None
    weights_sha256: str | None = None
    seed: int | None = None
    license: str | None = None
    paper: str | None = None

    def __post_init__(self) -> None:
        _require(self.weights in get_args(WeightsKind), f"weights {self.weights!r}")


@dataclass(frozen=True, slots=True)
class Parity:
    """How the file was compared with its source framework before it was written.

    max_relative_error: largest max|difference| / max|reference| of the logits over all runs.
    """

    inputs: int
    inputs_kind: str
    batch_sizes: tuple[int, ...]
    max_relative_error: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Window:
    """What place i, j of a score map looks at: rows i * stride[0] to i * stride[0] + size[0], columns j alike.

    size, stride: (height, width) in pixels of the network's input.
    crop_error: max|difference| / max|reference| between the map and the network run on each window cut out.
        Rounding where no layer pads. Where layers pad, a window cut out sees zeros beyond its border and the
        map sees the picture there, so they differ by as much as the border matters to the network.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    crop_error: float


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything an artifact says of itself.

    preprocess: None where the input is no picture; then the file runs on arrays alone.
    labels: None where the output is not of classes.
    explain_layer: name of the tensor that explanations start from (the last convolutional map).
    scores: whether the classes' scores are logits or have been through softmax or sigmoid.
    window: of a score map. quantization: of an int8 file.
    """

    name: str
    task: Task
    preprocess: Preprocess | None
    labels: Labels | None
    provenance: Provenance
    parity: Parity | None = None
    explain_layer: str | None = None
    scores: Literal["logits", "probabilities"] = "logits"
    window: Window | None = None
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        _require(self.task in get_args(Task), f"task {self.task!r}")
        _require(self.scores in ("logits", "probabilities"), f"scores {self.scores!r}")
        unlabelled = self.task in ("features", "other")
        _require((self.labels is None) == unlabelled, f"labels {'given' if self.labels else 'missing'} for {self.task}")
        _require(
            self.task != "binary" or (self.labels is not None and len(self.labels.names) == 2),
            "binary needs two labels",
        )
        _require((self.window is not None) == (self.task == "score-map"), "window and score-map go together")

    @property
    def trained(self) -> bool:
        """False where the weights are random."""
        return self.provenance.weights != "none"

    def to_props(self) -> dict[str, str]:
        """As ONNX ``metadata_props``, in a fixed order."""
        props = {_SCHEMA_KEY: str(SCHEMA_VERSION)}
        for field in fields(self):
            value = getattr(self, field.name)
            plain = asdict(value) if hasattr(value, "__dataclass_fields__") else value
            if isinstance(value, Preprocess) and value.input == "float32":
                del plain["input"]  # such files are as they were before there were others
            props[_PREFIX + field.name] = json.dumps(plain, ensure_ascii=False, sort_keys=True)
        return props | (_image_props(self.preprocess) if self.preprocess else {})

    @classmethod
    def from_props(cls, props: Mapping[str, str], *, where: str = "model") -> Self | None:
        """Read ``metadata_props``; None when the file carries no edgezoo metadata at all.

        Raises UnsupportedSchema for another schema, InvalidArtifact for damaged metadata.
        """
        if _SCHEMA_KEY not in props:
            return None
        if props[_SCHEMA_KEY] != str(SCHEMA_VERSION):
            raise UnsupportedSchema(
                f"{where}: metadata schema {props[_SCHEMA_KEY]!r}, this edgezoo reads schema {SCHEMA_VERSION}: "
                "install the edgezoo that wrote the file, or export it again"
            )
        values: dict[str, Any] = {}
        try:
            for field in fields(cls):  # every key: without "scores", probabilities would be read as logits
                key = _PREFIX + field.name
                # Files from before there was quantization do not speak of it.
                values[field.name] = json.loads(props.get(key, "null") if field.name == "quantization" else props[key])
            for name, part in _PARTS.items():
                if values[name] is not None:
                    values[name] = _build(part, values[name])
            if values["provenance"] is None:
                raise ValueError("no provenance")
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidArtifact(f"{where}: damaged edgezoo metadata ({error}): export the model again") from error


_PARTS: dict[str, type[Any]] = {
    "preprocess": Preprocess,
    "labels": Labels,
    "provenance": Provenance,
    "parity": Parity,
    "window": Window,
    "quantization": Quantization,
}

Part = TypeVar("Part")


def _build(part: type[Part], values: dict[str, Any]) -> Part:
    """A dataclass from JSON: lists become tuples; an unknown field is an error, never ignored."""
    if not isinstance(values, dict):
        raise ValueError(f"{part.__name__.lower()} is no JSON object")
    return part(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _image_props(preprocess: Preprocess) -> dict[str, str]:
    """ONNX's own description of an image input (onnx/docs/MetadataProps.md)."""
    pixel_format = {"RGB": "Rgb8", "BGR": "Bgr8", "L": "Gray8"}[preprocess.color]
    return {
        "Image.BitmapPixelFormat": pixel_format,
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": _nominal_range(preprocess),
    }


def _nominal_range(preprocess: Preprocess) -> str:
    if preprocess.input == "uint8":
        return "NominalRange_0_255"
    low = {(0 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)}
    high = {(255 * preprocess.scale - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)}
    names = {(0.0, 255.0): "NominalRange_0_255", (0.0, 1.0): "Normalized_0_1", (-1.0, 1.0): "Normalized_1_1"}
    pair = (round(low.pop(), 6), round(high.pop(), 6)) if len(low) == len(high) == 1 else None
    # A per-channel mean has no name in ONNX's list; the exact values are in edgezoo.preprocess.
    return names.get(pair, "NominalRange_0_255") if pair else "NominalRange_0_255"


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise InvalidInput(f"invalid metadata: {what}")
