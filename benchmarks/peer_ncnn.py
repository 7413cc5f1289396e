"""ncnn's int8 files, as its own tools ncnn2table and ncnn2int8 make them, which no wheel contains.

Convolutions and dense layers get the scales of their weights (per output channel) and of their input (per tensor, from
the largest value on the calibration pictures) behind their weights; ncnn rounds the weights itself when it loads them.
A convolution that feeds another one alone gives integers, as ncnn2int8 arranges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_SCALE_TERM, _REQUANTIZED = 8, 100
_LIMIT = 127
# Which of a layer's parameters say: outputs, whether it has biases, weights.
_KEYS = {"Convolution": (0, 5, 6), "ConvolutionDepthWise": (0, 5, 6), "InnerProduct": (0, 1, 2)}
_GROUPS = 7
_PLAIN = np.dtype("<f4").itemsize
_FLOAT_FLAG = b"\0\0\0\0"
_NORMALISATION_ARRAYS = 4  # of a BatchNorm: slope, mean, variance, bias


@dataclass(slots=True)
class Layer:
    """One line of a .param file, and what the .bin file holds of it."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    options: dict[str, str]
    weights: bytes = b""

    def option(self, key: int, default: int = 0) -> int:
        """A whole-number parameter."""
        return int(self.options.get(str(key), default))

    def line(self) -> str:
        """As the .param file has it."""
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        options = (f"{key}={value}" for key, value in self.options.items())
        return " ".join([self.kind, self.name, counts, *self.inputs, *self.outputs, *options])


def quantize(param: Path, output: Path, pictures: Sequence[Array]) -> None:
    """Write the int8 twin of ``param`` and the .bin beside it. pictures: (1, C, H, W) each.

    Raises RuntimeError for a network with layers whose weights this module does not know.
    """
    layers = read(param)
    rounded = [layer for layer in layers if layer.kind in _KEYS]
    limits = ranges(param, sorted({layer.inputs[0] for layer in rounded}), pictures)
    readers = {name: [layer for layer in layers if name in layer.inputs] for name in limits}
    for layer in rounded:
        scales = [*weight_scales(layer), _LIMIT / limits[layer.inputs[0]]]
        term, following = 1, readers.get(layer.outputs[0], [])
        if layer.kind != "InnerProduct" and [reader.kind for reader in following] in (
            ["Convolution"],
            ["ConvolutionDepthWise"],
        ):
            term += _REQUANTIZED
            scales.append(_LIMIT / limits[layer.outputs[0]])
        layer.options[str(_SCALE_TERM)] = str(term)
        layer.weights += np.asarray(scales, "<f4").tobytes()
    head = f"7767517\n{len(layers)} {len({name for layer in layers for name in layer.outputs})}\n"
    output.with_suffix(".bin").write_bytes(b"".join(layer.weights for layer in layers))
    output.write_text(head + "".join(f"{layer.line()}\n" for layer in layers), encoding="utf-8")


def read(param: Path) -> list[Layer]:
    """The layers of a float32 network with their part of the .bin file."""
    data, start, layers = param.with_suffix(".bin").read_bytes(), 0, []
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        kind, name, given, made, *rest = line.split()
        ends = int(given), int(given) + int(made)
        options = dict(part.split("=", 1) for part in rest[ends[1] :])
        layer = Layer(kind, name, rest[: ends[0]], rest[ends[0] : ends[1]], options)
        size = _size(layer)
        layer.weights = data[start : start + size]
        if layer.kind in _KEYS and layer.weights[: len(_FLOAT_FLAG)] != _FLOAT_FLAG:
            raise RuntimeError(f"{param.name}: {name}: its weights are not float32")
        start += size
        layers.append(layer)
    if start != len(data):
        raise RuntimeError(f"{param.name}: {len(data) - start} bytes of weights belong to layers that are not known")
    return layers


def _size(layer: Layer) -> int:
    """Bytes of a layer's weights."""
    if layer.kind == "BatchNorm":
        return _NORMALISATION_ARRAYS * _PLAIN * layer.option(0)
    if layer.kind not in _KEYS:
        return 0
    outputs, biased, weights = (layer.option(key) for key in _KEYS[layer.kind])
    return len(_FLOAT_FLAG) + _PLAIN * (weights + (outputs if biased else 0))


def weight_scales(layer: Layer) -> list[float]:
    """What takes the weights of every output channel to -127..127."""
    outputs, _, count = (layer.option(key) for key in _KEYS[layer.kind])
    channels = layer.option(_GROUPS, 1) if layer.kind == "ConvolutionDepthWise" else outputs
    weights = np.frombuffer(layer.weights, "<f4", count=count, offset=len(_FLOAT_FLAG)).reshape(channels, -1)
    largest = np.abs(weights).max(axis=1)
    return [float(_LIMIT / value) if value else 1.0 for value in largest]


def ranges(param: Path, blobs: Sequence[str], pictures: Sequence[Array]) -> dict[str, float]:
    """The largest absolute value of each blob on the pictures."""
    import ncnn

    net = ncnn.Net()
    net.opt.use_vulkan_compute = net.opt.lightmode = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_bf16_storage = False
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {param.name}")
    largest = dict.fromkeys(blobs, 1e-6)
    for picture in pictures:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(picture[0]))
            for blob in blobs:
                found = float(np.abs(np.array(extractor.extract(blob)[1])).max())
                largest[blob] = max(largest[blob], found)
    return largest
