"""What a user would pick instead: one picture on the CPU, by edgezoo and by other runtimes, in one interleaved run.

    uv run python benchmarks/peers.py [--data PHOTOS] [--json benchmarks/results/peers.json] [ROW ...]
    uv run python benchmarks/peers.py --table

Every peer of a row runs the same network with the same untrained weights, in a process of its own with the same number
of threads on the same cores. All are open at once; they take short turns, round after round, and whoever has no turn
sleeps. Before anything is timed its logits on real photos are compared with those of our float32 file: what claims
float32 and is further off than TOLERANCE is at fault, and is not timed. Keras and LiteRT run Keras' own variant of the
network, and are compared with our export of that. What is not installed is skipped, and the record says so. --table
prints the README's table from the record.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_files import CALIBRATION, TUNING_S, require
from benchmarks.peer_runners import OURS, PEERS, Peer, bind
from benchmarks.peer_runners import TOLERANCE as ALLOWED
from benchmarks.peer_table import END, START, markdown, of_row
from exporters.source import sample_files
from runtime.errors import EdgeZooError, InvalidInput
from runtime.image import preprocess
from runtime.machine import usable_cores
from runtime.model import Model
from zoo.bench.child import Child
from zoo.bench.machine import Watch, describe
from zoo.bench.record import write
from zoo.bench.statistics import summary
from zoo.models import find
from zoo.terminal import print_table, track

ROWS = (
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"),
    *("resnet50", "inception_v3", "xception", "squeezenet1_1"),
)
RECORD = Path(__file__).with_name("results") / "peers.json"
TOLERANCE = 1e-3
"""Of the largest logit, by which float32 may differ: rounding of another order, and nothing else."""

TUNED = "edgezoo tuned"
ROUNDS = 10
LAUNCHES, NEAR = 3, 1.3
"""Where a process's memory lies makes a tenth of the time: whoever is within NEAR of the fastest is opened thrice."""

_PACKAGES = (
    *("edgezoo", "onnxruntime", "onnxruntime-gpu", "torch", "tensorflow", "keras", "openvino"),
    *("ai-edge-litert", "ncnn", "pnnx", "numpy"),
)

Entry = dict[str, Any]
Turns = list[list[list[float]]]
"""Milliseconds by round and turn."""


def missing(name: str, peer: Peer, row: str) -> str | None:
    """Why a peer cannot take part, as far as can be seen without trying."""
    if peer.source not in find(row).sources:
        return f"no {peer.source} variant of the network in the catalogue"
    if importlib.util.find_spec(peer.package) is None:
        return f'{peer.package} is not installed: pip install "edgezoo[peers]"'
    if name.startswith("torch.compile") and not shutil.which(os.environ.get("CXX", "g++")):
        return "no C++ compiler, which inductor needs: install g++"
    return None


def compare(
    row: str,
    peers: Mapping[str, Peer],
    folder: Path,
    *,
    threads: int,
    budget_s: float,
    data: Path | None,
    tuning_s: float = TUNING_S,
    launches: int = LAUNCHES,
) -> dict[str, Any]:
    """One row of the record. folder: where the row's files are, or will be made."""
    entries: dict[str, Entry] = {
        name: {"ms": None, "skipped": missing(name, peer, row)} for name, peer in peers.items()
    }
    for name, peer in peers.items():
        for file in peer.files:
            entries[name]["skipped"] = entries[name]["skipped"] or require(file, row, folder, data, tuning_s=tuning_s)
    open_for = {name: peer for name, peer in peers.items() if not entries[name]["skipped"]}
    references = {
        source: reference(row, folder, source) for source in sorted({peer.source for peer in open_for.values()})
    }
    turns: dict[str, Turns] = {name: [] for name in open_for}
    for _ in range(launches):
        for name, more in launched(row, open_for, entries, references, folder, threads, budget_s).items():
            turns[name] += more
            found = summary(turns[name])
            entries[name] |= {"ms": found["median"], **{key: found[key] for key in ("low", "high", "min", "samples")}}
        best = min((entry["ms"] for entry in entries.values() if entry["ms"]), default=0.0)
        open_for = {name: peer for name, peer in open_for.items() if (entries[name]["ms"] or np.inf) < NEAR * best}
    return as_row(row, entries)


