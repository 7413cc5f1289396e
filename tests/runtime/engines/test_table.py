"""The table of engines: complete, and strict about names, devices and precisions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from runtime.engines import DEVICES, ENGINES, FULL, engine_for, open_runner
from runtime.engines.table import precision_options
from runtime.errors import InvalidInput
from runtime.model import Model


@pytest.mark.parametrize("name", ENGINES)
def test_every_row_can_be_opened_asked_and_held_to_float32(name: str) -> None:
    row = ENGINES[name]
    module, _, function = row.opener.partition(":")
    assert callable(getattr(import_module(module), function))
    assert callable(import_module(module).why_unavailable)
    assert next(iter(row.precisions)) == FULL
    assert row.install.startswith("pip install ")
    assert row.device in DEVICES


def test_a_device_has_an_engine_of_its_own() -> None:
    assert engine_for(None, None) == engine_for("cpu", None) == "onnxruntime"
    assert engine_for("cuda", None) == "cuda"
    assert engine_for(None, "tensorrt") == engine_for("cuda", "tensorrt") == "tensorrt"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "onnx"}, "openvino"),
        ({"device": "npu"}, "cpu"),
        ({"device": "cuda", "engine": "openvino"}, "runs on cpu"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "fp32"),
        ({"engine": "openvino", "precision": "int8"}, "bf16"),
        ({"threads": 0}, "threads 0"),
        ({"engine": "openvino", "threads": -1}, "threads -1"),
        ({"decode": "lossy"}, "exact"),
    ],
)
def test_what_is_not_there_is_one_line(tiny: Callable[..., Path], options: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Model(tiny(), **options)  # type: ignore[arg-type]
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_float32_on_a_gpu_is_not_tf32() -> None:
    assert precision_options("cuda", FULL)["use_tf32"] == "0"
    assert precision_options("cuda", "tf32")["use_tf32"] == "1"


def test_a_closed_runner_does_not_run(tiny: Callable[..., Path]) -> None:
    for engine in ("onnxruntime", "openvino"):
        runner = open_runner(tiny(), engine=engine)
        runner.close()
        with pytest.raises(ValueError, match="closed"):
            runner.run(["logits"], {"input": np.zeros((1, 3, 8, 8), np.float32)})
