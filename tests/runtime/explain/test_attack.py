"""Pictures that change the answer: within their bound, real pictures, and in the direction of the gradient."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.errors import InvalidInput
from runtime.explain import fgsm
from runtime.image import preprocess

PICTURE = np.random.default_rng(3).integers(20, 230, (8, 8, 3), dtype=np.uint8)


def test_one_step_goes_along_the_gradient_s_sign(tiny: Callable[..., Path]) -> None:
    with runtime.load(tiny()) as model:
        found = fgsm(model, PICTURE, epsilon=4)
        pixels, index = preprocess(PICTURE, model.rule), found.before.index
        signs = np.zeros(pixels.shape[1:])
        for place in np.ndindex(signs.shape):
            step = np.zeros_like(pixels)
            step[(0, *place)] = 1e-2
            up, down = (_log_probability(model.run(moved)[0], index) for moved in (pixels + step, pixels - step))
            signs[place] = np.sign(down - up)
    change = np.moveaxis(found.changed.astype(int) - found.picture, 2, 0)
    assert np.abs(change).max() == 4
    assert (np.sign(change) == signs).mean() >= 0.98  # a gradient near 0 has no sign to speak of
    assert found.after.probability < found.before.probability or found.fooled


def _log_probability(scores: np.ndarray, index: int) -> float:
    shifted = scores.astype(np.float64) - scores.max()
    return float(shifted[index] - np.log(np.exp(shifted).sum()))


@pytest.mark.parametrize("steps", [1, 5])
def test_the_smallest_epsilon_works_and_the_answer_is_that_of_the_picture(
    lenet_file: Path, root: Path, steps: int
) -> None:
    digit = next(iter(sorted((root / "exporters" / "samples" / "digits").glob("*.png"))))
    with runtime.load(lenet_file) as model:
        found = fgsm(model, digit, steps=steps)
        assert found.fooled
        assert found.before.index == model.predict(digit).index
        assert found.after.index != found.before.index
        assert 1 <= found.epsilon <= 64
        assert np.abs(found.changed.astype(int) - found.picture).max() <= found.epsilon
        assert model.predict(found.changed[..., :1]).index == found.after.index  # the picture itself, from its file
        if found.epsilon > 1:
            assert not fgsm(model, digit, epsilon=found.epsilon / 2, steps=steps).fooled


def test_steps_reach_a_class_that_is_aimed_at(lenet_file: Path, root: Path) -> None:
    digit = next(iter(sorted((root / "exporters" / "samples" / "digits").glob("*.png"))))
    with runtime.load(lenet_file) as model:
        answer = model.predict(digit).index
        aim = (answer + 3) % 10
        found = fgsm(model, digit, steps=20, target=aim, epsilon=100)
        assert found.after.index == aim
        with pytest.raises(InvalidInput, match="already"):
            fgsm(model, digit, target=answer)


@pytest.mark.parametrize(("options", "message"), [({"epsilon": 0}, "epsilon 0"), ({"steps": 0}, "steps 0")])
def test_requests_that_make_no_sense(tiny: Callable[..., Path], options: dict[str, int], message: str) -> None:
    with runtime.load(tiny()) as model, pytest.raises(InvalidInput, match=message):
        fgsm(model, PICTURE, **options)
