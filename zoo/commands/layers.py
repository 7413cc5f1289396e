"""``zoo layers FILE``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidInput
from zoo.layer_report import clean
from zoo.terminal import print_json, print_table

if TYPE_CHECKING:
    from runtime.explain.layers import LayerInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo layers``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the layers, the one that explanations start from marked."""
    found = explainable(args.file)
    if args.json:
        print_json([asdict(layer) for layer in found])
        return 0
    if not found:
        raise InvalidInput(f"{args.file}: no layer is a map of places: explain the input, with --method saliency say")
    rows = [
        (clean(layer.name), layer.operator, " x ".join(map(str, layer.shape)), "default" if layer.default else "")
        for layer in found
    ]
    print_table(str(args.file), ("layer", "operator", "shape", ""), rows, right=set())
    return 0


def explainable(path: Path) -> list[LayerInfo]:
    """The layers of any file, in its order: of a file without metadata and preprocessing, too."""
    from runtime.explain.layers import layers
    from runtime.gradients.graph import Graph
    from runtime.model import load
    from runtime.pixel_input import without_pixels
    from zoo.shapes import read

    with load(path) as model:
        stored = model.metadata.explain_layer if model.metadata else None
    return layers(Graph(without_pixels(read(path))), stored)
