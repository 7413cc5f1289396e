"""An ONNX file from elsewhere, read: what goes in, what comes out, what it consists of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.engines import open_session
from runtime.errors import InvalidArtifact, InvalidInput, UnsupportedSchema
from runtime.metadata import Layout, Metadata
from runtime.onnxfile import check_file
from runtime.pixel_input import float_network

# onnxruntime's name of an element type -> numpy's. bfloat16, complex and 4-bit tensors have none.
TYPES: dict[str, Any] = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "bool": np.bool_,
} | {f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. shape: a number for a fixed extent, its name for a free one."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """What an input of four dimensions says of the pictures it takes; None for what it leaves open."""

    size: tuple[int, int] | None
    channels: int | None
    layout: Layout | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A file that onnxruntime opened.

    proto: the onnx.ModelProto; tensors kept in other files are still there.
    session: the file as it is, onnxruntime's optimisations as they are.
    data: the other files, by name.
    sha256: of the file's bytes, followed by those of ``data`` in that order.
    stamped: what edgezoo said in it, None where it said nothing.
    """

    path: Path
    proto: Any
    session: Any
    input: Tensor
    outputs: tuple[Tensor, ...]
    data: tuple[str, ...]
    sha256: str
    stamped: Metadata | None
    notes: tuple[str, ...]

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return default_opset(self.proto)


def read(path: Path) -> Foreign:
    """Open and check a file of any origin. Raises ArtifactNotFound or InvalidArtifact in one line."""
    proto = read_proto(path)
    session = open_session(path)
    inputs = session.get_inputs()
    _require_one(path, inputs)
    for kind, values in (("input", inputs), ("output", session.get_outputs())):
        for value in values:
            if _element(value.type) is None:
                raise InvalidArtifact(
                    f"{path}: {kind} {printable(value.name)!r} is a {value.type}: edgezoo runs tensors of "
                    "float16, 32 or 64 or of whole numbers: export it without"
                )
    if not _has_shape(proto, inputs[0].name):
        raise InvalidArtifact(
            f"{path}: input {printable(inputs[0].name)!r} states no shape: export it with one, free dimensions by name"
        )
    data = tuple(sorted({location(tensor) for tensor in tensors(proto) if is_external(tensor)}))
    stamped, notes = _stamped(session.get_modelmeta().custom_metadata_map, path)
    return Foreign(
        path=path,
        proto=proto,
        session=session,
        input=_tensor(inputs[0]),
        outputs=tuple(_tensor(output) for output in session.get_outputs()),
        data=data,
        sha256=_sha256(path, data),
        stamped=stamped,
        notes=(*notes, *_objections(path)),
    )


def without_pixel_input(given: Foreign) -> Foreign:
    """A file of edgezoo's that takes pixels, as the float32 network behind them.

    Raises what ``float_network`` does, and InvalidInput for weights in another file.
    """
    assert given.stamped is not None and given.stamped.preprocess is not None
    if given.data:
        raise InvalidInput(f"{given.path}: takes pixels and has its weights in {given.data[0]}: give the float32 file")
    proto, rule = float_network(given.proto, given.stamped.preprocess, given.path)
    session = open_session(proto.SerializeToString())
    (value,) = session.get_inputs()
    return replace(
        given, proto=proto, session=session, input=_tensor(value), stamped=replace(given.stamped, preprocess=rule)
    )


def read_proto(path: Path) -> Any:
    """The model as a protobuf, its external tensors left where they are. Raises what ``read`` raises."""
    import onnx

    check_file(path)
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())  # onnx.load would also take other formats, by suffix
    except Exception as error:  # protobuf has several
        raise InvalidArtifact(
            f"{path}: not an ONNX file, or cut short: export it again, or get a whole copy"
        ) from error
    if any(isinstance(text, bytes) for text in _texts(proto)):  # protobuf gives what it cannot decode as bytes
        raise InvalidArtifact(f"{path}: a name in it is not UTF-8: damaged, get a whole copy")
    return proto


def picture_input(path: Path) -> Picture | None:
    """What the file's only input says of pictures; None where it cannot take any. Raises what ``read`` raises."""
    inputs = true_inputs(read_proto(path).graph)
    _require_one(path, inputs)
    dims = inputs[0].type.tensor_type.shape.dim
    return picture([dim.dim_value if dim.dim_value > 0 else dim.dim_param for dim in dims])


