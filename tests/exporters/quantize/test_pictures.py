"""Calibration pictures: read again on every pass, kept where there is room, taken in parts."""

import numpy as np
import pytest

from exporters.quantize import pictures as module
from exporters.quantize.pictures import split
from tests.exporters.quantize.networks import pictures


def test_a_part_has_the_same_pictures() -> None:
    whole = pictures(12)
    every = np.concatenate(list(whole.batches(5)))
    part = whole.part(3, 11)
    assert len(part) == 8
    for _ in range(2):  # read, and kept
        np.testing.assert_array_equal(np.concatenate(list(part.batches(3))), every[3:11])
        np.testing.assert_array_equal(np.concatenate(list(part.part(2, 5).batches(3))), every[5:8])
        np.testing.assert_array_equal(np.concatenate(list(part.first(2).batches(3))), every[3:5])


def test_what_is_kept_is_bounded_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = module.preprocess
    monkeypatch.setattr(module, "preprocess", lambda source, rule: read.append(1) or real(source, rule))
    whole = pictures(12)
    for _ in range(2):
        list(whole.batches(4))
        list(whole.part(6, 12).batches(4))
    assert len(read) == 12
    monkeypatch.setattr(module, "_KEPT", 0)
    read.clear()
    small = pictures(4)
    for _ in range(2):
        list(small.batches(4))
    assert len(read) == 8


def test_ways_are_compared_on_pictures_that_the_network_is_not_equalised_on() -> None:
    learned, checked = split(pictures(60))
    assert checked is not None
    assert (len(learned), len(checked)) == (40, 20)
    both = np.concatenate([*learned.batches(60), *checked.batches(60)])
    np.testing.assert_array_equal(both, np.concatenate(list(pictures(60).batches(60))))
    few = pictures(29)
    assert split(few) == (few, None), "of so few all are needed"
    assert len(split(pictures(400))[1] or []) == 48
