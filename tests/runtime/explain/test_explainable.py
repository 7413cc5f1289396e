"""What a model offers besides its answer: layers, activations, hooks; and that they cost nothing before."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.errors import UnknownName

PICTURE = np.random.default_rng(3).integers(0, 256, (12, 14, 3), dtype=np.uint8)


def test_layers_are_the_maps_of_places(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny(explain_layer="relu")) as model:
        found = {layer.name: layer for layer in model.layers()}
    assert list(found) == ["conv", "relu", "gap"]
    assert found["relu"].shape == (6, 8, 8)
    assert [layer.name for layer in found.values() if layer.default] == ["relu"]
    with runtime.load(tiny(explain_layer="gone")) as model:
        assert [layer.name for layer in model.layers() if layer.default] == ["relu"]  # the last with several places


def test_activations_are_those_of_the_run(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny()) as model:
        found = model.activations(PICTURE, ["relu", "gap", "logits"])
        scores = next(model.scores_many([PICTURE]))[0]
    np.testing.assert_allclose(found["relu"].mean((1, 2)), found["gap"].ravel(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["logits"], scores, rtol=1e-5, atol=1e-6)
    with runtime.load(tiny()) as model, pytest.raises(UnknownName, match="did you mean relu"):
        model.activations(PICTURE, "relv")


@pytest.mark.parametrize("batch", ["batch", 2])
def test_hooks_are_told_until_they_are_taken_off(tiny: Callable[..., Path], batch: int | str) -> None:
    told: list[tuple[str, tuple[int, ...]]] = []
    with runtime.load(tiny(batch=batch)) as model:
        plain = model.predict(PICTURE)
        off = model.on_activation("relu", lambda name, values: told.append((name, values.shape)))
        other = model.on_activation("gap", lambda name, values: told.append((name, values.shape)))
        hooked = model.predict(PICTURE)
        assert hooked.index == plain.index
        assert hooked.probability == pytest.approx(plain.probability, abs=1e-6)
        count = 1 if batch == "batch" else 2
        assert told == [("relu", (count, 6, 8, 8)), ("gap", (count, 6, 1, 1))]
        off()
        off()
        other()
        model.predict(PICTURE)
        assert len(told) == 2
        with pytest.raises(UnknownName):
            model.on_activation("nothing", lambda name, values: None)


def test_what_a_hook_raises_is_raised_by_the_run(tiny: Callable[..., Path]) -> None:
    def fail(name: str, values: np.ndarray) -> None:
        raise RuntimeError("from the hook")

    with runtime.load(tiny()) as model:
        model.on_activation("relu", fail)
        with pytest.raises(RuntimeError, match="from the hook"):
            model.predict(PICTURE)


def test_a_plain_prediction_loads_nothing_of_it(tiny: Callable[..., Path]) -> None:
    code = (
        "import sys, runtime, numpy; runtime.load(sys.argv[1]).predict(numpy.zeros((9, 9, 3), numpy.uint8)); "
        "print(sorted({'onnx', 'runtime.gradients', 'runtime.explain.explainers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny())], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