def picture(shape: Sequence[int | str]) -> Picture | None:
    """Where the channels are: the one dimension of the second and the last that is 1 or 3, or may be."""
    if len(shape) != 4:
        return None
    fixed = {layout for layout, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] in (1, 3)}
    free = {layout for layout, axis in (("NCHW", 1), ("NHWC", 3)) if isinstance(shape[axis], str)}
    found = fixed or free
    if not found:
        return None
    if len(found) == 2:
        return Picture(None, None, None)
    layout: Layout = "NCHW" if found == {"NCHW"} else "NHWC"
    channels = shape[1 if layout == "NCHW" else 3]
    height, width = shape[2:4] if layout == "NCHW" else shape[1:3]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Picture(size, channels if isinstance(channels, int) else None, layout)


def true_inputs(graph: Any) -> list[Any]:
    """The inputs that are no weights: before IR version 4 every weight was listed as an input too."""
    weights = {tensor.name for tensor in graph.initializer} | {
        tensor.values.name for tensor in graph.sparse_initializer
    }
    return [value for value in graph.input if value.name not in weights]


def default_opset(proto: Any) -> int:
    """Version of ONNX's own operators that a model names."""
    return max(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def nodes(proto: Any) -> Iterator[Any]:
    """Every node: of the graph, of the graphs in its attributes, of the model's own functions."""
    stack = [list(proto.graph.node), *(list(function.node) for function in proto.functions)]
    while stack:
        for node in stack.pop():
            yield node
            for attribute in node.attribute:
                stack.extend(list(graph.node) for graph in (attribute.g, *attribute.graphs) if graph.node)


def tensors(proto: Any) -> Iterator[Any]:
    """Every stored tensor: weights and constants, those of inner graphs included."""
    graphs = [proto.graph]
    for node in nodes(proto):
        for attribute in node.attribute:
            graphs.extend(graph for graph in (attribute.g, *attribute.graphs) if graph.ByteSize())
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def is_large(proto: Any) -> bool:
    """Whether the model is too large for one protobuf message: 2 GiB, above which its size cannot even be asked for."""
    try:
        return bool(proto.ByteSize() >= 2**31)
    except Exception:  # noqa: BLE001 - protobuf's EncodeError, which has no stable home
        return True


def is_external(tensor: Any) -> bool:
    """Whether the values are in another file."""
    return bool(tensor.data_location == tensor.EXTERNAL)


def location(tensor: Any) -> str:
    """The name of that file, relative to the model's folder."""
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def producer(proto: Any) -> str:
    """What wrote the file, as far as it says."""
    return " ".join(printable(part) for part in (proto.producer_name, proto.producer_version) if part) or "unknown"


def printable(text: str) -> str:
    """Text of a stranger's file: no terminal escapes, no megabytes."""
    return "".join(char if char.isprintable() else "?" for char in text[:80])


# ---- helpers


def _tensor(value: Any) -> Tensor:
    shape = tuple(
        dim if isinstance(dim, int) and dim > 0 else (dim if isinstance(dim, str) and dim else f"dim_{axis}")
        for axis, dim in enumerate(value.shape)
    )
    return Tensor(value.name, np.dtype(_element(value.type)), shape)


def _element(kind: str) -> Any:
    found = re.fullmatch(r"tensor\((\w+)\)", kind)
    return TYPES.get(found[1]) if found else None


def _has_shape(proto: Any, name: str) -> bool:
    return any(value.name == name and value.type.tensor_type.HasField("shape") for value in proto.graph.input)


def _texts(proto: Any) -> Iterator[Any]:
    yield from (proto.producer_name, proto.producer_version, proto.graph.name)
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    for entry in (*proto.opset_import, *proto.functions):
        yield entry.domain
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        yield value.name
    for node in nodes(proto):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)


def _require_one(path: Path, inputs: Sequence[Any]) -> None:
    if len(inputs) != 1:
        names = ", ".join(printable(value.name) for value in inputs[:4]) + (", ..." if len(inputs) > 4 else "")
        given = f"{len(inputs)} inputs ({names})" if inputs else "no input"
        raise InvalidArtifact(f"{path}: takes {given}: edgezoo runs networks of one input")


def _sha256(path: Path, data: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in (path, *(path.parent / name for name in data)):
        with part.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _stamped(props: dict[str, str], path: Path) -> tuple[Metadata | None, tuple[str, ...]]:
    try:
        found = Metadata.from_props(props, where=str(path))
        return found, ("carries edgezoo metadata: what was not given again was kept",) if found else ()
    except (UnsupportedSchema, InvalidArtifact) as error:
        return None, (f"the file's own metadata was dropped: {str(error).removeprefix(f'{path}: ')}",)


def _objections(path: Path) -> tuple[str, ...]:
    """What onnx's checker holds against a file that onnxruntime runs: worth saying, no reason to refuse it."""
    import onnx

    try:
        onnx.checker.check_model(str(path))  # by its path: a model above 2 GiB is no one message
    except (onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return (f"onnx.checker objects: {printable(lines[0]) if lines else type(error).__name__}",)
    return ()
