"""From a JPEG file to a label, by edgezoo and by what a user would write instead: one function for each road.

A function takes the folder of the network's files and the number of threads, and returns what turns the path of a
picture into the index of a class; its libraries are imported inside it. ``FAST`` and the like are what a record calls
them. All run the same network: mobilenet_v2 with the same untrained weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Label = Callable[[str], int]
ROW = "mobilenet_v2"
MODEL = "torch.onnx"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZE, SIZE = 256, 224


def _edgezoo(folder: Path, threads: int, *, decode: str, **options: Any) -> Label:
    import zoo

    model = zoo.load(folder / options.pop("file", MODEL), threads=threads, decode=decode, **options)
    return lambda path: model.predict(path, top=1).index


def _torchvision(folder: Path, threads: int) -> Label:
    """Pillow, torchvision's transforms, the eager network: what its documentation shows."""
    import torch
    from PIL import Image
    from torchvision import transforms

    from benchmarks.peer_files import network

    torch.set_num_threads(threads)
    prepare = transforms.Compose(
        [
            transforms.Resize(RESIZE),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    module = network(ROW, "torch").eval()

    def label(path: str) -> int:
        with torch.inference_mode():
            return int(module(prepare(Image.open(path).convert("RGB"))[None]).argmax())

    return label


def _pillow(folder: Path, threads: int) -> Label:
    """onnxruntime with its defaults, behind Pillow and numpy."""
    import onnxruntime
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def label(path: str) -> int:
        image = Image.open(path).convert("RGB")
        scale = RESIZE / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        return int(session.run(None, {name: _normalised(_centre(np.asarray(image)))})[0].argmax())

    return label


def _opencv(folder: Path, threads: int, *, precision: str) -> Label:
    """OpenCV's decoding and resize, and OpenVINO."""
    import cv2

    from runtime.engines.openvino_runner import load_openvino

    cv2.setNumThreads(threads)
    core = load_openvino().Core()
    model = core.read_model(folder / MODEL)
    model.reshape([1, 3, SIZE, SIZE])
    told = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(model, "CPU", told)
    request, output = compiled.create_infer_request(), compiled.output(0)

    def label(path: str) -> int:
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        scale = RESIZE / min(image.shape[:2])
        size = int(image.shape[1] * scale), int(image.shape[0] * scale)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return int(request.infer({0: _normalised(_centre(image))}, share_inputs=True)[output].argmax())

    return label


def _centre(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    top, left = (pixels.shape[0] - SIZE) // 2, (pixels.shape[1] - SIZE) // 2
    return pixels[top : top + SIZE, left : left + SIZE]


def _normalised(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    scaled = (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))[None]


_part = functools.partial
ROADS: dict[str, Callable[[Path, int], Label]] = {
    "edgezoo": _part(_edgezoo, decode="fast"),
    "edgezoo, tuned": _part(_edgezoo, decode="fast", engine="auto"),
    "edgezoo, tuned, exact pixels": _part(_edgezoo, decode="exact", engine="auto"),
    "torchvision": _torchvision,
    "Pillow + onnxruntime": _pillow,
    "OpenCV + OpenVINO fp32": _part(_opencv, precision="f32"),
    "OpenCV + OpenVINO bf16": _part(_opencv, precision="bf16"),
}
