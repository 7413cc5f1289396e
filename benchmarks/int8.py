"""int8 beside float32: edgezoo's, onnxruntime's own, and NNCF's when it is installed.

    uv run python benchmarks/int8.py --data DATA [--json benchmarks/results/int8.json] [ROW ...]
    uv run python benchmarks/int8.py --table

DATA is a folder with `photos/` and its `labels.csv` (ImageNet indices), `mnist/`, `cifar10/` and `weights/`; a row
whose weights are not there is untrained, and tells of speed alone. The first 100 pictures calibrate, the others
measure. Every file of a row is timed in one interleaved run, one picture at a time. Stock is
`onnxruntime.quantization.quantize_static` after its own pre-processing: QDQ, unsigned activations, signed weights
per channel, with min-max and with percentile ranges. NNCF is `nncf.quantize` with its mixed preset.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.int8_table import END, START, markdown
from exporters.quantize.road import Trial, quantize
from exporters.quantize.timing import milliseconds
from runtime.image import preprocess
from runtime.machine import report
from runtime.metadata import Labels
from runtime.model import Model
from zoo.datasets import Sample, open_dataset
from zoo.terminal import print_table, track

CALIBRATION = 100
RECORD = Path(__file__).with_name("results") / "int8.json"

Batch = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """target and options: what `zoo export` takes. weights: in DATA, None for its own. pictures: in DATA."""

    target: str
    weights: str | None
    pictures: str = "photos"
    options: tuple[str, ...] = ()


ROWS = {
    "mobilenet_v2": Row("mobilenet_v2", "weights/mobilenet_v2_torchvision.pth"),
    "squeezenet1_1": Row("squeezenet1_1", "weights/squeezenet1_1_onnxzoo.pth"),
    "mobilenet_v3_small": Row("timm:tf_mobilenetv3_small_100", "weights/tf_mobilenetv3_small_100_timm.pth"),
    "resnet20": Row(
        f"{Path(__file__).with_name('resnet20.py')}:resnet20",
        "weights/resnet20_cifar10.th",
        "cifar10/cifar10_subset.npz",
        ("--preprocess", "torch,size=32x32,resize=32x32"),
    ),
    "mobilenet_v1_0.25": Row("DATA/weights/keras/mobilenet_v1_0.25_128.h5", None, "photos", ("--preprocess", "tf")),
    "resnet8": Row(
        "DATA/weights/keras/resnet8_cifar10.h5", None, "cifar10/cifar10_subset.npz", ("--preprocess", "0-255")
    ),
    "lenet5": Row("lenet5", None, "mnist"),
    "resnet50": Row("resnet50", "none"),
    "mobilenet_v3_large": Row("mobilenet_v3_large", "none"),
    "efficientnet_b0": Row("efficientnet_b0", "none"),
    "inception_v3": Row("inception_v3", "none"),
    "mobilenet_v1": Row("mobilenet_v1", "none"),
    "densenet121": Row("densenet121", "none"),
    "shufflenet_v2_x1_0": Row("shufflenet_v2_x1_0", "none"),
}


def export(row: Row, data: Path, folder: Path) -> tuple[Path, bool]:
    """The float32 file, and whether it is trained."""
    weights = data / row.weights if row.weights and row.weights != "none" else None
    trained = row.weights is None or (weights is not None and weights.is_file())
    own = ("--weights", str(weights) if trained else "none") if row.weights else ()
    output = folder / "float.onnx"
    target = str(data / row.target.removeprefix("DATA/")) if row.target.startswith("DATA/") else row.target
    argv = [sys.executable, "-m", "zoo", "export", target, *own, *row.options, "-o", str(output)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return output, trained


def open_samples(place: Path, labels: Labels, limit: int | None) -> Sequence[Sample]:
    """Labelled pictures: what `zoo eval` takes, or CIFAR-10's test set in a .npz."""
    if place.suffix != ".npz":
        return open_dataset(place, labels, limit=limit)
    arrays = np.load(place, allow_pickle=False)
    pairs = zip(arrays["x_test"][:limit], arrays["y_test"].ravel()[:limit], strict=True)
    return [Sample(image, int(label)) for image, label in pairs]


