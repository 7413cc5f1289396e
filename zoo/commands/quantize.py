"""``zoo quantize FILE --data DIR``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from zoo import quantizing
from zoo.preprocessing import add_uint8_argument
from zoo.terminal import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo quantize``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a float32 .onnx file, exported or imported by edgezoo")
    quantizing.add_arguments(parser)
    add_uint8_argument(parser)
    parser.add_argument("--labels", type=Path, metavar="CSV", help="file and label of each picture in the folder")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file to write (default: FILE_int8.onnx or the like)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Quantize, measure, write or refuse, and say what was measured."""
    precision = quantizing.precision(args) or "int8"
    output = args.output or args.file.with_name(f"{args.file.stem}_{precision}.onnx")
    done = quantizing.make(args.file, output, args, precision, table=args.labels)
    if args.json:
        record = asdict(done.metadata)["quantization"]
        print_json({"path": str(done.path), "bytes": done.bytes, "quantization": record})
    else:
        quantizing.show(done)
    return 0
