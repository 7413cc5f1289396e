"""The files that peers.py compares: one network with the same untrained weights, in the form that each peer takes.

    python -m benchmarks.peer_files FILE ROW FOLDER [--data DIR]

makes one of FILES in FOLDER. Each is made in a process of its own: TensorFlow and PyTorch share none, and converters
leave gigabytes behind. What is there already stays.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.source import Recipe, sample_files
from runtime.image import preprocess
from runtime.model import Model
from zoo.labels import load as load_labels
from zoo.models import find
from zoo.weights import resolve

CALIBRATION, HELD_OUT = 32, 16
TUNING_S = 25.0

Batch = npt.NDArray[np.float32]
Make = Callable[[str, Path, Path, Path | None], None]
"""(row, folder of the other files, file to make, pictures)."""


def recipe(row: str, framework: str) -> Recipe:
    """What `zoo export ROW --source FRAMEWORK --weights none` builds. Raises UnknownName for a source it lacks."""
    spec = find(row)
    variant = spec.variant(framework)[1]
    return Recipe(
        name=spec.name,
        builder=variant.builder,
        preprocess=variant.preprocess,
        labels=load_labels(spec.labels) if spec.labels else None,
        task=spec.task,
        weights=resolve(spec, variant, "none"),
        samples=spec.samples,
    )


def network(row: str, framework: str) -> Any:
    """The very network that the row's file was converted from: a torch module, or a Keras model."""
    if framework == "torch":
        from exporters.torch import load

        return inspect.getclosurevars(load(recipe(row, "torch")).forward).nonlocals["network"].model
    from exporters.keras import load

    return inspect.getclosurevars(load(recipe(row, "keras")).forward).nonlocals["model"]


def calibration(row: str, file: Path, data: Path | None) -> list[Batch]:
    """Pictures to take ranges from, as the file wants them: (1, C, H, W) each; CALIBRATION at most."""
    with Model(file) as model:
        return [preprocess(path, model.rule) for path in _photos(row, data)[:CALIBRATION]]


