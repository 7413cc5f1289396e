"""``zoo import FILE.onnx``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from runtime.metadata import Preprocess, Task
from zoo.labels import read
from zoo.preprocessing import NONE, add_argument, add_uint8_argument, for_file
from zoo.terminal import print_json, steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo import``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file of any origin")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="file to write (default: FILE-imported.onnx here)"
    )
    add_argument(parser)
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one per line, in output order")
    parser.add_argument("--name", help="what the file is to call itself (default: as the file is called)")
    parser.add_argument(
        "--task",
        choices=[task for task in get_args(Task) if task != "score-map"],
        help="what the first output is (default: what it shows)",
    )
    parser.add_argument(
        "--scores",
        choices=["logits", "probabilities"],
        help="what the scores are (default: probabilities where the graph ends in Softmax or Sigmoid, else logits)",
    )
    parser.add_argument("--output-name", metavar="NAME", help="the output with the scores (default: the first)")
    parser.add_argument(
        "--opset", type=int, metavar="N", help="ONNX opset, 13 to 23 (default: the file's, at least 13)"
    )
    add_uint8_argument(parser)
    parser.add_argument("--license", metavar="TEXT", help="licence of the weights, as an SPDX name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check, convert, verify, stamp, write; and say what was changed."""
    from exporters.importer import STEPS, import_onnx

    rule: Preprocess | Literal["none"] | None = args.preprocess
    if args.preprocess not in (None, NONE):
        rule = for_file(args.preprocess, args.file)
    output = args.output or Path(f"{args.file.stem}-imported.onnx")
    with steps(STEPS, what=f"{args.file.name}", verbose=args.verbose) as begin:
        done = import_onnx(
            args.file,
            output,
            name=args.name,
            preprocess=rule,
            labels=read(args.labels) if args.labels else None,
            task=args.task,
            scores=args.scores,
            output_name=args.output_name,
            opset=args.opset,
            license=args.license,
            pixels=args.uint8_input,
            on_step=begin,
        )
    metadata, parity = done.metadata, done.metadata.parity
    assert parity is not None
    if args.json:
        data = {
            "path": str(done.path),
            "bytes": done.bytes,
            "changes": list(done.changes),
            "metadata": asdict(metadata),
        }
        print_json(data)
        return 0
    classes = f" of {len(metadata.labels.names)} labels, {metadata.scores}" if metadata.labels else ""
    print(f"wrote {done.path} ({done.bytes / 1e6:.2f} MB, opset {metadata.provenance.opset}, {metadata.task}{classes})")
    for change in done.changes:
        print(f"  {change}")
    print(
        f"verified against {args.file.name} on {parity.inputs} {parity.inputs_kind}, batch "
        f"{' and '.join(map(str, parity.batch_sizes))}: relative error {parity.max_relative_error:.1e} "
        f"(allowed {parity.tolerance:.0e})"
    )
    if not metadata.trained:
        print("untrained weights: predictions of this file mean nothing")
    return 0
