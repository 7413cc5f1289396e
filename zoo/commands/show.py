"""``zoo show NAME`` and ``zoo show FILE.onnx``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.errors import InvalidArtifact
from zoo.commands.list import describe
from zoo.models import find
from zoo.terminal import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo show``."""
    parser.add_argument("name", metavar="NAME|FILE", help="a network of the zoo, or an .onnx file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print everything known about one network or one file."""
    is_file = args.name.endswith(".onnx") or Path(args.name).is_file()
    data = _file(args.name) if is_file else _row(args.name)
    if args.json:
        print_json(data)
    else:
        print_table(args.name, ("what", "value"), list(_flatten(data)), right=set())
    return 0


def _row(name: str) -> dict[str, Any]:
    spec = find(name)
    data = describe(spec)
    for source in data["sources"]:
        source["preprocess"] = asdict(spec.variant(source["source"])[1].preprocess)
    return data


def _file(path: str) -> dict[str, Any]:
    from runtime.model import load

    with load(path) as model:
        if model.metadata is None:
            raise InvalidArtifact(f"{path}: carries no edgezoo metadata: it was not exported by edgezoo")
        return asdict(model.metadata)


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
