"""``zoo export NAME``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from exporters import EXPORTERS
from exporters.source import Recipe
from runtime.errors import InvalidInput
from runtime.metadata import Labels, Metadata, WeightsKind
from zoo.labels import load, read
from zoo.models import find
from zoo.spec import Framework, ModelSpec, Variant
from zoo.terminal import print_json, steps
from zoo.weights import framework_of, resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo export``."""
    parser.add_argument("name", metavar="NAME", help="a network of the zoo (`zoo list`)")
    parser.add_argument("--source", choices=list(EXPORTERS), help="the framework to build from (default: the first)")
    parser.add_argument(
        "--weights",
        metavar="imagenet|none|bundled|FILE",
        help="imagenet: the framework's own; none: untrained, seeded; bundled: this project's; FILE: .pth, .pt, "
        ".safetensors, .keras, .h5, .weights.h5 (default: bundled where there are such, else imagenet)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: NAME.onnx)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one per line, in output order")
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset, 13 to 23 (default: 18)")
    parser.add_argument("--batch", default="dynamic", metavar="N|dynamic", help="pictures per run (default: dynamic)")
    parser.add_argument("--input-size", metavar="HxW", help="height and width of the input (default: the network's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of untrained weights (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Export, verify, write, and say what was verified."""
    spec = find(args.name)
    framework, variant = spec.variant(args.source or _framework_for(spec.sources, args.weights))
    rule = variant.preprocess
    if args.input_size:
        rule = rule.at_size(*_size(args.input_size))
    weights = resolve(spec, variant, args.weights, seed=args.seed)
    recipe = Recipe(
        name=spec.name,
        builder=variant.builder,
        preprocess=rule,
        labels=_labels(args.labels, spec, weights.kind),
        weights=weights,
        samples=spec.samples,
        # The row's licence is that of the published weights; of a user's file nothing is known.
        license=variant.license if weights.kind in ("imagenet", "bundled") else None,
        paper=spec.paper,
    )
    batch = _batch(args.batch)
    output = args.output or Path(f"{spec.name}.onnx")

    from exporters.export import STEPS, export

    with steps(STEPS, what=f"{spec.name} from {framework}", verbose=args.verbose) as begin:
        done = export(recipe, framework, output, opset=args.opset, batch=batch, on_step=begin)
    parity = done.metadata.parity
    assert parity is not None
    if args.json:
        print_json({"path": str(done.path), "bytes": done.bytes, "metadata": asdict(done.metadata)})
        return 0
    print(f"wrote {done.path} ({done.bytes / 1e6:.2f} MB, opset {args.opset}, input {_input(done.metadata, batch)})")
    print(
        f"verified against {framework} on {parity.inputs} {recipe.samples}, batch "
        f"{' and '.join(map(str, parity.batch_sizes))}: same top-1, relative error {parity.max_relative_error:.1e} "
        f"(allowed {parity.tolerance:.0e})"
    )
    if not done.metadata.trained:
        print("untrained weights: predictions of this file mean nothing")
    return 0


def _labels(file: Path | None, spec: ModelSpec, kind: WeightsKind) -> Labels:
    """The row's labels, or the user's; published weights have as many classes as the row, no other number."""
    own = load(spec.labels)
    if file is None:
        return own
    labels = read(file)
    if kind in ("imagenet", "bundled") and len(labels.names) != len(own.names):
        raise InvalidInput(
            f"{file}: {len(labels.names)} labels, but the {kind} weights of {spec.name} have {len(own.names)} classes"
        )
    return labels


def _framework_for(sources: Mapping[Framework, Variant], weights: str | None) -> Framework | None:
    """A Keras file needs the Keras source, a torch checkpoint the torch one; else the row's first."""
    implied = framework_of(weights)
    return implied if implied in sources else None


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 1 <= int(part) <= 8192 for part in parts):
        raise InvalidInput(f"--input-size {text!r}: give HEIGHTxWIDTH in pixels, such as 224x224")
    return int(parts[0]), int(parts[1])


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput(f"--batch {text!r}: give a number of at least 1, or dynamic")
    return int(text)


def _input(metadata: Metadata, batch: int | None) -> str:
    rule = metadata.preprocess
    return "x".join(str(size) for size in (batch or "N", rule.channels, *rule.size))
