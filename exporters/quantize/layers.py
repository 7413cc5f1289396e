"""Layer by layer: what a smaller file loses and what it saves, the worst first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from exporters.quantize.emit import by_channel, dequantized
from exporters.quantize.network import Network, untyped
from exporters.quantize.observe import Progress, run
from exporters.quantize.pictures import Pictures
from exporters.quantize.profiled import layer_times, layers_of
from exporters.quantize.ready import frozen_batch
from exporters.quantize.way import Way
from runtime.pixel_input import find, without_pixels
from runtime.quantization import Precision

_PICTURES = 16  # for the errors: they are sums over whole tensors, and settle at once


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with what is done to its result alone: a convolution and its activation are one layer.

    error: of its result, norm of the difference over the norm; None where it cannot be read. kind: "int8", "fp16",
    "bf16" or "float32". float_ms, smaller_ms: of one picture in onnxruntime's profile, conversions before it included.
    """

    name: str
    operator: str
    kind: str
    error: float | None
    float_ms: float
    smaller_ms: float


def compare(
    way: Way, file: Path, smaller: Path, pictures: Pictures, *, device: str = "cpu", progress: Progress
) -> list[Layer]:
    """Every layer of ``file`` and of what ``way`` made of it, the largest error first."""
    assert way.form is not None
    network = way.form.network
    groups = layers_of(network)
    result = {group: name for name, group in groups.items()}  # a layer's result is its last node's
    progress("layers", 0, 2)
    errors = _errors(network, way.proto, list(result.values()), pictures.first(_PICTURES))
    progress("layers", 1, 2)
    picture = np.repeat(next(pictures.batches(1)), frozen_batch(_read(file)) or 1, axis=0)
    before, after = (layer_times(network, _timed(path), picture, device=device) for path in (file, smaller))
    layers = []
    for group, last in result.items():
        node = network.maker(group)
        assert node is not None
        kind = "int8" if group in way.chosen else way.name if way.name in get_args(Precision) else "float32"
        name = node.name or group
        layers.append(Layer(name, node.op_type, kind, errors.get(last), before[group], after[group]))
    return sorted(layers, key=lambda layer: -(layer.error or 0))


def _timed(path: Path) -> bytes | str:
    """The file, or where it takes pixels the network behind them: it is timed on what that takes."""
    proto = _read(path)
    return str(path) if find(proto) is None else bytes(without_pixels(proto).SerializeToString())


def _read(path: Path) -> Any:
    import onnx

    return onnx.load(path)


def _errors(network: Network, proto: Any, names: list[str], pictures: Pictures) -> dict[str, float]:
    """The error of each of these tensors, where the smaller model still has it."""
    made = {name for node in proto.graph.node for name in node.output}
    # The float before QuantizeLinear is not cut off yet where an activation is the integers' range: it comes last.
    forms = {name: (dequantized(name), by_channel(name), name) for name in names if name not in network.apart}
    read = {name: next(kept for kept in some if kept in made) for name, some in forms.items() if {*some} & made}
    wanted = run(network.proto(extra_outputs=list(read)), list(read), pictures)
    got = run(_as_float(proto, list(read.values())), [f"{name}::read" for name in read.values()], pictures)
    wrong: dict[str, float] = defaultdict(float)
    whole: dict[str, float] = defaultdict(float)
    for exact, rounded in zip(wanted, got, strict=True):
        for name, kept in read.items():
            value = exact[name].astype(np.float64)
            same = rounded[f"{kept}::read"][:, : value.shape[1]]  # channels behind are of ``widen``
            wrong[name] += float(np.square(same - value).sum())
            whole[name] += float(np.square(value).sum())
    return {name: float(np.sqrt(wrong[name] / max(whole[name], 1e-24))) for name in read}


def _as_float(proto: Any, names: list[str]) -> Any:
    """The model giving these tensors in float32."""
    import onnx

    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.output[:]
    for name in names:
        graph.node.append(onnx.helper.make_node("Cast", [name], [f"{name}::read"], to=onnx.TensorProto.FLOAT))
        graph.output.append(untyped(f"{name}::read"))
    return onnx.helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
