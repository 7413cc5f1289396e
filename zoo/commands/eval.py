"""``zoo eval FILE DATA``."""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.opening import add_arguments as add_shared_arguments
from zoo.opening import add_decode_argument, open_model
from zoo.terminal import print_json, track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo eval``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="a folder with one folder per class, a CSV of file and label (or a folder holding labels.csv), or "
        "MNIST idx files (their folder, or the images file)",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the files of a CSV are (default: beside it)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N pictures")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N pictures")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures per run (default: 8)")
    add_shared_arguments(parser)
    add_decode_argument(parser, "exact")  # as published accuracies were measured
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from zoo.datasets import open_dataset
    from zoo.evaluate import check_task, evaluate

    with open_model(args) as model:
        check_task(model)
        samples = open_dataset(args.data, model.labels, images=args.images, skip=args.skip, limit=args.limit)
        result = evaluate(model, track(samples, what="evaluating", total=len(samples)), batch_size=args.batch)
        trained = model.trained
    if args.json:
        print_json(result.to_dict() | {"trained": trained})
        return 0
    print(f"top-1 {result.top1:.2f} %   top-5 {result.top5:.2f} %   {result.images} images")
    print(f"{result.images_per_s:.1f} images/s from file to answer, on {model.provider}")
    if not trained:
        print("untrained weights: these figures mean nothing")
    return 0
