"""Full verification of the catalogue: every row and every source, exported at its own size and compared.

    uv run python benchmarks/catalogue.py [--out benchmarks/results/catalogue.json] [NAME ...]

Each export is `zoo export NAME --source SOURCE` in a process of its own, one after the other, so that its
peak memory is its own. Weights are untrained, or bundled where there are such: the guard compares the file
with its source all the same, and no hub is needed. The multiplications are counted in the file that was
written and held against the row. The record is written after every export; started again, the job goes on
with what is missing, was made by other versions, or failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtime.machine import report
from zoo.models import MODELS, find
from zoo.spec import Framework, ModelSpec
from zoo.terminal import print_table, track

PACKAGES = ("edgezoo", "torch", "torchvision", "timm", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime-gpu")
MEMORY_LIMIT_GB = 12.0


def exported(spec: ModelSpec, framework: Framework, folder: Path) -> dict[str, Any]:
    """One row of the record: what the export said, what it took, and what is in the file."""
    output, log = folder / f"{spec.name}.onnx", folder / "log"
    bundled = spec.sources[framework].bundled
    weights = "bundled" if bundled else "none"
    argv = [sys.executable, "-m", "zoo", "export", spec.name, "--source", framework, "--weights", weights]
    start = time.perf_counter()
    with log.open("wb") as text:
        actions = [(os.POSIX_SPAWN_DUP2, text.fileno(), 1), (os.POSIX_SPAWN_DUP2, text.fileno(), 2)]
        child = os.posix_spawn(argv[0], [*argv, "-o", str(output), "--json"], os.environ, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
    row: dict[str, Any] = {
        "name": spec.name,
        "source": framework,
        "builder": spec.sources[framework].builder,
        "weights": weights,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gb": round(usage.ru_maxrss / 1e6, 2),
        "date": datetime.date.today().isoformat(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    said, code = log.read_text(errors="replace"), os.waitstatus_to_exitcode(status)
    if code != 0:
        return row | {"error": f"exit {code}: {' '.join(said.split())[-400:]}"}
    told = json.loads(said)
    parity = told["metadata"]["parity"]
    return row | {
        "input": told["metadata"]["preprocess"]["size"],
        "exporter": told["metadata"]["provenance"]["exporter"],
        "relative_error": parity["max_relative_error"],
        "tolerance": parity["tolerance"],
        "pictures": parity["inputs"],
        "bytes": told["bytes"],
        **_in_file(output),
    }


def _in_file(path: Path) -> dict[str, Any]:
    import onnx

    from zoo.layers import count

    table = count(onnx.load(path))
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    return {"stored_parameters": table.parameters, "macs": table.macs, "nodes": len(table.layers)}


def _version(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except ModuleNotFoundError:
        return None


def faults(row: dict[str, Any]) -> list[str]:
    """What is wrong with a row of the record; empty for a good one."""
    if "error" in row:
        return [row["error"]]
    facts = find(row["name"]).sources[row["source"]].facts
    assert facts is not None
    said = []
    if not row["relative_error"] <= row["tolerance"]:
        said.append(f"relative error {row['relative_error']}")
    if row["macs"] != facts.macs:
        said.append(f"{row['macs']:,} MACs in the file, {facts.macs:,} in the row")
    if row["peak_memory_gb"] > MEMORY_LIMIT_GB:
        said.append(f"{row['peak_memory_gb']} GB of memory, {MEMORY_LIMIT_GB} allowed")
    return said


def wanted(names: list[str]) -> list[tuple[ModelSpec, Framework]]:
    """Every row and source, or those of ``names``."""
    specs = [find(name) for name in names] or list(MODELS)
    return [(spec, framework) for spec in specs for framework in spec.sources]


def run(todo: list[tuple[ModelSpec, Framework]], record: dict[str, Any], out: Path, *, again: bool) -> None:
    """Fill the record, writing it after each export."""
    rows: dict[str, Any] = record["rows"]
    now = {name: _version(name) for name in PACKAGES}

    def missing() -> Iterator[tuple[str, ModelSpec, Framework]]:
        for spec, framework in todo:
            key = f"{spec.name}/{framework}"
            row = rows.get(key)
            if again or row is None or faults(row) or row["versions"] != now:
                yield key, spec, framework

    left = list(missing())
    with tempfile.TemporaryDirectory() as folder:
        for key, spec, framework in track(left, what="verifying", total=len(left)):
            rows[key] = exported(spec, framework, Path(folder))
            said = faults(rows[key])
            print(f"{key}: {'; '.join(said) or 'ok'}, {rows[key]['seconds']} s", file=sys.stderr)
            order = [f"{spec.name}/{framework}" for spec, framework in wanted([])]
            record["rows"] = rows = {name: rows[name] for name in order if name in rows}
            beside = out.with_suffix(".part")
            beside.write_text(json.dumps(record, indent=1) + "\n")
            beside.replace(out)


def main() -> int:
    """Run what is missing, print the table; 1 when a row is missing or at fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to verify (default: all)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/catalogue.json"), help="the record")
    parser.add_argument("--again", action="store_true", help="also what is in the record already")
    args = parser.parse_args()
    machine = report()
    record = json.loads(args.out.read_text()) if args.out.exists() else {"rows": {}}
    record["machine"] = {"cpu": machine.cpu, "cores": machine.cores_usable, "platform": machine.platform}
    todo = wanted(args.names)
    run(todo, record, args.out, again=args.again)
    rows = [record["rows"][f"{spec.name}/{framework}"] for spec, framework in todo]
    print_table(
        None, ("row", "source", "relative error", "seconds", "GB", "MB", "fault"), map(_cells, rows), right=set()
    )
    args.out.with_suffix(".md").write_text(markdown(record))
    bad = [row for row in rows if faults(row)]
    seconds = sum(row["seconds"] for row in rows)
    print(f"{len(rows)} exports, {len(bad)} at fault, {seconds / 60:.0f} minutes")
    return 1 if bad else 0