def launched(
    row: str,
    peers: Mapping[str, Peer],
    entries: dict[str, Entry],
    references: Mapping[str, np.ndarray[Any, Any]],
    folder: Path,
    threads: int,
    budget_s: float,
) -> dict[str, Turns]:
    """Each peer in a new process, its logits judged into its entry, then timed where they hold."""
    with ExitStack() as stack:
        children: dict[str, Child] = {}
        for name, peer in peers.items():
            arguments = ("benchmarks.peer_worker", name, row, str(folder), str(threads))
            child = stack.enter_context(Child(*arguments, environment={"OMP_NUM_THREADS": str(threads)}))
            told = child.answer()
            entries[name] |= judge(told, references[peer.source], exact=peer.exact) | {"source": peer.source}
            if not entries[name]["skipped"]:
                children[name] = child
        return timed(children, entries, budget_s)


def reference(row: str, folder: Path, source: str) -> np.ndarray[Any, Any]:
    """Logits of our float32 file for the bundled pictures, which are left beside it for the peers."""
    with Model(folder / f"{source}.onnx") as model:
        pictures = np.concatenate([preprocess(path, model.rule) for path in sample_files(find(row).samples)])
        np.save(folder / f"{source}.npy", pictures)
        return model.run(pictures)


def judge(told: Mapping[str, Any], expected: np.ndarray[Any, Any], *, exact: bool) -> Entry:
    """How a peer's logits agree with the reference's: the largest difference in parts of the largest logit, and the
    percentage of pictures with the same answer; and why it is not timed, if it is not."""
    if "problem" in told:
        return {"skipped": told["problem"]}
    logits = np.asarray(told["logits"], dtype=np.float64)
    if logits.shape != expected.shape:
        return {"skipped": f"gives {logits.shape} where the reference gives {expected.shape}"}
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    same = 100 * float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
    if not np.isfinite(error):
        return {"skipped": "gives no numbers", "setting": told["setting"]}
    at_fault = f"at fault: {error:.1e} off in float32, {TOLERANCE:.0e} allowed" if exact and error > TOLERANCE else None
    return {"setting": told["setting"], "relative_error": error, "agreement": same, "skipped": at_fault}


def timed(children: dict[str, Child], entries: dict[str, Entry], budget_s: float) -> dict[str, Turns]:
    """The samples of each, by round and turn; one that stops answering is out, and its entry says why."""
    turns: dict[str, Turns] = {name: [] for name in children}
    for _ in range(ROUNDS):
        for name in list(turns):
            told = children[name].ask({"seconds": budget_s / ROUNDS})
            if "problem" in told:
                entries[name]["skipped"] = told["problem"]
                del turns[name]
            else:
                turns[name].append([told["ms"]])
    return turns


