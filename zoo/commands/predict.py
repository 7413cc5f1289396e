"""``zoo predict FILE IMAGE...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runtime.errors import UserError
from zoo.terminal import print_json, print_table, track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo predict``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures; - reads one from stdin")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to show (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the cores this process may use)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Classify each picture; one that cannot be read is reported, and the rest goes on."""
    from runtime.model import load

    answers, failed = [], 0
    with load(args.file, device=args.device, threads=args.threads) as model:
        for image in track(args.images, what="predicting", total=len(args.images)):
            try:
                answer = model.predict(sys.stdin.buffer.read() if image == "-" else image, top=args.top)
            except UserError as error:
                if len(args.images) == 1:
                    raise
                print(f"zoo: error: {error}", file=sys.stderr)
                failed = error.exit_code
                continue
            answers.append((image, answer))
    if args.json:
        print_json([{"image": image, **answer.to_dict()} for image, answer in answers])
        return failed
    for image, answer in answers:
        title = image if answer.trained else f"{image} (untrained weights)"
        cells = [(g.label, f"{g.probability:.1%}", "█" * round(g.probability * 30)) for g in answer.top]
        print_table(title, ("class", "probability", ""), cells, right={"probability"})
    return failed
