"""``zoo export NAME``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporters import EXPORTERS
from exporters.source import Output, Recipe, Scores, Weights, numbered_labels
from runtime.errors import InvalidInput, OutputNotWritable
from runtime.metadata import Labels, Metadata, Preprocess
from zoo import preprocessing, quantizing
from zoo.commands.stamp import told
from zoo.labels import load, read
from zoo.spec import Framework, ModelSpec, Variant
from zoo.targets import own_weights, resolve_target
from zoo.terminal import print_json, steps
from zoo.weights import framework_of, resolve

if TYPE_CHECKING:
    from exporters.export import Exported
    from runtime.quantization import Precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo export``."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a network of the zoo (`zoo list`); torchvision:NAME, timm:NAME or keras:NAME; a file with a whole "
        "network (.keras, .h5, a SavedModel folder, .pt2); package.module:factory or path/to/file.py:factory",
    )
    parser.add_argument("--source", choices=list(EXPORTERS), help="the framework to build from (default: the first)")
    parser.add_argument(
        "--weights",
        metavar="imagenet|none|bundled|FILE",
        help="imagenet: the framework's own; none: untrained, seeded; bundled: this project's; FILE: .pth, .pt, "
        ".safetensors, .keras, .h5, .weights.h5 (default: bundled where there are such, else imagenet)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: NAME.onnx)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names, one per line, in output order")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs of a head of your own, for your checkpoint")
    parser.add_argument(
        "--task", choices=["classification", "binary", "multilabel"], help="what the scores are (default: as told)"
    )
    preprocessing.add_argument(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--features", action="store_true", help="without the top: gives the embedding, not classes")
    form.add_argument(
        "--fully-convolutional", action="store_true", help="a map of scores over pictures larger than the input"
    )
    parser.add_argument("--opset", type=int, default=18, help="ONNX opset, 13 to 23 (default: 18)")
    parser.add_argument("--batch", default="dynamic", metavar="N|dynamic", help="pictures per run (default: dynamic)")
    parser.add_argument(
        "--input-size", metavar="HxW", help="of the input (default: the network's); CxHxW for what is no picture"
    )
    preprocessing.add_uint8_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of untrained weights (default: 0)")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the weights file run code (pickles, Lambda layers): yours to vouch for",
    )
    quantizing.add_arguments(parser, whose="with --int8, --fp16 or --bf16: ")
    parser.add_argument("--explain", action="store_true", help="put Grad-CAM into the file, as an optional output")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Export, verify, write, and say what was verified."""
    if precision := quantizing.precision(args):
        return _smaller(args, precision)
    # By identity: a 0 was given.
    if given := [name for name in quantizing.OPTIONS if not any(getattr(args, name) is none for none in (None, False))]:
        raise InvalidInput(f"--{given[0].replace('_', '-')} is for --int8, --fp16 and --bf16")
    done = _explained(args, _exported(args, args.output))
    if args.json:
        print_json({"path": str(done.path), "bytes": done.bytes, "metadata": asdict(done.metadata)})
    else:
        print("\n".join(summary(done.path, done.bytes, done.metadata, done.input_shape)))
        if args.explain:
            print(told(done.metadata.explain_layer or ""))
    return 0


def _explained(args: argparse.Namespace, done: Exported) -> Exported:
    """The file with Grad-CAM inside, where that was asked for."""
    if not args.explain:
        return done
    from exporters.explained import write_explained

    layer = write_explained(done.path, done.path)
    told = replace(done.metadata, explain_layer=layer)
    return replace(done, bytes=done.path.stat().st_size, metadata=told)


def _smaller(args: argparse.Namespace, precision: Precision) -> int:
    """The float32 file is made beside the output, and goes again."""
    if not args.random_calibration:
        quantizing.require_data(args, precision)
    folder = args.output.parent if args.output else Path()
    if not folder.is_dir():
        raise OutputNotWritable(f"{folder}: no such folder: create it first")
    with tempfile.TemporaryDirectory(prefix=".float.", dir=folder) as scratch:
        exported = _exported(args, Path(scratch, "float.onnx"))
        output = args.output or Path(f"{exported.metadata.name}_{precision}.onnx")
        done = quantizing.make(exported.path, output, args, precision)
        if args.explain:
            from exporters.explained import write_explained

            write_explained(output, output)
    if args.json:
        print_json({"path": str(done.path), "bytes": done.bytes, "metadata": asdict(done.metadata)})
        return 0
    print(summary(output, done.bytes, exported.metadata, exported.input_shape)[1])
    quantizing.show(done)
    return 0


def _exported(args: argparse.Namespace, output: Path | None) -> Exported:
    batch = _batch(args.batch)
    shape = preprocessing.input_shape(args.input_size, lengths=(2, 3)) if args.input_size else None
    from exporters.export import STEPS, export

    with steps(("look up", *STEPS), what=args.name, verbose=args.verbose) as begin:
        begin("look up")  # a library of a framework is asked, whose import takes seconds
        spec, own_labels = resolve_target(args.name, source=args.source, weights=args.weights, trust=args.trust)
        framework, variant = spec.variant(args.source or _framework_for(spec.sources, args.weights))
        recipe = _recipe(args, spec, variant, own_labels, shape)
        output = output or Path(f"{spec.name}.onnx")
        return export(recipe, framework, output, opset=args.opset, batch=batch, pixels=args.uint8_input, on_step=begin)


