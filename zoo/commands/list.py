"""``zoo list``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from zoo.layer_report import human
from zoo.models import MODELS
from zoo.published import lookup
from zoo.spec import ModelSpec
from zoo.terminal import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo list``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    rows = [describe(spec) for spec in MODELS]
    if args.json:
        print_json(rows)
        return 0
    columns = ("name", "source", "parameters", "trainable", "depth", "MACs", "MB", "published top-1", "by", "aliases")
    cells = [
        (
            row["name"] if index == 0 else "",
            source["source"],
            f"{source['parameters']:,}",
            f"{source['trainable']:,}",
            str(source["depth"]),
            human(source["macs"]),
            f"{source['size_mb']:.1f}",
            f"{source['published']['top1']:.1f} %" if source["published"] else "",
            source["published"]["source"] if source["published"] else "",
            ", ".join(row["aliases"]) if index == 0 else "",
        )
        for row in rows
        for index, source in enumerate(row["sources"])
    ]
    print_table(None, columns, cells, right=set(columns[2:8]))
    return 0


def describe(spec: ModelSpec) -> dict[str, Any]:
    """A row as plain values. size_mb: of the fp32 weights, 4 bytes each, in 10^6 bytes; published: others' figures."""
    sources = []
    for framework, variant in spec.sources.items():
        published, facts = lookup(variant), variant.facts
        sources.append(
            {
                "source": framework,
                "builder": variant.builder,
                "input": list(variant.preprocess.size) if variant.preprocess else None,
                "parameters": facts.total if facts else None,
                "trainable": facts.trainable if facts else None,
                "depth": facts.depth if facts else None,
                "macs": facts.macs if facts else None,
                "size_mb": round(facts.total * 4 / 1e6, 2) if facts else None,
                "published": asdict(published) if published else None,
                "license": variant.license,
                "weights": [
                    *(["bundled"] if variant.bundled else []),
                    *(["imagenet"] if variant.hub else []),
                    "none",
                    "FILE",
                ],
            }
        )
    return {
        "name": spec.name,
        "aliases": list(spec.aliases),
        "task": spec.task,
        "labels": spec.labels,
        "paper": spec.paper,
        "sources": sources,
    }
