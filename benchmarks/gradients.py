"""What a gradient costs: a prediction, and predictions that give a map's or the input's gradient too; beside torch's.

    uv run python benchmarks/gradients.py [--json benchmarks/results/gradients.json] [--threads N] [ROW ...]

Networks are untrained, at their own size, one picture at a time; everything of a row is timed in turns in one run, of
which the median counts. "last" is Grad-CAM's gradient at the layer that the file names, with its activation; "deep"
the same at an activation in the middle of the network; "input" the gradient of the picture. "baked" is a file with
the last map behind a switch, asked for the prediction alone. torch is autograd of the picture's gradient in eager
mode. onnx-ad (the picture's gradient) and pytorch-grad-cam (the last map) are timed when installed.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from exporters.source import Recipe, Weights
from exporters.torch_build import build
from runtime.gradients import ByIndex, add_gradients, gradient_name, on_request
from runtime.machine import report, usable_cores
from runtime.metadata import Metadata
from zoo.labels import load
from zoo.models import find
from zoo.terminal import print_table, track

ROWS = "mobilenet_v2 mobilenet_v3_large efficientnet_b0 resnet50 googlenet inception_v3 xception alexnet".split()
COLUMNS = ("forward", "baked", "last", "deep", "input", "torch", "pytorch-grad-cam", "onnx-ad")
LEAST_RUNS, SETTLE_S = 2, 0.005  # of a turn, not counted: threads and caches of the one before
COUNTED = 3

Run = Callable[[], object]


def export(name: str, folder: Path) -> Path:
    """An untrained file of a torch row."""
    output = folder / f"{name}.onnx"
    argv = [sys.executable, "-m", "zoo", "export", name, "--source", "torch", "--weights", "none", "-o", str(output)]
    subprocess.run(argv, check=True, capture_output=True)
    return output


def network(name: str) -> Any:
    """The same network as a torch module."""
    spec = find(name)
    variant = spec.variant("torch")[1]
    labels = load(spec.labels) if spec.labels else None
    recipe = Recipe(
        name=name, builder=variant.builder, preprocess=variant.preprocess, labels=labels, weights=Weights(kind="none")
    )
    return build(recipe).eval().requires_grad_(False)


def middle(model: onnx.ModelProto) -> str:
    """The activation behind the middle one of all convolutions, or that convolution's map."""
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    chosen = convolutions[len(convolutions) // 2]
    readers = [node for node in model.graph.node if chosen in node.input]
    return readers[0].output[0] if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip") else chosen


def bound(model: onnx.ModelProto, feeds: dict[str, Any], outputs: list[str], threads: int) -> Run:
    """One run with its inputs and outputs bound: fresh pages for each output would be timed too."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, made in zip(outputs, session.run(outputs, feeds), strict=True):
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(made))
    return lambda: session.run_with_iobinding(binding)


def autograd(module: Any, x: Any) -> None:
    """torch's gradient of the picture."""
    given = torch.from_numpy(x).requires_grad_()
    module(given)[0, 0].backward()


def runs(name: str, folder: Path, threads: int) -> dict[str, Run]:
    """What is timed of one row."""
    file, module = export(name, folder), network(name)
    model, index = onnx.load(file), np.zeros(1, np.int64)
    told = Metadata.from_props({entry.key: entry.value for entry in model.metadata_props})
    last = told.explain_layer
    assert last is not None
    shape = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    plain, asked = {"input": x}, {"input": x, "class_index": index}

    def with_gradient(tensor: str) -> Run:
        keep = [] if tensor == "input" else [tensor]
        made = add_gradients(model, [tensor], keep=keep)
        return bound(made, asked, ["logits", *keep, gradient_name(tensor)], threads)

    baked = add_gradients(model, [last], keep=[last], seed=ByIndex(default=-1))
    found = {
        "forward": bound(model, plain, ["logits"], threads),
        "baked": bound(on_request(baked, [last, gradient_name(last)]), plain, ["logits"], threads),
        "last": with_gradient(last),
        "deep": with_gradient(middle(model)),
        "input": with_gradient("input"),
        "torch": functools.partial(autograd, module, x),
    }
    peers = {"pytorch-grad-cam": (grad_cam, (module, last, x)), "onnx-ad": (onnx_ad, (model, shape, x, threads))}
    for peer, (make, given) in peers.items():
        if importlib.util.find_spec(peer.replace("-", "_")):
            try:
                found[peer] = make(*given)
            except Exception as error:  # noqa: BLE001 - a peer that gives up is a result too
                print(f"{name}: {peer}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    return found


def grad_cam(module: Any, layer: str, x: Any) -> Run:
    """pytorch-grad-cam's map of the same layer."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(model=module.requires_grad_(True), target_layers=[module.get_submodule(layer)])
    given, targets = torch.from_numpy(x), [ClassifierOutputTarget(0)]
    return lambda: cam(input_tensor=given, targets=targets)


def onnx_ad(model: onnx.ModelProto, shape: list[int], x: Any, threads: int) -> Run:
    """onnx-ad's gradient of the picture, with all extents fixed."""
    import onnx_ad as peer

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value, extents in ((fixed.graph.input[0], shape), (fixed.graph.output[0], [1, 1000])):
        for dim, extent in zip(value.type.tensor_type.shape.dim, extents, strict=True):
            dim.dim_value = extent
    del fixed.graph.value_info[:]
    made = peer.reverse(onnx.shape_inference.infer_shapes(fixed), layout="onnx")
    seed = next(value for value in made.graph.input if value.name.startswith("adj"))
    ones = np.zeros([dim.dim_value or 1 for dim in seed.type.tensor_type.shape.dim], np.float32)
    ones.reshape(-1)[0] = 1
    gradient = next(value.name for value in made.graph.output if value.name.startswith("adj"))
    return bound(made, {"input": x, seed.name: ones}, ["logits", gradient], threads)


def milliseconds(found: dict[str, Run], budget_s: float) -> dict[str, float]:
    """The median of each, in turns."""
    samples: dict[str, list[float]] = {name: [] for name in found}
    begin = time.perf_counter()
    while time.perf_counter() - begin < budget_s or len(samples["forward"]) < 4 * COUNTED:
        for name, run in found.items():
            start, settled = time.perf_counter(), 0
            while settled < LEAST_RUNS or time.perf_counter() - start < SETTLE_S:
                run()
                settled += 1
            for _ in range(COUNTED):
                start = time.perf_counter()
                run()
                samples[name].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(taken)) for name, taken in samples.items()}


