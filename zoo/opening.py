"""A model for a command: the file's own preprocessing and labels, or those given on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.engines.table import DEVICES, ENGINES
from runtime.errors import InvalidInput
from runtime.metadata import Labels, Metadata, Preprocess, Provenance, Task
from zoo.preprocessing import NONE, RECIPES, add_argument, for_file

if TYPE_CHECKING:
    from runtime.model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that runs a file."""
    add_argument(parser)
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, one per line, in output order, in place of the file's"
    )
    add_engine_arguments(parser)
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help=f"{', '.join(ENGINES)}, or auto, what `zoo tune` found to be the fastest (default: the device's first)",
    )


def add_decode_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """How exactly pictures are read; a command without the option reads them exactly."""
    parser.add_argument(
        "--decode",
        choices=("fast", "exact"),
        default=default,
        help="fast: a large JPEG is made smaller while it is decoded; exact: every pixel counts (default: %(default)s)",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that chooses where a network runs."""
    parser.add_argument("--device", help=f"{' or '.join(DEVICES)} (default: {DEVICES[0]})")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the cores this process may use)")
    parser.add_argument(
        "--precision",
        metavar="NAME",
        help="what float32 may be computed in: fp32, and by engine bf16, fp16 or tf32 (default: fp32)",
    )


def open_model(args: argparse.Namespace) -> Model:
    """The model of ``args.file``. What replaces the file's own word on itself is said on stderr.

    Raises InvalidInput for a file without metadata where no preprocessing was given, or that needs ``zoo import``.
    """
    from zoo.labels import read

    if args.preprocess == NONE:
        raise InvalidInput(f"--preprocess {NONE}: pictures are to be run: say how the network sees them")
    rule = for_file(args.preprocess, args.file) if args.preprocess else None
    labels = read(args.labels) if args.labels else None
    model = _load(args, rule, labels)
    if model.metadata is None:
        told = _foreign(args.file, rule, labels)
        if labels is None:
            model.close()
            model = _load(args, rule, told.labels)
        model.metadata = told
        return model
    for option, given in (("--preprocess", rule), ("--labels", labels)):
        if given is not None:
            print(f"zoo: note: {option} replaces what {args.file} says of itself", file=sys.stderr)
    return model


def _load(args: argparse.Namespace, rule: Preprocess | None, labels: Labels | None) -> Model:
    from runtime.model import load

    return load(
        args.file,
        device=args.device,
        engine=args.engine,
        precision=args.precision,
        threads=args.threads,
        decode=getattr(args, "decode", "exact"),
        preprocess=rule,
        labels=labels,
    )


def _foreign(path: Path, rule: Preprocess | None, labels: Labels | None) -> Metadata:
    """What the graph of a file without metadata shows of its scores; for this run only.

    Raises InvalidInput for what only an import can mend: another input type, scores that are no rows.
    """
    from exporters.import_graph import FLOAT, is_probability, last_operator
    from exporters.import_read import default_opset, producer, read_proto, true_inputs
    from exporters.source import numbered_labels

    if rule is None:
        raise InvalidInput(
            f"{path}: carries no edgezoo metadata: add --preprocess ({', '.join(RECIPES)}, ...) and --labels, or stamp "
            "it once with `zoo import`"
        )
    proto = read_proto(path)
    (value,), output = true_inputs(proto.graph), proto.graph.output[0]
    dims = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    operator = last_operator(proto.graph, output.name)
    mend = "`zoo import` it, and run what that writes"
    if value.type.tensor_type.elem_type != FLOAT:
        raise InvalidInput(f"{path}: takes no float32: {mend}")
    if len(dims) != 2 or dims[1] == 1:
        raise InvalidInput(f"{path}: the first output is no (N, classes): {mend}")
    if labels is None and not dims[1]:
        raise InvalidInput(f"{path}: does not say how many classes it has: add --labels")
    task: Task = "multilabel" if "Sigmoid" in operator else "classification"
    return Metadata(
        name=path.stem,
        task=task,
        preprocess=rule,
        labels=labels or numbered_labels(task, dims[1]),
        provenance=Provenance(
            framework="onnx",
            framework_version=producer(proto),
            exporter="none",
            edgezoo_version="none",
            builder=f"file:{path.name}",
            opset=default_opset(proto),
            weights="file",
        ),
        scores="probabilities" if is_probability(operator) else "logits",
    )
