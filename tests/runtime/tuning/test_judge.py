"""What a setting's scores are held against, task by task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtime.errors import InvalidInput
from runtime.metadata import Labels
from runtime.model import Model
from runtime.tuning.judge import judge, limits_of, material_of
from runtime.tuning.record import Setting, Trial
from runtime.tuning.search import tune

PICTURES = [np.full((8, 8, 3), level, np.uint8) for level in (0, 90, 180, 255)]
TRIAL = Trial(Setting("file.onnx", "onnxruntime", "fp32", 1))
DROP = limits_of(None, 1.0)


def column(*scores: float) -> np.ndarray:
    return np.array(scores, np.float32)[:, None]


@pytest.mark.parametrize(("scores", "agreement"), [("logits", 50.0), ("probabilities", 100.0)])
def test_of_one_score_the_side_of_the_middle_is_the_answer(
    tiny: Callable[..., Path], scores: str, agreement: float
) -> None:
    """One score has no largest: every answer would be the same."""
    path = tiny(task="binary", labels=Labels(names=("no", "yes")), scores=scores)
    proto = onnx.load(path)
    for item in proto.graph.initializer:
        if item.name in ("fw", "fb"):
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item)[..., :1].copy(), item.name))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(proto, path)
    found, wanted = column(0.2, 0.9, 0.1, 0.8), column(-0.2, 0.9, -0.1, 0.8)
    with Model(path) as model:
        told = judge(TRIAL, {"scores": found}, {"scores": wanted}, material_of(model, PICTURES, None), DROP)
        assert told.agreement == agreement
        assert told.verdict == ("50.00 % of the answers change, 1 allowed" if scores == "logits" else "")
        told = judge(TRIAL, {"scores": found}, {"scores": wanted}, material_of(model, PICTURES, [0, 1, 0, 1]), DROP)
    assert told.top1 == (50.0 if scores == "logits" else 100.0)
    assert told.verdict == ("50.00 points of top-1 lost, 1 allowed" if scores == "logits" else "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "features", "labels": None}, "task features: no one class of a picture is right"),
        ({"task": "multilabel"}, "task multilabel: no one class of a picture is right"),
    ],
)
def test_labels_where_none_is_right(tiny: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        tune(tiny(**changes), pictures=PICTURES, truth=[0] * 4, max_drop=1.0)


def test_answers_that_nobody_knows_have_a_tolerance_alone(tiny: Callable[..., Path]) -> None:
    path = tiny(task="other", labels=None)
    with pytest.raises(InvalidInput, match="is of task other: nobody knows its answers: give a tolerance"):
        tune(path, pictures=PICTURES, max_drop=1.0)
    record = tune(path, pictures=PICTURES, device="cpu", precision="fp32", threads=1, budget_s=0.2)
    assert {trial.agreement for trial in record.trials if trial.error is not None} == {None}


def test_every_output_is_held_to_the_tolerance(tiny: Callable[..., Path]) -> None:
    path = tiny(task="other", labels=None)
    proto = onnx.load(path)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("relu", 1, ["batch", 6, 8, 8]))
    onnx.save(proto, path)
    with Model(path) as model:
        material = material_of(model, PICTURES, None)
        wanted = material.outputs(model)
    assert {name: array.shape for name, array in wanted.items()} == {"logits": (16,), "relu": (4 * 6 * 8 * 8,)}
    found = wanted | {"relu": wanted["relu"] * np.float32(1.1)}
    assert judge(TRIAL, wanted, wanted, material, limits_of(0.01, None)).verdict == ""
    told = judge(TRIAL, found, wanted, material, limits_of(0.01, None))
    assert told.error == pytest.approx(0.1)
    assert told.verdict == "error 1.0e-01, 1e-02 allowed"
    less = {"logits": wanted["logits"]}
    assert (
        judge(TRIAL, less, wanted, material, limits_of(0.5, None)).verdict == "gives other outputs than the reference"
    )