def main() -> int:
    """Run the rows, print the table, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each run (default: usable cores)")
    parser.add_argument("--budget", type=float, default=20.0, metavar="S", help="seconds of one row (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the record")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine, done = report(), []
    for name in track(args.rows or ROWS, what="timing", total=len(args.rows or ROWS)):
        with tempfile.TemporaryDirectory() as folder:
            times = milliseconds(runs(name, Path(folder), args.threads), args.budget)
        done.append({"row": name, **{key: round(value, 3) for key, value in times.items()}})
    shown = [column for column in COLUMNS if any(column in row for row in done)]
    print_table(
        "milliseconds, and times the forward run", ("row", *shown), [_line(row, shown) for row in done], right={*shown}
    )
    if args.json:
        packages = ["edgezoo", "onnxruntime-gpu", "onnx", "torch"]
        record = {
            "date": datetime.date.today().isoformat(),
            "machine": {"cpu": machine.cpu, "cores": machine.cores_usable, "platform": machine.platform},
            "versions": {name: version(name) for name in packages},
            "threads": args.threads,
            "rows": done,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _line(row: dict[str, Any], columns: list[str]) -> list[str]:
    cells = (f"{row[key]:.1f} ({row[key] / row['forward']:.2f})" if key in row else "" for key in columns)
    return [row["row"], *cells]


if __name__ == "__main__":
    sys.exit(main())
