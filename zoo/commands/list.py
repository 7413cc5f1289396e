"""``zoo list``."""

from __future__ import annotations

import argparse
from typing import Any

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
    columns = ("name", "task", "source", "parameters", "fp32 MB", "published top-1", "published by", "aliases")
    cells = [
        (
            row["name"] if index == 0 else "",
            row["task"] if index == 0 else "",
            source["source"],
            f"{source['parameters']:,}",
            f"{source['size_mb']:.1f}",
            f"{source['published_top1']:.1f} %" if source["published_top1"] else "",
            source["published_by"] or "",
            ", ".join(row["aliases"]) if index == 0 else "",
        )
        for row in rows
        for index, source in enumerate(row["sources"])
    ]
    print_table(None, columns, cells, right={"parameters", "fp32 MB", "published top-1"})
    return 0


def describe(spec: ModelSpec) -> dict[str, Any]:
    """A row as plain values. size_mb: of the fp32 weights, 4 bytes each, in 10^6 bytes."""
    sources = []
    for framework, variant in spec.sources.items():
        published = lookup(framework, variant)
        sources.append(
            {
                "source": framework,
                "builder": variant.builder,
                "parameters": variant.parameters,
                "size_mb": round(variant.parameters * 4 / 1e6, 2),
                "published_top1": published.top1 if published else None,
                "published_top5": published.top5 if published else None,
                "published_by": published.source if published else None,
                "published_weights": published.weights if published else None,
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