def markdown(record: dict[str, Any]) -> str:
    """The record as a table for people, with what it was made by."""
    rows = list(record["rows"].values())
    dates = sorted({row["date"] for row in rows})
    packages = ", ".join(f"{name} {number}" for name, number in rows[-1]["versions"].items() if number)
    lines = [
        "# Full verification of the catalogue",
        "",
        f"`python benchmarks/catalogue.py` on {record['machine']['cpu']}, {record['machine']['cores']} core(s) for "
        f"each export, {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}; {packages}.",
        f"{len(rows)} exports one after the other: {sum(row['seconds'] for row in rows) / 60:.0f} minutes, at most "
        f"{max(row['peak_memory_gb'] for row in rows):.1f} GB of memory. Relative error: largest difference of the "
        "logits from the framework's, over the largest logit, on 8 photos (10 digits for LeNet-5) at batch 1 and 3; "
        "1e-4 is allowed. Weights: untrained unless bundled.",
        "",
        "| network | source | input | MACs | relative error | file MB | seconds | memory GB | fault |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        found = row if "macs" in row else row | {"input": [], "macs": 0, "relative_error": float("nan"), "bytes": 0}
        lines.append(
            f"| {row['name']} | {row['source']} | {'x'.join(map(str, found['input']))} | {found['macs'] / 1e6:,.1f} M "
            f"| {found['relative_error']:.1e} | {found['bytes'] / 1e6:.1f} | {row['seconds']:.0f} "
            f"| {row['peak_memory_gb']:.1f} | {'; '.join(faults(row))} |"
        )
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["source"],
        f"{row['relative_error']:.1e}" if "relative_error" in row else "",
        f"{row['seconds']:.0f}",
        f"{row['peak_memory_gb']:.1f}",
        f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "",
        "; ".join(faults(row)),
    )


if __name__ == "__main__":
    raise SystemExit(main())
