"""``zoo stamp FILE --explain``."""

from __future__ import annotations

import argparse
from pathlib import Path

from runtime.errors import InvalidInput
from zoo.terminal import print_json, steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo stamp``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file that edgezoo wrote, float32 or int8")
    parser.add_argument("--explain", action="store_true", help="put Grad-CAM into the file, as an optional output")
    parser.add_argument("--layer", metavar="NAME", help="of `zoo layers FILE` (default: the last convolutional map)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (default: FILE_explained.onnx)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write the file with what was asked for, verified."""
    if not args.explain:
        raise InvalidInput("nothing to stamp: give --explain")
    output = args.output or args.file.with_name(f"{args.file.stem}_explained.onnx")
    from exporters.explained import write_explained

    with steps(("explain",), what=args.file.name, verbose=args.verbose) as begin:
        begin("explain")
        layer = write_explained(args.file, output, layer=args.layer)
    if args.json:
        print_json({"path": str(output), "bytes": output.stat().st_size, "explain_layer": layer})
    else:
        print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB): {told(layer)}")
    return 0


def told(layer: str) -> str:
    """What such a file gives, in a line."""
    return f"with explain=True its output explanation is Grad-CAM at {layer}"
