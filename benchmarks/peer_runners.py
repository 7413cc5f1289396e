"""Who is compared, and how each opens its file and runs one picture, by its own documentation.

To add a peer, add a function and a row to PEERS. A function takes the folder with the files of peer_files.py, the
row and the number of threads, and returns ``Opened``; its library is imported inside it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Batch = npt.NDArray[np.float32]
Infer = Callable[[Batch], Any]

TOLERANCE = 0.1
"""Of the largest logit, by which reduced precision may differ from float32: what int8 does to a network. Further off,
a peer is timed, and no rival."""


@dataclass(frozen=True, slots=True)
class Opened:
    """ways: what runs one picture and gives its logits, by what it is called; of several the fastest is timed.

    layout: of the pictures it takes. setting: how it was opened.
    """

    ways: dict[str, Infer]
    setting: str
    layout: Literal["NCHW", "NHWC"] = "NCHW"


@dataclass(frozen=True, slots=True)
class Peer:
    """package: what must be installed, by its import name. source: whose weights it runs.

    files: of FILES in benchmarks/peer_files.py. exact: in float32, so that it has to agree with our float32 file.
    """

    package: str
    source: Literal["torch", "keras"]
    files: tuple[str, ...]
    open: Callable[[Path, str, int], Opened]
    exact: bool = False


def _ours(name: str, folder: Path, row: str, threads: int) -> Opened:
    from runtime.engines import open_session

    session = open_session(folder / name, threads=threads)
    return _onnx(session, f"runtime.engines.open_session, threads={threads}")


def _tuned(folder: Path, row: str, threads: int) -> Opened:
    """What `zoo tune` has found for torch.onnx, the int8 files beside it."""
    import zoo
    from runtime.tuning.record import read

    file = folder / "torch.onnx"
    if read(file) is None:
        raise RuntimeError("its record of the tuning is of other cores or versions: remove it")
    model = zoo.load(file, engine="auto")
    said = f"{model.path.name} by {model.engine}, {model.precision}, {model.threads} threads"
    return Opened({"": model.run}, f'zoo.load(engine="auto"): {said}')


def _onnxruntime(name: str, folder: Path, row: str, threads: int) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    return _onnx(session, f"InferenceSession, defaults, intra_op_num_threads={threads}")


def _onnx(session: Any, setting: str) -> Opened:
    given = session.get_inputs()[0].name
    return Opened({"": lambda x: session.run(None, {given: x})[0]}, setting)


def _torch(folder: Path, row: str, threads: int, *, bf16: bool, compiled: bool) -> Opened:
    import torch

    from benchmarks.peer_files import network

    torch.set_num_threads(threads)
    kind = torch.bfloat16 if bf16 else torch.float32
    module = network(row, "torch").eval().requires_grad_(False).to(kind)
    setting = f"torch.set_num_threads({threads}), inference_mode{', module.to(bfloat16)' if bf16 else ''}"
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True  # folds the weights in, as its documentation advises for inference
        return Opened({"": _eager(torch.compile(module), kind)}, f"inductor with freezing, {setting}")
    strided = copy.deepcopy(module).to(memory_format=torch.channels_last)
    ways = {
        "contiguous": _eager(module, kind),
        "channels_last": _eager(strided, kind, memory_format=torch.channels_last),
    }
    return Opened(ways, setting)


def _eager(module: Any, kind: Any, **layout: Any) -> Infer:
    import torch

    def infer(x: Batch) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(x).to(dtype=kind, **layout)).float().numpy()

    return infer


def _keras(folder: Path, row: str, threads: int, *, bf16: bool) -> Opened:
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401 - which aborts the process when it comes after tensorflow
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    tensorflow.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": bf16})
    from benchmarks.peer_files import network

    model = network(row, "keras")
    step = tensorflow.function(lambda x: model(x, training=False))
    ways: dict[str, Infer] = {
        "model(x) in a tf.function": lambda x: step(tensorflow.convert_to_tensor(x)).numpy(),
        "model.predict": lambda x: model.predict(x, verbose=0),
        "model.predict_on_batch": lambda x: model.predict_on_batch(x),
    }
    return Opened(ways, f"TensorFlow, intra_op={threads}, inter_op=1{', auto mixed precision' if bf16 else ''}", "NHWC")


def _openvino(files: dict[str, str], folder: Path, row: str, threads: int, *, precision: str | None) -> Opened:
    from runtime.engines.openvino_runner import load_openvino

    core = load_openvino().Core()
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision:
        options["INFERENCE_PRECISION_HINT"] = precision
    ways, used = {}, ""
    for what, name in files.items():
        model = core.read_model(folder / name)
        model.reshape([1, *(side.get_length() for side in list(model.inputs[0].partial_shape)[1:])])
        compiled = core.compile_model(model, "CPU", options)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        ways[what] = _request(compiled)
    return Opened(ways, f"latency hint, INFERENCE_NUM_THREADS={threads}, batch 1 fixed, precision hint {used}")


def _request(compiled: Any) -> Infer:
    request, output = compiled.create_infer_request(), compiled.output(0)
    return lambda x: request.infer({0: x}, share_inputs=True)[output]


def _litert(name: str, folder: Path, row: str, threads: int) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / name), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()

    def infer(x: Batch) -> Any:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return Opened({"": infer}, f"XNNPACK delegate, num_threads={threads}", "NHWC")


def _ncnn(name: str, folder: Path, row: str, threads: int, *, store: Literal["fp32", "fp16", "bf16", "int8"]) -> Opened:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = store == "fp16"
    net.opt.use_bf16_storage = store == "bf16"
    param = folder / name
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {name}")

    def infer(x: Batch) -> Any:
        # A fresh extractor for each picture: it keeps what it has computed.
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(x[0]))
            return np.array(extractor.extract("out0")[1])[None]

    return Opened({"": infer}, f"Net, opt.num_threads={threads}, {store}")


def _part(function: Callable[..., Opened], *given: Any, **options: Any) -> Callable[[Path, str, int], Opened]:
    return functools.partial(function, *given, **options)


OURS: dict[str, Peer] = {
    "edgezoo fp32": Peer("onnxruntime", "torch", ("torch.onnx",), _part(_ours, "torch.onnx"), exact=True),
    "edgezoo int8": Peer("onnxruntime", "torch", ("torch.onnx", "int8.onnx"), _part(_ours, "int8.onnx")),
    "edgezoo tuned": Peer(
        "onnxruntime", "torch", ("torch.onnx", "int8.onnx", "openvino.onnx", "torch.onnx.tuned.json"), _tuned
    ),
}

_TORCH, _OV, _NCNN = ("torch.onnx",), "openvino", ("torch.onnx", "ncnn.param")
_STOCK = {"onnxruntime's int8 file": "stock.onnx"}
PEERS: dict[str, Peer] = {
    "onnxruntime fp32": Peer("onnxruntime", "torch", _TORCH, _part(_onnxruntime, "torch.onnx"), exact=True),
    "onnxruntime int8": Peer("onnxruntime", "torch", (*_TORCH, "stock.onnx"), _part(_onnxruntime, "stock.onnx")),
    "PyTorch fp32": Peer("torch", "torch", _TORCH, _part(_torch, bf16=False, compiled=False), exact=True),
    "PyTorch bf16": Peer("torch", "torch", _TORCH, _part(_torch, bf16=True, compiled=False)),
    "torch.compile fp32": Peer("torch", "torch", _TORCH, _part(_torch, bf16=False, compiled=True), exact=True),
    "torch.compile bf16": Peer("torch", "torch", _TORCH, _part(_torch, bf16=True, compiled=True)),
    "Keras fp32": Peer("tensorflow", "keras", ("keras.onnx",), _part(_keras, bf16=False), exact=True),
    "Keras bf16": Peer("tensorflow", "keras", ("keras.onnx",), _part(_keras, bf16=True)),
    "OpenVINO fp32": Peer(_OV, "torch", _TORCH, _part(_openvino, {"": "torch.onnx"}, precision="f32"), exact=True),
    "OpenVINO default": Peer(_OV, "torch", _TORCH, _part(_openvino, {"": "torch.onnx"}, precision=None)),
    "OpenVINO int8": Peer(_OV, "torch", (*_TORCH, *_STOCK.values()), _part(_openvino, _STOCK, precision=None)),
    "LiteRT fp32": Peer(
        "ai_edge_litert", "keras", ("keras.onnx", "float.tflite"), _part(_litert, "float.tflite"), exact=True
    ),
    "LiteRT int8": Peer("ai_edge_litert", "keras", ("keras.onnx", "int8.tflite"), _part(_litert, "int8.tflite")),
    "ncnn fp32": Peer("ncnn", "torch", _NCNN, _part(_ncnn, "ncnn.param", store="fp32"), exact=True),
    "ncnn fp16": Peer("ncnn", "torch", _NCNN, _part(_ncnn, "ncnn.param", store="fp16")),
    "ncnn bf16": Peer("ncnn", "torch", _NCNN, _part(_ncnn, "ncnn.param", store="bf16")),
    "ncnn int8": Peer("ncnn", "torch", (*_NCNN, "ncnn_int8.param"), _part(_ncnn, "ncnn_int8.param", store="int8")),
}


def bind(threads: int) -> None:
    """Hold this process to as many of its cores as it has threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
