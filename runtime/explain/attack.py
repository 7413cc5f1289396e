"""A picture that changes the network's answer, and looks the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput
from runtime.explain.seen import limits, to_pictures
from runtime.explain.subject import Floats, Subject
from runtime.image import ImageSource, preprocess
from runtime.tasks.classification import Guess

if TYPE_CHECKING:
    from runtime.model import Model

_LARGEST = 64  # grey levels; beyond it anybody sees the difference


@dataclass(frozen=True, slots=True, eq=False)
class Attack:
    """picture: (height, width, 3) uint8, what the network saw; changed: the same after the attack.

    epsilon: the largest change of a pixel, in grey levels. before, after: the answers to both.
    fooled: whether the answer changed, or became the one that was aimed at.
    """

    picture: npt.NDArray[np.uint8]
    changed: npt.NDArray[np.uint8]
    epsilon: float
    before: Guess
    after: Guess
    fooled: bool


def fgsm(
    model: Model,
    image: ImageSource,
    *,
    epsilon: float | None = None,
    steps: int = 1,
    target: int | str | None = None,
) -> Attack:
    """x + epsilon * sign(dL/dx), L = -log of the answer's probability; with ``target``, towards that class.

    Goodfellow et al., "Explaining and Harnessing Adversarial Examples", 2014. With ``steps`` above 1 in as many steps
    of epsilon / steps each, the gradient taken anew: Kurakin et al., "Adversarial Examples in the Physical World",
    2016. The result is a picture: whole grey levels from black to white.

    epsilon: grey levels, 0 to 255; None looks for the smallest one that changes the answer, up to 64.

    Raises InvalidInput, UnknownName and what ``explain`` raises.
    """
    if epsilon is not None and not 0 < epsilon <= 255:
        raise InvalidInput(f"epsilon {epsilon}: give grey levels above 0, up to 255")
    if steps < 1:
        raise InvalidInput(f"steps {steps}: give 1 or more")
    subject = model.subject
    batch = preprocess(image, subject.rule)
    before = _answer(subject, batch)
    aim = None if target is None else subject.classes.index(target)
    if aim == before.index:
        raise InvalidInput(f"the network's answer is {before.label!r} already: aim at another class")

    def attempt(size: float) -> tuple[Floats, Guess]:
        changed = _changed(subject, batch, before.index, aim, size, steps)
        return changed, _answer(subject, changed)

    def fooled(guess: Guess) -> bool:
        return guess.index == aim if aim is not None else guess.index != before.index

    size = float(epsilon) if epsilon is not None else _smallest(lambda size: fooled(attempt(size)[1]))
    changed, after = attempt(size)
    pictures = to_pictures(np.concatenate([batch, changed]), subject.rule)
    return Attack(pictures[0], pictures[1], size, before, after, fooled(after))


def _smallest(works: Callable[[float], bool]) -> float:
    """The smallest whole number of grey levels found by doubling, then halving the interval; the largest if none is."""
    high = 1
    while not works(high):
        if high >= _LARGEST:
            return float(_LARGEST)
        high *= 2
    low = high // 2  # did not work, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return float(high)


def _changed(subject: Subject, batch: Floats, answer: int, aim: int | None, size: float, steps: int) -> Floats:
    """The network's input after the attack."""
    black, white, level = limits(subject.rule)
    # Values are whole grey levels away from black; the picture itself may not be, where it was resized.
    low, high = np.maximum(batch - size * level, black), np.minimum(batch + size * level, white)
    now = batch
    for _ in range(steps):
        now = now + size / steps * level * np.sign(_loss_gradient(subject, now, answer, aim))
        now = np.clip(now, low, high)
    whole = black + np.round((now - black) / level) * level
    return np.ascontiguousarray(np.clip(whole, black, white), dtype=np.float32)


def _loss_gradient(subject: Subject, pixels: Floats, answer: int, aim: int | None) -> Floats:
    """Of -log p(answer), or of log p(aim), with respect to the input: the seed is its derivative by the scores."""
    chances = subject.classes.probabilities(subject.scores(pixels))[0]
    index, sign = (answer, 1.0) if aim is None else (aim, -1.0)
    if subject.model.task == "classification":
        seed = chances - np.eye(len(chances), dtype=np.float32)[index]
        seed = seed[None]
    else:  # one score for each class, or for both: the others take no part
        seed = -subject.classes.seed([index]) * (1 - chances[index])
    # A class that is as good as certain has a loss whose gradient rounds to 0: only its direction is asked for.
    seed = seed / max(float(np.abs(seed).max()), 1e-30) if seed.any() else -subject.classes.seed([index])
    return subject.derive(pixels, np.float32(sign) * seed, [subject.input]).gradients[subject.input]


def _answer(subject: Subject, pixels: Floats) -> Guess:
    chances = subject.classes.probabilities(subject.scores(pixels))[0]
    index = int(chances.argmax())
    return Guess(index, subject.classes.label(index), float(chances[index]))