def as_row(row: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The row as the record has it: what tuning chose, against the fastest peer that is within the same tolerance."""
    ours = {name: entry for name, entry in entries.items() if name in OURS}
    best = next((name for name in (TUNED, *ours) if ours.get(name, {}).get("ms")), None)
    chosen = {"name": best, "interval": [ours[best]["low"], ours[best]["high"]], **ours[best]} if best else {}
    peers = {name: entry for name, entry in entries.items() if name not in OURS}
    rivals = {name: entry for name, entry in peers.items() if entry["ms"] and entry["relative_error"] <= ALLOWED}
    rival = min(rivals, key=lambda name: float(rivals[name]["ms"]), default=None)
    return {
        "model": row,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "ours_ms": best and ours[best]["ms"],
        "ours": chosen | {"files": ours},
        "tolerance": ALLOWED,
        "rival": rival,
        "ratio": best and rival and ours[best]["ms"] / rivals[rival]["ms"],
        "peers_ms": {name: entry["ms"] for name, entry in rivals.items()},
        "peers": peers,
    }


def chosen_peers(names: Iterable[str]) -> dict[str, Peer]:
    """Peers by name or by the beginning of one, and always edgezoo. Raises InvalidInput for a name nobody has."""
    names = list(names)
    for name in names:
        if not any(peer.lower().startswith(name.lower()) for peer in PEERS):
            raise InvalidInput(f"--peer {name}: one of {', '.join(PEERS)}, or the beginning of one")
    wanted = {
        n: p for n, p in PEERS.items() if not names or any(n.lower().startswith(given.lower()) for given in names)
    }
    return OURS | wanted


def keep(file: Path, rows: Sequence[dict[str, Any]], watch: Watch, settings: dict[str, Any]) -> None:
    """Write the record, these rows in place of what an earlier run found of them."""
    earlier = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    found = {row["model"]: row for row in (*earlier, *rows)}
    noisy = [name for name in ROWS if found.get(name, {}).get("noise")]
    record = {
        "schema": 1,
        "machine": describe(watch),
        "noise": {"noisy": bool(noisy), "rows": noisy},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": dict(_installed()),
        "settings": settings,
        "rows": sorted(found.values(), key=lambda row: ROWS.index(row["model"])),
    }
    write(record, file)


def _installed() -> Iterable[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package.removesuffix("-gpu"), version(package)
        except PackageNotFoundError:
            continue


def main() -> int:
    """Run the rows, print what was found, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME", help="a peer, or the beginning of one")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each peer (default: usable cores)")
    parser.add_argument("--budget", type=float, default=8.0, metavar="S", help="seconds of each peer (default: 8)")
    parser.add_argument(
        "--data", type=Path, help="a folder of photos to quantize on, minutes for each row (default: few, quickly)"
    )
    parser.add_argument(
        "--files", type=Path, metavar="DIR", help="keep the files that are compared, and use them again"
    )
    parser.add_argument(
        "--tuning", type=float, default=TUNING_S, metavar="S", help=f"seconds of `zoo tune` (default: {TUNING_S:g})"
    )
    parser.add_argument(
        "--launches", type=int, default=LAUNCHES, metavar="N", help=f"processes of each peer (default: {LAUNCHES})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the record, row after row")
    parser.add_argument("--table", action="store_true", help="print the README's table from the record, and stop")
    args = parser.parse_args()
    if args.table:
        print(f"{START}\n{markdown(json.loads((args.json or RECORD).read_text(encoding='utf-8')))}{END}")
        return 0
    try:
        return _run(args)
    except EdgeZooError as error:
        print(f"peers.py: error: {error}", file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    if unknown := [row for row in args.rows if row not in ROWS]:
        raise InvalidInput(f"{', '.join(unknown)}: no row here: choose from {', '.join(ROWS)}")
    bind(args.threads)  # and with it whoever is started
    peers, watch, rows = chosen_peers(args.peer), Watch([], args.threads), args.rows or list(ROWS)
    photos = len(sample_files("photos"))
    settings = {
        "threads": args.threads,
        "budget_s": args.budget,
        "rounds": ROUNDS,
        "batch": 1,
        "pictures": photos,
        "calibration": CALIBRATION if args.data else photos,
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name in track(rows, what="comparing", total=len(rows)):
            folder = (args.files or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            found = compare(
                name,
                peers,
                folder,
                threads=args.threads,
                budget_s=args.budget,
                data=args.data,
                tuning_s=args.tuning,
                launches=args.launches,
            )
            watch.probe()
            found |= {"settings": settings, "noise": watch.reasons([])}
            columns, lines = of_row(found)
            print_table(name, columns, lines, right=set(columns[1:4]))
            if args.json:
                keep(args.json, [found], watch, settings)
            if not args.files:
                shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