def stock(method: str) -> Callable[[Path, list[Batch], Path], None]:
    """onnxruntime's own static quantization."""

    def make(file: Path, calibration: list[Batch], output: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader:
            def __init__(self) -> None:
                self.left: Iterator[Batch] = iter(calibration)

            def get_next(self) -> dict[str, Batch] | None:
                batch = next(self.left, None)
                return None if batch is None else {"input": batch}

        ready = output.with_suffix(".ready.onnx")
        quant_pre_process(file, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=getattr(CalibrationMethod, method),
        )

    return make


def nncf_mixed(file: Path, calibration: list[Batch], output: Path) -> None:
    """NNCF's post-training quantization."""
    import nncf
    import onnx

    data = nncf.Dataset(calibration, lambda batch: {"input": batch})
    made = nncf.quantize(onnx.load(file), data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(calibration))
    onnx.save(made, output)


PEERS: dict[str, Callable[[Path, list[Batch], Path], None]] = {
    "stock min-max": stock("MinMax"),
    "stock percentile": stock("Percentile"),
    **({"NNCF mixed": nncf_mixed} if importlib.util.find_spec("nncf") else {}),
}


def compare(name: str, row: Row, data: Path, limit: int | None, peers: list[str]) -> list[dict[str, Any]]:
    """One row of the benchmark: float32, ours and these of PEERS."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        file, trained = export(row, data, folder)
        with Model(file) as model:
            samples = open_samples(data / row.pictures, model.labels, limit)
            rule = model.rule
        few = min(CALIBRATION, len(samples) // 2)
        kept, rest = samples[:few], samples[few:]
        start = time.perf_counter()
        images = [sample.image for sample in kept], [sample.image for sample in rest]
        quantize(file, folder / "ours.onnx", Trial(*images, [sample.index for sample in rest]), force=True)
        files, seconds = {"float32": file, "edgezoo": folder / "ours.onnx"}, {"edgezoo": time.perf_counter() - start}
        calibration = [preprocess(sample.image, rule) for sample in kept]
        for peer in peers:
            start = time.perf_counter()
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    PEERS[peer](file, calibration, folder / f"{peer}.onnx")
            except Exception as error:  # noqa: BLE001 - a peer that gives up is a result too
                print(f"{name}: {peer}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            files[peer], seconds[peer] = folder / f"{peer}.onnx", time.perf_counter() - start
        times = dict(zip(files, milliseconds([str(path) for path in files.values()], calibration[0]), strict=True))
        pixels = np.concatenate([preprocess(sample.image, rule) for sample in rest])
        answers = {kind: _answers(path, pixels) for kind, path in files.items()}
        right = np.array([sample.index for sample in rest])
        return [
            {
                "row": name,
                "file": kind,
                "trained": trained,
                "images": len(rest),
                "top1": round(100 * float((answers[kind] == right).mean()), 2),
                "agreement": round(100 * float((answers[kind] == answers["float32"]).mean()), 2),
                "milliseconds": round(times[kind], 3),
                "ratio": round(times[kind] / times["float32"], 3),
                "megabytes": round(path.stat().st_size / 1e6, 2),
                "seconds_to_make": round(seconds.get(kind, 0.0), 1),
            }
            for kind, path in files.items()
        ]


def _answers(file: Path, pixels: Batch) -> npt.NDArray[np.int64]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate(
        [session.run(None, {name: pixels[start : start + 10]})[0].argmax(axis=1) for start in range(0, len(pixels), 10)]
    )


def keep(file: Path, done: list[dict[str, Any]]) -> None:
    """Write a row's record, in place of what an earlier run found of it; other rows stay."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    machine, packages = report(), ("edgezoo", "onnxruntime-gpu", "onnx", "torch", "nncf")
    told = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine.cpu}, {machine.cores_usable} cores, {machine.platform}",
        "versions": {name: version(name) for name in packages if name != "nncf" or "NNCF mixed" in PEERS},
    }
    names = list(ROWS)
    rows = [row for row in rows if row["row"] != done[0]["row"]] + [row | told for row in done]
    rows.sort(key=lambda row: names.index(row["row"]))
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run the rows, print the table, keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--data", type=Path, help="the measuring data")
    parser.add_argument("--limit", type=int, help="pictures of each dataset, calibration included (default: all)")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the record, row after row")
    parser.add_argument("--table", action="store_true", help="print the README's table from the record, and stop")
    args = parser.parse_args()
    if args.table:
        print(f"{START}\n{markdown(json.loads((args.json or RECORD).read_text(encoding='utf-8')))}{END}")
        return 0
    if args.data is None:
        parser.error("--data DATA is needed")
    done, peers = [], [] if args.alone else list(PEERS)
    for name in track(args.rows or list(ROWS), what="comparing", total=len(args.rows or ROWS)):
        done += (found := compare(name, ROWS[name], args.data, args.limit, peers))
        if args.json:
            keep(args.json, found)
    columns = ("row", "file", "top-1 %", "same answer %", "ms", "of float32", "MB", "made in s")
    keys = ("row", "file", "top1", "agreement", "milliseconds", "ratio", "megabytes", "seconds_to_make")
    print_table(None, columns, [[str(row[key]) for key in keys] for row in done], right=set(columns[2:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