def _photos(row: str, data: Path | None) -> list[Path]:
    """Photos of DATA, and without it the bundled ones: few, which accuracy minds and times do not."""
    found = sorted(path for path in data.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")) if data else []
    return found or sample_files(find(row).samples)


def _export(framework: str) -> Make:
    def make(row: str, folder: Path, output: Path, data: Path | None) -> None:
        from exporters.export import export

        export(recipe(row, framework), framework, output)

    return make


def _ours(target: str) -> Make:
    """edgezoo's int8 file: as `zoo quantize --data` makes it; without DATA the fastest way, whatever it loses.

    Forced: an untrained network has no top-1 to lose.
    """

    def make(row: str, folder: Path, output: Path, data: Path | None) -> None:
        from exporters.cache import folder as cache_folder
        from exporters.quantize.road import Trial, quantize

        photos = _photos(row, data)
        kept = photos[:CALIBRATION]
        trial = Trial(kept, photos[CALIBRATION:][:HELD_OUT] or kept)
        searches, plain = cache_folder("searches"), data is None
        quantize(folder / "torch.onnx", output, trial, target=target, force=True, plain=plain, searches=searches)

    return make


def _tuning(row: str, folder: Path, output: Path, data: Path | None, *, seconds: float = TUNING_S) -> None:
    """What `zoo tune torch.onnx --tolerance` finds, on the cores that this process has; beside the file itself."""
    from benchmarks.peer_runners import TOLERANCE
    from runtime.tuning.record import remember
    from runtime.tuning.search import tune

    file = folder / "torch.onnx"
    remember(file, tune(file, pictures=_photos(row, data)[:CALIBRATION], tolerance=TOLERANCE, budget_s=seconds))


def _stock(row: str, folder: Path, output: Path, data: Path | None) -> None:
    """onnxruntime's own static quantization: QDQ, unsigned activations, signed weights per channel, min-max."""
    from benchmarks.int8 import stock

    file = folder / "torch.onnx"
    stock("MinMax")(file, list(calibration(row, file, data)), output)
    output.with_suffix(".ready.onnx").unlink()


def _lite(*, int8: bool) -> Make:
    """LiteRT's file by TensorFlow's converter; int8 is integers throughout, between float32 at both ends."""

    def make(row: str, folder: Path, output: Path, data: Path | None) -> None:
        model = network(row, "keras")
        import tensorflow
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        height, width, channels = model.input_shape[1:]
        # At batch 1: of a free one the converter makes a graph that XNNPACK takes in part.
        frozen = tensorflow.function(lambda x: model(x, training=False)).get_concrete_function(
            tensorflow.TensorSpec((1, height, width, channels), tensorflow.float32)
        )
        # Variables as constants: else the converter leaves them in the file, which its own calibration cannot read.
        constant = convert_variables_to_constants_v2(frozen)
        converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([constant])
        if int8:
            pictures = calibration(row, folder / "keras.onnx", data)
            converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([picture.transpose(0, 2, 3, 1)] for picture in pictures)
            converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
        output.write_bytes(converter.convert())

    return make


def _ncnn(row: str, folder: Path, output: Path, data: Path | None) -> None:
    """ncnn's graph beside its weights, by pnnx from the torch module, in float32."""
    import torch

    module = network(row, "torch")
    with Model(folder / "torch.onnx") as model:
        shape = (1, model.rule.channels, *model.rule.size)
    traced = output.with_name("traced.pt")
    torch.jit.trace(module, torch.zeros(shape), check_trace=False).save(str(traced))
    program = Path(sys.executable).with_name("pnnx")
    argv = [str(program), traced.name, f"inputshape={list(shape)}".replace(" ", ""), "fp16=0"]
    subprocess.run(argv, cwd=output.parent, check=True, capture_output=True, text=True)
    output.with_name("traced.ncnn.bin").rename(output.with_suffix(".bin"))
    output.with_name("traced.ncnn.param").rename(output)
    for left in output.parent.glob("traced*"):
        left.unlink()


def _ncnn_int8(row: str, folder: Path, output: Path, data: Path | None) -> None:
    from benchmarks.peer_ncnn import quantize

    quantize(folder / "ncnn.param", output, calibration(row, folder / "torch.onnx", data))


FILES: dict[str, Make] = {
    "torch.onnx": _export("torch"),
    "keras.onnx": _export("keras"),
    "int8.onnx": _ours("auto"),
    "openvino.onnx": _ours("openvino"),
    "torch.onnx.tuned.json": _tuning,
    "stock.onnx": _stock,
    "float.tflite": _lite(int8=False),
    "int8.tflite": _lite(int8=True),
    "ncnn.param": _ncnn,
    "ncnn_int8.param": _ncnn_int8,
}


def require(name: str, row: str, folder: Path, data: Path | None, *, tuning_s: float = TUNING_S) -> str | None:
    """Make FOLDER/name where it is missing; why that was not possible, in one line."""
    if (folder / name).is_file():
        return None
    argv = [sys.executable, "-m", "benchmarks.peer_files", name, row, str(folder)]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    argv += ["--tuning", str(tuning_s), *(["--data", str(data)] if data else [])]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if done.returncode == 0 and (folder / name).is_file():
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{name} cannot be made: {lines[-1][:200] if lines else f'exit {done.returncode}'}"


def main() -> int:
    """Make one file, elsewhere first: one that was interrupted is never taken for whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", metavar="FILE", choices=FILES)
    parser.add_argument("row", metavar="ROW")
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tuning", type=float, default=TUNING_S)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".part.", dir=args.folder) as scratch:
        make = partial(_tuning, seconds=args.tuning) if FILES[args.name] is _tuning else FILES[args.name]
        make(args.row, args.folder, Path(scratch, args.name), args.data)
        for made in sorted(Path(scratch).iterdir()):  # ncnn.bin before ncnn.param, which says that both are there
            made.rename(args.folder / made.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
