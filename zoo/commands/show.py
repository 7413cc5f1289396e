"""``zoo show NAME`` and ``zoo show FILE.onnx``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import EXPORTERS
from runtime.errors import InvalidInput
from zoo.commands.list import describe
from zoo.disagreements import MISTAKEN, disagreements
from zoo.layer_report import clean, print_layers
from zoo.models import find
from zoo.preprocessing import input_shape
from zoo.spec import Framework, ModelSpec
from zoo.terminal import print_json, print_table, steps

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from zoo.layers import LayerTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo show``."""
    parser.add_argument("name", metavar="NAME|FILE", help="a network of the zoo, or an .onnx file")
    parser.add_argument("--layers", action="store_true", help="list the layers: shapes, parameters, MACs")
    parser.add_argument(
        "--source", choices=list(EXPORTERS), help="with --layers: the framework to build NAME from (default: the first)"
    )
    parser.add_argument(
        "--input-size", metavar="HxW", help="with --layers: height and width of the input (default: the network's)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print everything known about one network or one file."""
    is_file = args.name.endswith(".onnx") or Path(args.name).is_file()
    if args.layers:
        return _show_layers(args, is_file)
    if args.source or args.input_size:
        raise InvalidInput("--source and --input-size say which layers to list: add --layers")
    data = _file(args.name) if is_file else _row(args.name)
    if args.json:
        print_json(data)
    else:
        print_table(args.name, ("what", "value"), list(_flatten(data)), right=set())
    return 0


def layers_of_row(
    spec: ModelSpec,
    framework: Framework | None = None,
    *,
    size: tuple[int, int] | None = None,
    verbose: bool = False,
) -> LayerTable:
    """The layers of a network of the zoo, as its export has them: from untrained weights, so nothing is downloaded.

    size: (height, width) of the input, None for the network's own. Progress goes to stderr.
    Raises UnknownName for a framework that the network does not exist in, and what an export raises.
    """
    import tempfile

    from exporters.export import STEPS, export
    from exporters.source import Recipe
    from zoo.labels import load
    from zoo.layers import count
    from zoo.shapes import read
    from zoo.weights import resolve

    name, variant = spec.variant(framework)
    rule = variant.preprocess
    if size is not None:
        if rule is None:
            raise InvalidInput(f"{spec.name} from {name} sets its input size itself: leave the input size out")
        rule = rule.at_size(*size)
    recipe = Recipe(
        name=spec.name,
        builder=variant.builder,
        preprocess=rule,
        labels=load(spec.labels) if spec.labels else None,
        task=spec.task,
        weights=resolve(spec, variant, "none"),
        samples=spec.samples,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        steps(STEPS, what=f"{spec.name} from {name}", verbose=verbose) as begin,
    ):
        path = export(recipe, name, Path(folder) / "untrained.onnx", on_step=begin).path
        return count(read(path))


# ---- what is shown


def _row(name: str) -> dict[str, Any]:
    spec = find(name)
    data = describe(spec)
    for source in data["sources"]:
        variant = spec.variant(source["source"])[1]
        source["preprocess"] = asdict(variant.preprocess) if variant.preprocess else None
        source["disagreements"] = {found.figure: str(found) for found in disagreements(variant)}
    return data | ({"mistaken": MISTAKEN[spec.name]} if spec.name in MISTAKEN else {})


def _file(path: str) -> dict[str, Any]:
    """What a file says of itself; of one that edgezoo did not write, what ONNX says of it."""
    from runtime.model import load
    from zoo.layers import count
    from zoo.shapes import read, stored_bytes

    with load(path) as model:
        metadata = model.metadata
    proto = read(path)
    table = count(proto)
    file = {
        "bytes": stored_bytes(path, proto),
        "parameters": table.parameters,
        "macs": table.macs if table.complete else None,
    }
    return {**(asdict(metadata) if metadata else _foreign(proto)), "file": file}


def _foreign(proto: ModelProto) -> dict[str, Any]:
    from zoo.shapes import free_inputs

    return {
        "metadata": "none of edgezoo: exported by something else",
        "producer": clean(f"{proto.producer_name} {proto.producer_version}".strip()) or None,
        "ir_version": proto.ir_version,
        "opset": {clean(entry.domain) or "ai.onnx": entry.version for entry in proto.opset_import},
        "inputs": dict(_signature(value) for value in free_inputs(proto.graph)),
        "outputs": dict(_signature(value) for value in proto.graph.output),
        "nodes": len(proto.graph.node),
        "says": {clean(entry.key): clean(entry.value) for entry in proto.metadata_props},
    }


def _signature(value: ValueInfoProto) -> tuple[str, dict[str, Any]]:
    from onnx import TensorProto

    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else clean(dim.dim_param) or "any" for dim in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type).lower() if value.type.HasField("tensor_type") else "no tensor"
    return clean(value.name), {"type": kind, "shape": shape if tensor.HasField("shape") else None}


def _show_layers(args: argparse.Namespace, is_file: bool) -> int:
    from zoo.layers import count
    from zoo.shapes import read, stored_bytes

    size: tuple[int, int] | None = None
    if args.input_size:
        height, width = input_shape(args.input_size)
        size = height, width
    if is_file:
        if args.source:
            raise InvalidInput("--source belongs to a network of the zoo: a file is built already")
        proto = read(args.name)
        data: dict[str, Any] = {"file": args.name, "bytes": stored_bytes(args.name, proto)}
        table = count(proto, size=size)
    else:
        spec = find(args.name)
        framework, _ = spec.variant(args.source)
        data = {"name": spec.name, "source": framework}
        table = layers_of_row(spec, framework, size=size, verbose=args.verbose)
    if args.json:
        print_json(data | asdict(table))
    else:
        print_layers(args.name if is_file else f"{spec.name} from {framework}", data.get("bytes"), table)
        if not is_file:
            print("from untrained weights: biases that start at zero are folded away, a trained file stores them too")
    return 0


def _flatten(data: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as "a.b: value" rows; long lists are cut, JSON has them whole."""
    if isinstance(data, dict):
        return [row for key, value in data.items() for row in _flatten(value, f"{prefix}.{key}" if prefix else key)]
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return [row for item in data for row in _flatten(item, f"{prefix}[{item.get('source', '')}]")]
    if isinstance(data, (list, tuple)):
        shown = ", ".join(str(item) for item in data[:6])
        return [(prefix, f"{shown}, ... ({len(data)})" if len(data) > 6 else shown)]
    return [(prefix, "" if data is None else str(data))]
