"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from runtime.machine import usable_cores
from runtime.metadata import Labels, Metadata, Preprocess, Provenance

# TensorFlow 2.20+ on Linux opens its LLVM to the whole process, and Triton, which torch's optimizers load, dies of it
# unless it came first (tensorflow/tensorflow issue 124205). Collection is before any test imports TensorFlow.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

# Some tests import onnxruntime themselves, past runtime.machine, which switches its telemetry off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What an earlier run found of a search is not this one's.
os.environ["EDGEZOO_CACHE"] = ""

# One thread of each framework, and none that spins: the workers share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")

# And a core of its own for each worker: sessions that share two cores take turns in spinning on them.
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

pytest.register_assert_rewrite("tests.runtime.image.pictures")

ROOT = Path(__file__).parents[1]

MOST_WORKERS = 2
"""Each loads both frameworks and takes up to 6 GB; -n takes more where there is room."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker for each core. Files and tests that are named, and what is to be seen (-s), run in this process."""
    named = all("::" in argument or Path(argument).is_file() for argument in config.args)
    cores = usable_cores()
    return 0 if named or cores == 1 or config.getoption("capture") == "no" else min(cores, MOST_WORKERS)


_modules_frozen = 0


@pytest.fixture(autouse=True)
def quick_garbage() -> None:
    """Exports and Keras collect garbage again and again: let them not walk through both frameworks each time."""
    global _modules_frozen
    if len(sys.modules) > _modules_frozen + 100:
        gc.collect()
        gc.freeze()
        _modules_frozen = len(sys.modules)


def pytest_unconfigure() -> None:
    """Python's end collects what was frozen; compiled modules complain of what is left."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The measuring data: real weights and photos. Tests that need it skip without it."""
    folder = Path(os.environ.get("EDGEZOO_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no measuring data at {folder}")
    return folder


@pytest.fixture
def metadata() -> Metadata:
    """What a small three-colour, four-class model says of itself."""
    return Metadata(
        name="tiny",
        task="classification",
        preprocess=Preprocess(size=(8, 8), resize=10, mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255),
        labels=Labels(names=("red", "green", "blue", "grey"), ids=("n1", "n2", "n3", "n4")),
        provenance=Provenance(
            framework="none", framework_version="0", exporter="onnx.helper", edgezoo_version="0", builder="tests",
            opset=18, weights="file", weights_file="tiny.bin", license="Apache-2.0",
        ),
        explain_layer="conv",
    )  # fmt: skip


def tiny_proto(batch: int | str = "batch") -> onnx.ModelProto:
    """Conv 3x3 -> ReLU -> global average -> Gemm: 3x8x8 pictures, 4 classes, seeded weights."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.normal(size=(6, 3, 3, 3)), "b": rng.normal(size=6), "fw": rng.normal(size=(6, 4)), "fb": np.zeros(4)
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["gap"]),
        helper.make_node("Flatten", ["gap"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fw", "fb"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", 1, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", 1, [batch, 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def tiny_model() -> onnx.ModelProto:
    """The tiny network as a model in memory."""
    return tiny_proto()


@pytest.fixture
def tiny(tmp_path: Path, metadata: Metadata) -> Callable[..., Path]:
    """Writes a tiny model; arguments change its batch, its metadata fields or its raw properties."""

    def make(
        name: str = "tiny.onnx", *, batch: int | str = "batch", stamped: bool = True,
        props: dict[str, str] | None = None, **changes: Any,
    ) -> Path:  # fmt: skip
        proto = tiny_proto(batch)
        values = replace(metadata, **changes).to_props() if stamped else {}
        for key, value in (values | (props or {})).items():
            proto.metadata_props.add(key=key, value=value)
        path = tmp_path / name
        path.write_bytes(proto.SerializeToString())
        return path

    return make


@pytest.fixture(scope="session")
def lenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, exported from PyTorch with the bundled weights as `zoo export lenet5` does it."""
    from zoo.cli import main

    path = tmp_path_factory.mktemp("lenet") / "lenet5.onnx"
    assert main(["export", "lenet5", "--source", "torch", "-o", str(path)]) == 0
    return path


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def zoo(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs one ``zoo`` command in this process."""
    from zoo.cli import main

    def run(*argv: object) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run
