"""``zoo profile FILE``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import EdgeZooError, InferenceFailed, InvalidInput
from runtime.files import write
from zoo.explain_files import check
from zoo.layer_report import clean, human
from zoo.preprocessing import NONE, add_argument, for_file, input_shape
from zoo.terminal import print_json, print_table

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto

    from runtime.profile import Profile
    from zoo.layers import LayerTable
    from zoo.profiling import Node

_RUNS, _TOP = 50, 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``zoo profile``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx file")
    parser.add_argument("--image", metavar="PICTURE", help="run it on this picture (default: on noise)")
    add_argument(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the cores this process may use)")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures per run where the file leaves that free")
    parser.add_argument("--input-size", metavar="HxW", help="height and width of the input where the file has none")
    parser.add_argument("--runs", type=int, default=_RUNS, metavar="N", help=f"runs to measure (default: {_RUNS})")
    parser.add_argument("--trace", type=Path, metavar="OUT", help="write a .json trace for ui.perfetto.dev")
    parser.add_argument("--top", type=int, default=_TOP, metavar="N", help=f"nodes to list (default: {_TOP})")
    parser.add_argument("--json", action="store_true", help="print JSON, every node in it")


def run(args: argparse.Namespace) -> int:
    """Profile the file, print its operators and nodes, and write the trace."""
    from runtime.machine import usable_cores
    from runtime.profile import trace
    from zoo.profiling import nodes_of, operators_of

    for option in ("batch", "runs", "top"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise InvalidInput(f"--{option} must be at least 1, not {getattr(args, option)}")
    if args.preprocess and not args.image:
        raise InvalidInput("--preprocess says how a picture is seen: add --image")
    if args.trace:
        check(args.trace, (".json",))
    profile, proto, table, batch = _measure(args)
    nodes = nodes_of(profile, table, proto)
    threads = args.threads or usable_cores()
    if args.trace:
        told = {node.name: _details(node) for node in nodes}
        data = trace(profile.events, title=f"{args.file.name} on {args.device}", details=told)
        write(args.trace, json.dumps(data).encode())
    quantized = any(node.arithmetic == "integer" for node in nodes)
    summary = _summary(profile, table, nodes)
    if args.json:
        print_json(
            {"file": str(args.file), "device": args.device, "threads": threads, "batch": batch, "runs": args.runs}
            | {"inputs": {name: list(shape) for name, shape in table.inputs.items() if shape}}
            | summary
            | {"operators": [asdict(each) for each in operators_of(nodes)], "nodes": [asdict(node) for node in nodes]}
            | {"float_nodes": [_brief(node) for node in nodes if node.arithmetic == "float"] if quantized else None}
        )
    else:
        title = f"{args.file} on {args.device}, {threads} thread{'s' if threads > 1 else ''}, batch {batch}"
        _print(title, summary, nodes, args.top, quantized=quantized, on_gpu=args.device != "cpu")
    if args.trace:
        print(f"wrote {args.trace}: open it in ui.perfetto.dev", file=sys.stderr if args.json else sys.stdout)
    return 0


def _measure(args: argparse.Namespace) -> tuple[Profile, ModelProto, LayerTable, int]:
    """Read, feed and profile the file: with the model, its layer table, and how many pictures a run takes."""
    from runtime.engines import open_session
    from runtime.profile import profile
    from zoo.layers import count
    from zoo.profiling import feed_of, model_of
    from zoo.shapes import read

    size: tuple[int, int] | None = None
    if args.input_size:
        high, wide = input_shape(args.input_size)
        size = high, wide
    proto, where = read(args.file), str(args.file)
    picture = _picture(args, proto) if args.image else None
    model = model_of(proto, args.file)
    table = count(proto, batch=args.batch or 1, size=size)
    if picture is not None and None in table.inputs.values():  # free axes: the picture says how long they are
        size = picture.shape[2:4] if picture.shape[1] in (1, 3) else picture.shape[1:3]
        table = count(proto, batch=args.batch or 1, size=size)
    feed = feed_of(proto, table, where=where, picture=picture)
    first = next(iter(feed.values())) if feed else None
    batch = int(first.shape[0]) if first is not None and first.ndim else 1
    if args.batch and args.batch != batch:
        raise InvalidInput(f"{where}: takes batches of {batch} alone: leave --batch out")
    if isinstance(model, bytes):  # what is wrong with the file is to be said of the file
        open_session(args.file, device=args.device, threads=args.threads)
    try:
        taken = profile(model, feed, device=args.device, threads=args.threads, runs=args.runs)
    except EdgeZooError:
        raise
    except Exception as error:  # onnxruntime's share no base
        raise InferenceFailed(f"{where}: {str(error).splitlines()[0]}") from error
    return taken, proto, table, batch


def _picture(args: argparse.Namespace, proto: ModelProto) -> npt.NDArray[Any]:
    from runtime.image import preprocess
    from zoo.profiling import rule_of

    if args.preprocess == NONE:
        raise InvalidInput(f"--preprocess {NONE}: a picture is to be run: say how the network sees it")
    rule = for_file(args.preprocess, args.file) if args.preprocess else rule_of(proto, str(args.file))
    if args.input_size:
        high, wide = input_shape(args.input_size)
        rule = rule.at_size(high, wide)
    return preprocess(args.image, rule)


def _summary(profile: Profile, table: LayerTable, nodes: list[Node]) -> dict[str, Any]:
    """The sum of the nodes beside whole runs, who ran them, and how much of the time has a layer's name."""
    providers: dict[str, float] = {}
    for node in nodes:
        providers[node.provider] = providers.get(node.provider, 0.0) + node.share
    return {
        "undisturbed_ms": profile.undisturbed_ms,
        "profiled_ms": profile.profiled_ms,
        "nodes_ms": sum(node.milliseconds for node in nodes),
        "providers": providers,
        "joined": sum(1 for node in nodes if node.layer),
        "joined_share": sum(node.share for node in nodes if node.layer),
        "macs": table.macs if table.complete else None,
        "joined_macs": sum(node.macs or 0 for node in nodes),
    }


