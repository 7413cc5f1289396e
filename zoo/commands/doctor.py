"""``zoo doctor``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoo.terminal import print_json, print_table

if TYPE_CHECKING:
    from runtime.machine import MachineReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo doctor``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what this machine offers; exit code 2 when something must be mended."""
    from runtime.machine import report

    found = report()
    if args.json:
        print_json(found.to_dict())
        return 2 if found.problems else 0
    print_table(None, ("what", "value"), _rows(found), right=set())
    for problem in found.problems:
        print(f"problem: {problem}")
    if not found.problems:
        print("no problems found")
    return 2 if found.problems else 0


def _rows(found: MachineReport) -> list[tuple[str, str]]:
    memory = f"{found.memory_bytes / 2**30:.1f} GiB" if found.memory_bytes else "unknown"
    return [
        ("platform", found.platform),
        ("cpu", found.cpu),
        ("cores", f"{found.cores_usable} usable of {found.cores_logical}"),
        ("memory", memory),
        *((name, version or "not installed") for name, version in found.versions.items()),
        ("onnxruntime wheel", ", ".join(f"{name} {version}" for name, version in found.onnxruntimes.items()) or "none"),
        ("providers", ", ".join(found.providers)),
        *(
            (f"{row.engine} on {row.device}", "usable" if row.usable else f"not usable: {row.reason}")
            for row in found.devices
        ),
    ]