def _recipe(
    args: argparse.Namespace,
    spec: ModelSpec,
    variant: Variant,
    own_labels: Labels | None,
    shape: tuple[int, ...] | None,
) -> Recipe:
    weights = own_weights(variant, Path(args.name)) or resolve(spec, variant, args.weights, seed=args.seed)
    labels = _labels(args.labels, args.classes, spec, own_labels, weights)
    return Recipe(
        name=spec.name,
        builder=variant.builder,
        preprocess=_rule(args.preprocess, variant.preprocess, shape),
        own_preprocess=args.preprocess is not None,
        input_shape=(shape[0], shape[1], shape[2]) if shape and len(shape) == 3 else None,
        labels=labels,
        task=args.task or _task(spec, labels),
        weights=weights,
        samples=spec.samples,
        output=_output(args),
        trust=args.trust,
        # The row's licence is that of the published weights; of a user's file nothing is known.
        license=variant.license if weights.kind in ("imagenet", "bundled") else None,
        paper=spec.paper,
    )


def summary(path: Path, size: int, told: Metadata, shape: tuple[int | str, ...]) -> list[str]:
    """What was written and how it was verified, in lines. ``shape`` is the input's."""
    parity, provenance = told.parity, told.provenance
    assert parity is not None
    kind = "uint8 " if told.preprocess and told.preprocess.input == "uint8" else ""
    same = ": same top-1" if told.task in ("classification", "score-map") else ""
    lines = [
        f"wrote {path} ({size / 1e6:.2f} MB, opset {provenance.opset}, input {kind}{'x'.join(map(str, shape))})",
        f"verified against {provenance.framework} on {parity.inputs} {parity.inputs_kind.partition(' (')[0]}, batch "
        f"{' and '.join(map(str, parity.batch_sizes))}{same}, relative error {parity.max_relative_error:.1e} "
        f"(allowed {parity.tolerance:.0e})",
    ]
    if told.window is not None:
        height, width = told.window.size
        lines.append(f"a map of windows {height}x{width}, one every {'x'.join(map(str, told.window.stride))} pixels")
        if told.window.crop_error > parity.tolerance:
            lines.append(
                "layers pad: a window cut out of a picture and run alone sees zeros beyond its border, and differs "
                f"from the map by up to {told.window.crop_error:.0%} of the largest score (measured)"
            )
    if not told.trained:
        lines.append("untrained weights: predictions of this file mean nothing")
    return lines


def _labels(
    file: Path | None, classes: int | None, spec: ModelSpec, own: Labels | None, weights: Weights
) -> Labels | None:
    """The user's labels, or the network's; published weights have as many classes as the row, no other number."""
    own = own or (load(spec.labels) if spec.labels else None)
    if classes is not None and classes < 1:
        raise InvalidInput(f"--classes must be at least 1, not {classes}")
    labels = read(file) if file else numbered_labels("classification", classes) if classes else own
    if file and labels and classes not in (None, len(labels.names)):
        raise InvalidInput(f"{file}: {len(labels.names)} labels, but --classes says {classes}")
    if own and labels and weights.kind in ("imagenet", "bundled") and len(labels.names) != len(own.names):
        raise InvalidInput(
            f"{file or '--classes'}: {len(labels.names)} labels, but the {weights.kind} weights of {spec.name} have "
            f"{len(own.names)} classes"
        )
    return labels


def _task(spec: ModelSpec, labels: Labels | None) -> Scores | None:
    """The row's; a head of one output becomes one of many where the user has many classes."""
    many = labels is not None and len(labels.names) != 2
    return "classification" if spec.task == "binary" and many else spec.task


def _framework_for(sources: Mapping[Framework, Variant], weights: str | None) -> Framework | None:
    """A Keras file needs the Keras source, a torch checkpoint the torch one; else the row's first."""
    implied = framework_of(weights)
    return implied if implied in sources else None


def _rule(text: str | None, own: Preprocess | None, shape: tuple[int, ...] | None) -> Preprocess | None:
    """The user's rule, else the network's, at the size that was asked for. None leaves it to the network."""
    if (shape and len(shape) == 3) or text == preprocessing.NONE:
        return None
    size = (shape[0], shape[1]) if shape else None
    if text is not None:
        # A network of one input size says so itself, and the rule follows it.
        return preprocessing.parse(text, size=size or (own.size if own else (224, 224)))
    return own.at_size(*size) if own and size else own


def _output(args: argparse.Namespace) -> Output:
    return "features" if args.features else "score-map" if args.fully_convolutional else "scores"


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput(f"--batch {text!r}: give a number of at least 1, or dynamic")
    return int(text)