def _details(node: Node) -> dict[str, Any]:
    """What the trace says of a node besides what onnxruntime does."""
    work = {"macs": node.macs, "GFLOP/s": round(node.gflops, 1)} if node.macs and node.gflops else {}
    return {"layer": node.layer or "none: onnxruntime's own", "arithmetic": node.arithmetic} | work


def _brief(node: Node) -> dict[str, Any]:
    return {key: getattr(node, key) for key in ("name", "operator", "milliseconds", "share", "between")}


# ---- the tables


def _print(title: str, summary: dict[str, Any], nodes: list[Node], top: int, *, quantized: bool, on_gpu: bool) -> None:
    from zoo.profiling import operators_of

    columns = ("operator", "nodes", "ms", "share", "MACs", "GFLOP/s")
    rows = [
        (clean(each.operator), str(each.nodes), _ms(each.milliseconds), _share(each.share), _macs(each.macs),
         _rate(each.gflops))
        for each in operators_of(nodes)
    ]  # fmt: skip
    print_table(title, columns, rows, right=set(columns[1:]))
    plain, profiled = summary["undisturbed_ms"], summary["profiled_ms"]
    print(
        f"{_ms(plain)} ms a run undisturbed, {_ms(profiled)} ms with the profile "
        f"({100 * (profiled / plain - 1):+.0f} %); the nodes add up to {_ms(summary['nodes_ms'])} ms"
    )
    several = len(summary["providers"]) > 1
    print(", ".join(f"{clean(name)} {_share(share)}" for name, share in summary["providers"].items()))
    ordered = sorted(nodes, key=lambda node: -node.milliseconds)
    columns = ("node", "operator", "output", "ms", "share", "MACs", "GFLOP/s", *(("provider",) if several else ()))
    print()
    shown = [(*_line(node), *((clean(node.provider),) if several else ())) for node in ordered[:top]]
    head = "the longest nodes" if len(ordered) > top else "the nodes, the longest first"
    print_table(head, columns, shown, right={"ms", "share", "MACs", "GFLOP/s"})
    if len(ordered) > top:
        print(f"{len(ordered) - top} more, {_share(sum(node.share for node in ordered[top:]))}: --top, or --json")
    whole = f"of {human(summary['macs'])}" if summary["macs"] is not None else "of which there may be more"
    print(
        f"{summary['joined']} of {len(nodes)} nodes ({_share(summary['joined_share'])} of the time) bear a name of the "
        f"file, with {human(summary['joined_macs'])} MACs {whole}; the others are onnxruntime's own"
    )
    if on_gpu:
        print("a GPU works on while its nodes are started: their times are those of starting them, whole runs are not")
    if quantized:
        _print_float([node for node in ordered if node.arithmetic == "float"], top)


def _print_float(nodes: list[Node], top: int) -> None:
    """What runs in float in a file that also runs on integers."""
    print()
    if not nodes:
        print("nothing computes in float: only conversions do")
        return
    total = sum(node.share for node in nodes)
    rows = [
        (clean(node.name), clean(node.operator), _ms(node.milliseconds), _share(node.share), "yes" * bool(node.between))
        for node in nodes[:top]
    ]
    title = f"in float: {len(nodes)} nodes, {_share(total)} of the time"
    print_table(title, ("node", "operator", "ms", "share", "between integers"), rows, right={"ms", "share"})
    if len(nodes) > top:
        print(f"{len(nodes) - top} more: --top, or --json")


def _line(node: Node) -> tuple[str, ...]:
    return (
        clean(node.name), clean(node.operator), clean(node.outputs[0]) if node.outputs else "", _ms(node.milliseconds),
        _share(node.share), _macs(node.macs), _rate(node.gflops),
    )  # fmt: skip


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _macs(macs: int | None) -> str:
    return human(macs) if macs else ""


def _rate(gflops: float | None) -> str:
    return "" if gflops is None else f"{gflops:.1f}"
