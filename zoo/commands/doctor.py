"""``zoo doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from zoo.terminal import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo doctor``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what this machine offers; exit code 2 when something must be mended."""
    from runtime.machine import report

    found = report()
    if args.json:
        print_json(found.to_dict())
    else:
        print_table("this machine", ("what", "value"), _rows(found.to_dict()), right=set())
        for problem in found.problems:
            print(f"problem: {problem}")
        print("no problems found" if not found.problems else "")
    return 2 if found.problems else 0


def _rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in data.items():
        if isinstance(value, dict):
            rows += [(f"{key} {name}", "not installed" if item is None else str(item)) for name, item in value.items()]
        elif key != "problems":
            rows.append((key, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    return rows
